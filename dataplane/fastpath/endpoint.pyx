"""Socket addresses as the kernel gives and takes them, and as the tuples of the socket module.

Knows struct sockaddr_in and sockaddr_in6 (ip(7), ipv6(7)). Must not know sockets, nor what an address means.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_INET6

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)
    uint32_t htonl(uint32_t value)
    uint32_t ntohl(uint32_t value)
    int inet_pton(int family, const char* source, void* to)
    const char* inet_ntop(int family, const void* source, char* to, uint32_t size)

cdef enum:
    # Where the fields stand.
    FAMILY = 0
    PORT = 2
    IPV4_ADDRESS = 4
    IPV4_END = 8
    IPV6_FLOW_INFO = 4
    IPV6_ADDRESS = 8
    IPV6_SCOPE_ID = 24
    IPV4_SIZE = 16
    IPV6_SIZE = 28
    TEXT_SIZE = 46


cdef bint same_endpoint(const Endpoint* a, const Endpoint* b) noexcept nogil:
    if a.size != b.size:
        return False
    if a.size == 0:
        return True
    if a.size == IPV4_SIZE:
        return memcmp(a.sockaddr, b.sockaddr, IPV4_END) == 0
    return (
        memcmp(a.sockaddr, b.sockaddr, IPV6_FLOW_INFO) == 0
        and memcmp(&a.sockaddr[IPV6_ADDRESS], &b.sockaddr[IPV6_ADDRESS], IPV6_SIZE - IPV6_ADDRESS) == 0
    )


cdef void endpoint_key(uint64_t* key, uint32_t socket_id, const Endpoint* endpoint) noexcept nogil:
    # The family stands in it, so that two of different size never have one key.
    cdef char* to = <char*>key
    memset(to, 0, ENDPOINT_KEY_WORDS * sizeof(uint64_t))
    if endpoint.size == IPV4_SIZE:
        memcpy(to, endpoint.sockaddr, IPV4_END)
    elif endpoint.size == IPV6_SIZE:
        memcpy(to, endpoint.sockaddr, IPV6_SIZE)
        memset(to + IPV6_FLOW_INFO, 0, IPV6_ADDRESS - IPV6_FLOW_INFO)
    memcpy(to + IPV6_SIZE, &socket_id, sizeof(socket_id))


cdef Endpoint pack_endpoint(object sockaddr) except *:
    cdef Endpoint stream
    if sockaddr is None:
        memset(&stream, 0, sizeof(Endpoint))
        return stream
    if len(sockaddr) == 2:
        host, port = sockaddr
        return pack(AF_INET, host, port, 0, 0)
    host, port, flow_info, scope_id = sockaddr
    return pack(AF_INET6, host, port, flow_info, scope_id)


cdef Endpoint pack(uint16_t family, str host, uint16_t port, uint32_t flow_info, uint32_t scope_id) except *:
    cdef Endpoint endpoint
    cdef bytes text = host.encode()
    memset(&endpoint, 0, sizeof(Endpoint))
    endpoint.size = IPV4_SIZE if family == AF_INET else IPV6_SIZE
    if inet_pton(family, text, &endpoint.sockaddr[IPV4_ADDRESS if family == AF_INET else IPV6_ADDRESS]) != 1:
        raise ValueError(f"no address of this family: {host!r}")
    port = htons(port)
    memcpy(&endpoint.sockaddr[FAMILY], &family, sizeof(family))
    memcpy(&endpoint.sockaddr[PORT], &port, sizeof(port))
    if family == AF_INET6:
        flow_info = htonl(flow_info)
        memcpy(&endpoint.sockaddr[IPV6_FLOW_INFO], &flow_info, sizeof(flow_info))
        memcpy(&endpoint.sockaddr[IPV6_SCOPE_ID], &scope_id, sizeof(scope_id))
    return endpoint


cdef object unpack_endpoint(const Endpoint* endpoint):
    cdef char text[TEXT_SIZE]
    cdef uint16_t port
    cdef uint32_t flow_info, scope_id
    if endpoint.size == 0:
        return None
    memcpy(&port, &endpoint.sockaddr[PORT], sizeof(port))
    if endpoint.size == IPV4_SIZE:
        inet_ntop(AF_INET, &endpoint.sockaddr[IPV4_ADDRESS], text, TEXT_SIZE)
        return (<bytes>text).decode(), ntohs(port)
    memcpy(&flow_info, &endpoint.sockaddr[IPV6_FLOW_INFO], sizeof(flow_info))
    memcpy(&scope_id, &endpoint.sockaddr[IPV6_SCOPE_ID], sizeof(scope_id))
    inet_ntop(AF_INET6, &endpoint.sockaddr[IPV6_ADDRESS], text, TEXT_SIZE)
    return (<bytes>text).decode(), ntohs(port), ntohl(flow_info), scope_id


cdef LocalAddress pack_local(object address) except *:
    cdef LocalAddress local
    cdef bytes packed = b"" if address is None else address
    cdef const char* source = packed
    memset(&local, 0, sizeof(LocalAddress))
    if address is None:
        return local
    if len(packed) not in (4, 16):
        raise ValueError(f"an address of {len(packed)} bytes")
    local.size = len(packed)
    memcpy(local.address, source, local.size)
    return local


cdef object unpack_local(const LocalAddress* local):
    return PyBytes_FromStringAndSize(<const char*>local.address, local.size) if local.size else None


# For tests.

def repacked(sockaddr):
    """Packs the tuple of an endpoint, and unpacks it. Raises ValueError."""
    cdef Endpoint endpoint = pack_endpoint(sockaddr)
    return unpack_endpoint(&endpoint)


def packed(sockaddr):
    """The bytes of struct sockaddr_in or sockaddr_in6."""
    cdef Endpoint endpoint = pack_endpoint(sockaddr)
    return PyBytes_FromStringAndSize(<const char*>endpoint.sockaddr, endpoint.size)


def repacked_local(address):
    """Packs a local address (4 or 16 bytes, None), and unpacks it. Raises ValueError."""
    cdef LocalAddress local = pack_local(address)
    return unpack_local(&local)


def are_same(one, other):
    """Whether two endpoints are the same."""
    cdef Endpoint a = pack_endpoint(one)
    cdef Endpoint b = pack_endpoint(other)
    return same_endpoint(&a, &b)


def key_of(uint32_t socket_id, sockaddr):
    """The key of an endpoint in a table, as a tuple of words."""
    cdef Endpoint endpoint = pack_endpoint(sockaddr)
    cdef uint64_t key[ENDPOINT_KEY_WORDS]
    endpoint_key(key, socket_id, &endpoint)
    return tuple(key)
