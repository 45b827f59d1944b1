# The facts that are read off an inner packet: where it comes from, where it goes, and how it wants to be treated; twin
# of dataplane/datachannel/ip_header.py. Knows the fixed part of the IPv4 (RFC 791) and IPv6 (RFC 8200) header.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from dataplane.fastpath.span cimport Span, get8, get32

cdef enum:
    IPV4_HEADER_SIZE = 20
    IPV6_HEADER_SIZE = 40

cdef struct IpAddress:
    # The address as a number, most significant word first (words[0] of an IPv4 address is 0); size 4 or 16, or 0 for
    # "the packet has no whole IPv4 or IPv6 header".
    uint64_t words[2]
    uint32_t size

# An address of 4 or 16 bytes, and back (None for size 0). Raises ValueError.
cdef IpAddress pack_address(bytes packed) except *
cdef object unpack_address(IpAddress address)


cdef inline IpAddress source_of(Span packet) noexcept nogil:
    return address_in(packet, 12, 8)


cdef inline IpAddress destination_of(Span packet) noexcept nogil:
    return address_in(packet, 16, 24)


# The DSCP in the place it has in the TOS (RFC 2474), ECN bits zero; 0 if the packet has no whole header.
cdef inline uint8_t dscp_of(Span packet) noexcept nogil:
    cdef int version = get8(packet, 0) >> 4 if packet.size else 0
    if version == 4 and packet.size >= IPV4_HEADER_SIZE:
        return get8(packet, 1) & 0xFC
    if version == 6 and packet.size >= IPV6_HEADER_SIZE:
        return (get8(packet, 0) << 4 | get8(packet, 1) >> 4) & 0xFC
    return 0


cdef inline IpAddress address_in(Span packet, size_t ipv4_at, size_t ipv6_at) noexcept nogil:
    cdef IpAddress address
    cdef int version = get8(packet, 0) >> 4 if packet.size else 0
    address.words[0] = address.words[1] = 0
    address.size = 0
    if version == 4 and packet.size >= IPV4_HEADER_SIZE:
        address.words[1] = get32(packet, ipv4_at)
        address.size = 4
    elif version == 6 and packet.size >= IPV6_HEADER_SIZE:
        address.words[0] = two_words(packet, ipv6_at)
        address.words[1] = two_words(packet, ipv6_at + 8)
        address.size = 16
    return address


cdef inline uint64_t two_words(Span packet, size_t at) noexcept nogil:
    return <uint64_t>get32(packet, at) << 32 | get32(packet, at + 4)
