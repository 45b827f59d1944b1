"""A table of IPv4 and IPv6 prefixes, looked up by longest match.

Knows prefixes. Must not know what stands behind them, nor packets. Same results as dataplane/datachannel/routing.py: a
map for each prefix length in use, the longest first.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uint32_t

from dataplane.fastpath.hash_map cimport (
    HashMap, find_entry, free_map, put_entry, remove_entry, reserve_entries, set_up_map,
)
from dataplane.fastpath.ip_header cimport IpAddress, pack_address


cdef class RoutingTable:
    """Maps prefixes to addresses in memory; IPv4 and IPv6 are separate worlds."""

    def __dealloc__(self):
        while self.ipv4.count:
            remove_map(&self.ipv4, 0)
        while self.ipv6.count:
            remove_map(&self.ipv6, 0)

    cdef void* lookup_address(self, IpAddress address) noexcept nogil:
        cdef Routes* routes = &self.ipv4 if address.size == 4 else &self.ipv6
        cdef IpAddress network
        cdef void* value
        cdef uint32_t index
        for index in range(routes.count):
            network = network_of(address, routes.host_bits[index])
            value = find_entry(routes.maps[index], network.words)
            if value != NULL:
                return value
        return NULL

    cdef void* get_route(self, prefix) except? NULL:
        cdef uint32_t host_bits
        cdef IpAddress network = parse(prefix, &host_bits)
        cdef Routes* routes = &self.ipv4 if network.size == 4 else &self.ipv6
        cdef uint32_t index = index_of(routes, host_bits)
        return find_entry(routes.maps[index], network.words) if has_map(routes, index, host_bits) else NULL

    cdef int put_route(self, prefix, void* value) except -1:
        cdef uint32_t host_bits
        cdef IpAddress network = parse(prefix, &host_bits)
        cdef Routes* routes = &self.ipv4 if network.size == 4 else &self.ipv6
        cdef uint32_t index = index_of(routes, host_bits)
        if not has_map(routes, index, host_bits):
            insert_map(routes, index, host_bits)
        reserve_entries(routes.maps[index], routes.maps[index].used + 1)
        put_entry(routes.maps[index], network.words, value)
        return 0

    cdef int remove_route(self, prefix) except -1:
        cdef uint32_t host_bits
        cdef IpAddress network = parse(prefix, &host_bits)
        cdef Routes* routes = &self.ipv4 if network.size == 4 else &self.ipv6
        cdef uint32_t index = index_of(routes, host_bits)
        if not has_map(routes, index, host_bits) or not remove_entry(routes.maps[index], network.words):
            raise KeyError(prefix)
        if not routes.maps[index].used:
            remove_map(routes, index)
        return 0


cdef IpAddress parse(prefix, uint32_t* host_bits) except *:
    """The network of (packed address, prefix length in bits), and the number of bits behind the length."""
    packed, length = prefix
    if len(packed) not in (4, 16) or not 0 <= length <= len(packed) * 8:
        raise ValueError(f"no prefix: {len(packed)} bytes of address, length {length}")
    host_bits[0] = len(packed) * 8 - length
    return network_of(pack_address(packed), host_bits[0])


cdef inline IpAddress network_of(IpAddress address, uint32_t host_bits) noexcept nogil:
    """Moves the host bits (0..128) out of an address."""
    if host_bits >= 64:
        address.words[1] = address.words[0]
        address.words[0] = 0
        host_bits -= 64
    if host_bits >= 64:
        address.words[1] = 0
    elif host_bits:
        address.words[1] = address.words[1] >> host_bits | address.words[0] << (64 - host_bits)
        address.words[0] >>= host_bits
    return address


cdef uint32_t index_of(const Routes* routes, uint32_t host_bits) noexcept:
    """Where the map of this prefix length stands, or would stand."""
    cdef uint32_t index = 0
    while index < routes.count and routes.host_bits[index] < host_bits:
        index += 1
    return index


cdef bint has_map(const Routes* routes, uint32_t index, uint32_t host_bits) noexcept:
    return index < routes.count and routes.host_bits[index] == host_bits


cdef int insert_map(Routes* routes, uint32_t index, uint32_t host_bits) except -1:
    cdef uint32_t behind
    cdef HashMap* map = <HashMap*>PyMem_RawMalloc(sizeof(HashMap))
    if map == NULL:
        raise MemoryError
    try:
        set_up_map(map, 2)
    except BaseException:
        PyMem_RawFree(map)
        raise
    for behind in range(routes.count, index, -1):
        routes.maps[behind] = routes.maps[behind - 1]
        routes.host_bits[behind] = routes.host_bits[behind - 1]
    routes.maps[index] = map
    routes.host_bits[index] = host_bits
    routes.count += 1
    return 0


cdef void remove_map(Routes* routes, uint32_t index) noexcept:
    cdef uint32_t behind
    free_map(routes.maps[index])
    PyMem_RawFree(routes.maps[index])
    routes.count -= 1
    for behind in range(index, routes.count):
        routes.maps[behind] = routes.maps[behind + 1]
        routes.host_bits[behind] = routes.host_bits[behind + 1]


cdef class TestedRoutingTable(RoutingTable):
    """A table with Python objects for values, which it never forgets: for tests."""

    cdef list values

    def __cinit__(self):
        self.values = []

    def insert(self, prefix, value):
        """Adds a prefix, or gives it a new value. Raises ValueError for what is no prefix."""
        self.values.append(value)
        self.put_route(prefix, <void*>value)

    def remove(self, prefix):
        """Removes a prefix. Raises KeyError if it is not there."""
        self.remove_route(prefix)

    def get(self, prefix):
        """The value of exactly this prefix."""
        return as_object(self.get_route(prefix))

    def lookup(self, bytes address not None):
        """The value of the longest prefix that holds this packed address (4 or 16 bytes)."""
        return as_object(self.lookup_address(pack_address(address)))


cdef object as_object(void* value):
    return None if value == NULL else <object>value
