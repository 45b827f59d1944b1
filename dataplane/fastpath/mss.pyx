"""The MSS option of TCP (RFC 9293, 3.7.1; RFC 6691), lowered in the packets that open a connection.

Knows where the option stands behind an IPv4 or IPv6 header, and how a checksum follows a change (RFC 1624). Must not
know peers or directions. Packets are hostile: whatever is not whole stays as it is. Same results as
dataplane/datachannel/mss.py.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from dataplane.fastpath.checksum cimport folded
from dataplane.fastpath.headers cimport (
    IPV4_SIZE, IPV6_SIZE, SYN, TCP, TCP_CHECKSUM, TCP_FLAGS, TCP_SIZE, ip_version, ipv4_header_size, tcp_header_size,
)
from dataplane.fastpath.span cimport Span, get8, get16, put16, span_of

cdef enum:
    IPV4_PROTOCOL = 9  # where it stands
    IPV4_FRAGMENT = 6
    FRAGMENT_OFFSET = 0x1FFF
    IPV6_NEXT_HEADER = 6
    # All that may stand before TCP in a packet that is no fragment.
    HOP_BY_HOP = 0
    ROUTING = 43
    DESTINATION_OPTIONS = 60
    # Options of TCP.
    END = 0
    NO_OPERATION = 1
    MSS = 2
    MSS_SIZE = 4  # kind, length, value of two bytes


cdef MssLimits pack_limits(object limits) except *:
    ipv4, ipv6 = limits
    return MssLimits(ipv4, ipv6)


cdef void clamp(Span packet, MssLimits limits) noexcept nogil:
    cdef uint16_t limit
    cdef size_t transport, at, end
    cdef uint8_t kind, size
    if packet.size == 0:
        return
    if ip_version(packet) == 4:
        limit = limits.ipv4
        transport = tcp_in_ipv4(packet)
    else:
        limit = limits.ipv6
        transport = tcp_in_ipv6(packet)
    if limit == 0 or transport == 0 or transport + TCP_SIZE > packet.size:
        return
    if not get8(packet, transport + TCP_FLAGS) & SYN:
        return
    end = transport + tcp_header_size(packet, transport)
    if end > packet.size:
        return
    at = transport + TCP_SIZE
    while at + MSS_SIZE <= end and get8(packet, at) != END:
        kind = get8(packet, at)
        if kind == NO_OPERATION:
            at += 1
            continue
        size = get8(packet, at + 1)
        if size < 2:
            return
        if kind == MSS and size == MSS_SIZE:
            lower(packet, transport, at + 2, limit)
        at += size


cdef inline size_t tcp_in_ipv4(Span packet) noexcept nogil:
    """Where the TCP header begins; 0: there is none."""
    if packet.size < IPV4_SIZE or get8(packet, IPV4_PROTOCOL) != TCP:
        return 0
    if get16(packet, IPV4_FRAGMENT) & FRAGMENT_OFFSET or ipv4_header_size(packet) < IPV4_SIZE:
        return 0
    return ipv4_header_size(packet)


cdef inline size_t tcp_in_ipv6(Span packet) noexcept nogil:
    """Where the TCP header begins; 0: there is none."""
    cdef size_t at = IPV6_SIZE
    cdef uint8_t kind
    if packet.size < IPV6_SIZE:
        return 0
    kind = get8(packet, IPV6_NEXT_HEADER)
    while kind == HOP_BY_HOP or kind == ROUTING or kind == DESTINATION_OPTIONS:
        if at + 2 > packet.size:
            return 0
        kind = get8(packet, at)
        at += 8 * (<size_t>get8(packet, at + 1) + 1)
    return at if kind == TCP else 0


cdef void lower(Span packet, size_t transport, size_t at, uint16_t limit) noexcept nogil:
    cdef uint16_t old = get16(packet, at)
    cdef uint16_t new = limit
    cdef uint16_t checksum
    if old <= limit:
        return
    put16(packet, at, limit)
    # RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). At an odd place each byte counts in the other half of a word.
    if at % 2:
        old = old << 8 | old >> 8
        new = new << 8 | new >> 8
    checksum = ~get16(packet, transport + TCP_CHECKSUM)
    old = ~old
    put16(packet, transport + TCP_CHECKSUM, ~folded(<uint32_t>checksum + old + new))


def clamped(bytes packet not None, limits):
    """For tests: the packet after clamp_mss()."""
    cdef bytearray copy = bytearray(packet)
    clamp_mss(span_of(<uint8_t*><char*>copy, len(copy)), pack_limits(limits))
    return bytes(copy)
