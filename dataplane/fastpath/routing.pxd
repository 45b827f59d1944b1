# A table of IPv4 and IPv6 prefixes, looked up by longest match; twin of dataplane/datachannel/routing.py.

from libc.stdint cimport uint32_t, uint64_t

from dataplane.fastpath.hash_map cimport HashMap
from dataplane.fastpath.ip_header cimport IpAddress

cdef enum:
    LENGTHS_MAX = 129  # of IPv6 prefixes: 0..128 bits

cdef struct Routes:
    # Of one family: a map for each prefix length in use, the longest (fewest host bits) first.
    HashMap* maps[LENGTHS_MAX]
    uint32_t host_bits[LENGTHS_MAX]
    uint32_t count

cdef class RoutingTable:
    cdef Routes ipv4
    cdef Routes ipv6
    # The value of the longest prefix that holds this address (size 4 or 16); NULL: none.
    cdef void* lookup_address(self, IpAddress address) noexcept nogil
    # The value of exactly this prefix; NULL: none. This and the following raise ValueError for what is no prefix.
    cdef void* get_route(self, prefix) except? NULL
    # Adds a prefix, or gives it a new value. Raises MemoryError.
    cdef int put_route(self, prefix, void* value) except -1
    # Raises KeyError if it is not there.
    cdef int remove_route(self, prefix) except -1
