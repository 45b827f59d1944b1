# Socket addresses as the kernel gives and takes them, and as the tuples of the socket module.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    ENDPOINT_KEY_WORDS = 4

cdef struct Endpoint:
    # A sockaddr_in or sockaddr_in6, the bytes behind it zero, and its size: 16 or 28; 0: the other end of a stream.
    uint8_t sockaddr[28]
    uint32_t size

cdef struct LocalAddress:
    # Address of this host that a datagram came to or leaves from, size 4 or 16 bytes; 0: none is known.
    uint8_t address[16]
    uint32_t size

# Same family, address, port and scope id (flow info does not count).
cdef bint same_endpoint(const Endpoint* a, const Endpoint* b) noexcept nogil
# Writes a key of ENDPOINT_KEY_WORDS words for a HashMap: what same_endpoint() compares, and the socket.
cdef void endpoint_key(uint64_t* key, uint32_t socket_id, const Endpoint* endpoint) noexcept nogil
# Raises ValueError.
cdef Endpoint pack_endpoint(object sockaddr) except *
cdef object unpack_endpoint(const Endpoint* endpoint)
cdef LocalAddress pack_local(object address) except *
cdef object unpack_local(const LocalAddress* local)
