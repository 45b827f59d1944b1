# What merging reads of one packet: its flow, and whether its headers allow merging at all.
#
# Knows the fields of IP, TCP and UDP headers. Must not know other packets, but that two may be of one flow. Packets are
# hostile: nothing is read that was not checked to be there, and whoever reads a Segment stays inside its header_size.

from libc.stdint cimport uint8_t, uint32_t

from dataplane.fastpath.checksum cimport add_bytes, folded
from dataplane.fastpath.headers cimport (
    ACK,
    IPV4_SIZE,
    IPV6_SIZE,
    RST,
    SYN,
    TCP,
    TCP_FLAGS,
    TCP_SIZE,
    UDP,
    UDP_CHECKSUM,
    UDP_LENGTH,
    UDP_SIZE,
    URG,
    ip_version,
    tcp_header_size,
    transport_sum,
)
from dataplane.fastpath.span cimport Span, equal, get8, get16, get32, part

cdef struct Segment:
    # What was read of a packet: by read_flow() ...
    Span packet
    Span flow  # addresses and ports
    uint8_t protocol
    uint8_t ip_size
    # ... and by read_segment()
    uint8_t header_size  # of IP and transport header together
    uint8_t flags  # of TCP; 0 for UDP
    uint32_t payload_size


# False: it is not a whole and plain TCP or UDP packet, and belongs to no flow.
cdef inline bint read_flow(Segment* segment, Span packet) noexcept nogil:
    cdef size_t transport_min
    segment.packet = packet
    if packet.size >= IPV4_SIZE and get8(packet, 0) == 0x45:
        # Whole, and no fragment: of flags and offset only DF may be set.
        if get16(packet, 2) != packet.size or get16(packet, 6) & 0xBFFF:
            return False
        segment.protocol = get8(packet, 9)
        segment.ip_size = IPV4_SIZE
    elif packet.size >= IPV6_SIZE and ip_version(packet) == 6:
        if get16(packet, 4) + IPV6_SIZE != packet.size:
            return False
        segment.protocol = get8(packet, 6)
        segment.ip_size = IPV6_SIZE
    else:
        return False
    if segment.protocol != TCP and segment.protocol != UDP:
        return False
    transport_min = TCP_SIZE if segment.protocol == TCP else UDP_SIZE
    if packet.size < segment.ip_size + transport_min:
        return False
    segment.flow = flow_of(packet, segment.ip_size)
    return True


# Addresses and ports: they stand side by side, 12 bytes in IPv4 and 36 in IPv6.
cdef inline Span flow_of(Span packet, size_t ip_size) noexcept nogil:
    cdef size_t start = 12 if ip_size == IPV4_SIZE else 8
    return part(packet, start, ip_size + 4 - start)


# False: it is not to be merged. Checksums are not looked at. Of a packet that has a flow.
cdef inline bint read_segment(Segment* segment, bint tcp, bint udp) noexcept nogil:
    cdef Span packet = segment.packet
    cdef size_t transport = segment.ip_size
    cdef size_t header = transport
    segment.flags = 0
    if segment.protocol == TCP:
        segment.flags = get8(packet, transport + TCP_FLAGS)
        header += tcp_header_size(packet, transport)
        if not tcp or header < transport + TCP_SIZE or segment.flags & (ACK | SYN | RST | URG) != ACK:
            return False
    else:
        header += UDP_SIZE
        if not udp or get16(packet, transport + UDP_LENGTH) != packet.size - transport:
            return False
        if get16(packet, transport + UDP_CHECKSUM) == 0:
            return False
    if header >= packet.size:
        return False
    segment.header_size = <uint8_t>header
    segment.payload_size = <uint32_t>(packet.size - header)
    return True


# Whether the checksums are right: data that contain their own sum up to 0xffff.
cdef inline bint is_intact(const Segment* segment) noexcept nogil:
    cdef Span packet = segment.packet
    if segment.ip_size == IPV4_SIZE and folded(add_bytes(0, part(packet, 0, IPV4_SIZE))) != 0xFFFF:
        return False
    return folded(transport_sum(packet, segment.protocol, segment.ip_size)) == 0xFFFF


cdef inline bint same_flow(const Segment* a, const Segment* b) noexcept nogil:
    return a.protocol == b.protocol and equal(a.flow, b.flow)


# A number for look-ups, mixed into the upper bits. Anyone can make flows collide.
cdef inline uint32_t flow_hash(const Segment* segment) noexcept nogil:
    cdef uint32_t total = 0
    cdef size_t at
    for at in range(0, segment.flow.size, 4):
        total += get32(segment.flow, at)
    return total * <uint32_t>0x9E3779B1
