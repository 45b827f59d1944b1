# What splitting and merging read and set in virtio, IP, TCP and UDP headers; twin of dataplane/tun/{headers,virtio}.py.
#
# Knows where the fields stand (<linux/virtio_net.h>, RFC 791, 8200, 9293, 768). Must not know when to set them.

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from dataplane.fastpath.checksum cimport add_bytes, folded, pseudo_header
from dataplane.fastpath.span cimport Span, behind, get8, part, put16

cdef struct VirtioHeader:
    # struct virtio_net_hdr, in the machine's byte order. hdr_len is a hint that nobody may trust.
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset

cdef enum:
    NEEDS_CSUM = 1  # flag: the checksum field holds the sum of the pseudo header only

    GSO_NONE = 0
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5
    GSO_ECN = 0x80  # beside the kind: the first of the TCP segments has CWR set

    PACKET_MAX = 65535

    TCP = 6
    UDP = 17
    IPV4_SIZE = 20  # without options
    IPV6_SIZE = 40
    TCP_SIZE = 20  # without options
    UDP_SIZE = 8

    # where a field stands
    IPV4_TOTAL_LENGTH = 2
    IPV4_IDENTIFICATION = 4
    IPV4_CHECKSUM = 10
    IPV6_PAYLOAD_LENGTH = 4
    TCP_SEQUENCE = 4
    TCP_DATA_OFFSET = 12
    TCP_FLAGS = 13
    TCP_CHECKSUM = 16
    UDP_LENGTH = 4
    UDP_CHECKSUM = 6

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    CWR = 0x80


# The version of an IP packet that is not empty.
cdef inline uint8_t ip_version(Span packet) noexcept nogil:
    return get8(packet, 0) >> 4


# Size of the IPv4 header of a packet that is not empty, as the header says it: 0..60.
cdef inline size_t ipv4_header_size(Span packet) noexcept nogil:
    return (get8(packet, 0) & 0xF) * 4


# Size of the TCP header at `transport`, as the header says it: 0..60. The fixed part must be there.
cdef inline size_t tcp_header_size(Span packet, size_t transport) noexcept nogil:
    return (get8(packet, transport + TCP_DATA_OFFSET) >> 4) * 4


# Where the transport header of this protocol has its checksum.
cdef inline uint16_t checksum_offset(uint8_t protocol) noexcept nogil:
    return TCP_CHECKSUM if protocol == TCP else UDP_CHECKSUM


# Writes the size of a packet (at most PACKET_MAX) into its IP header; for IPv4 its checksum, too.
cdef inline void set_ip_length(Span packet, size_t size) noexcept nogil:
    if ip_version(packet) == 4:
        put16(packet, IPV4_TOTAL_LENGTH, <uint16_t>size)
        put16(packet, IPV4_CHECKSUM, 0)
        put16(packet, IPV4_CHECKSUM, ~folded(add_bytes(0, part(packet, 0, ipv4_header_size(packet)))))
    else:
        put16(packet, IPV6_PAYLOAD_LENGTH, <uint16_t>(size - IPV6_SIZE))


# Sum of the pseudo header, the transport header at `transport`, and all behind it.
cdef inline uint64_t transport_sum(Span packet, uint8_t protocol, size_t transport) noexcept nogil:
    cdef Span data = behind(packet, transport)
    return add_bytes(pseudo_header(packet, protocol, data.size), data)


# The checksum as TCP and UDP store it: never 0, which in UDP means "none"; 0xffff is the same number.
cdef inline uint16_t transport_checksum(uint64_t total) noexcept nogil:
    cdef uint16_t value = ~folded(total)
    return value if value else 0xFFFF
