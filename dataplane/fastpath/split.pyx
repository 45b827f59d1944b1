"""A frame of the TUN into the IP packets it stands for, one by one, each straight to where it is wanted.

Knows checksum offload and segmentation (TSO, USO) as the kernel would do them. Must not know descriptors or where the
packets go. A frame comes from this host's kernel, but may have been written into it by anyone (a virtual machine,
AF_PACKET): nothing is trusted, and all sizes are checked before the first packet is written.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from dataplane.fastpath.checksum cimport add_bytes, copy_bytes, pseudo_header
from dataplane.fastpath.headers cimport (
    CWR,
    FIN,
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    IPV4_IDENTIFICATION,
    IPV4_SIZE,
    IPV6_SIZE,
    NEEDS_CSUM,
    PACKET_MAX,
    PSH,
    TCP,
    TCP_FLAGS,
    TCP_SEQUENCE,
    TCP_SIZE,
    UDP,
    UDP_LENGTH,
    UDP_SIZE,
    VirtioHeader,
    checksum_offset,
    ip_version,
    ipv4_header_size,
    set_ip_length,
    tcp_header_size,
    transport_checksum,
)
from dataplane.fastpath.span cimport Span, behind, checked, get8, get16, get32, part, put, put8, put16, put32, span_of

cdef enum:
    UNCUT = 0  # in place of the protocol of a packet that is not to be cut
    PLACE = 2048  # of a packet, in benchmarks


cdef bint begin_split(Split* split, Span frame) noexcept nogil:
    cdef VirtioHeader header
    split.left = 0
    split.next_size = 0
    if not sizeof(VirtioHeader) <= frame.size <= sizeof(VirtioHeader) + PACKET_MAX:
        return False
    memcpy(&header, checked(frame, 0, sizeof(VirtioHeader)), sizeof(VirtioHeader))
    split.packet = behind(frame, sizeof(VirtioHeader))
    if header.gso_type & ~GSO_ECN == GSO_NONE:
        return begin_uncut(split, &header)
    return begin_segments(split, &header)


cdef void next_segment(Split* split, Span room) noexcept nogil:
    cdef Span packet = part(room, 0, split.next_size)
    if split.protocol == UNCUT:
        write_uncut(split, packet)
    else:
        write_segment(split, packet)


cdef inline bint begin_uncut(Split* split, const VirtioHeader* header) noexcept nogil:
    split.partial_checksum = header.flags & NEEDS_CSUM != 0
    if split.partial_checksum:
        split.transport = header.csum_start
        split.checksum_at = split.transport + header.csum_offset
        if split.checksum_at + 2 > split.packet.size:
            return False
    split.protocol = UNCUT
    split.next_size = split.packet.size
    split.left = 1
    return True


cdef inline void write_uncut(Split* split, Span packet) noexcept nogil:
    put(packet, 0, split.packet)
    if split.partial_checksum:
        # The field, which holds the sum of the pseudo header, counts as well.
        put16(packet, split.checksum_at, transport_checksum(add_bytes(0, behind(packet, split.transport))))
    split.left = 0
    split.next_size = 0


cdef bint begin_segments(Split* split, const VirtioHeader* header) noexcept nogil:
    cdef Span packet = split.packet
    split.protocol = protocol_of(packet, header.gso_type & ~GSO_ECN)
    if split.protocol == UNCUT or header.gso_size == 0 or header.csum_offset != checksum_offset(split.protocol):
        return False
    split.transport = header.csum_start
    split.header = header_end(packet, split.protocol, split.transport)
    if split.header == 0:
        return False
    split.checksum_at = split.transport + header.csum_offset
    split.segment_size = header.gso_size
    split.index = 0
    # Without payload, too, there is one packet.
    split.left = max(1, (packet.size - split.header + header.gso_size - 1) // header.gso_size)
    split.next_size = split.header + piece_size(split)
    return True


cdef inline uint8_t protocol_of(Span packet, uint8_t gso_type) noexcept nogil:
    """UNCUT if there is no such kind of frame for this version of IP."""
    cdef uint8_t version = ip_version(packet) if packet.size else 0
    if gso_type == GSO_TCPV4 and version == 4 or gso_type == GSO_TCPV6 and version == 6:
        return TCP
    return UDP if gso_type == GSO_UDP_L4 and (version == 4 or version == 6) else UNCUT


cdef inline size_t header_end(Span packet, uint8_t protocol, size_t transport) noexcept nogil:
    """Where the payload begins; 0 if the headers are not whole, or the transport header does not begin there.

    The packet has a version. In IPv6 there may be extension headers before `transport`.
    """
    cdef size_t smallest = TCP_SIZE if protocol == TCP else UDP_SIZE
    cdef size_t size = smallest
    if ip_version(packet) == 4:
        if ipv4_header_size(packet) < IPV4_SIZE or transport != ipv4_header_size(packet):
            return 0
    elif transport < IPV6_SIZE:
        return 0
    if transport + smallest > packet.size:
        return 0
    if protocol == TCP:
        size = tcp_header_size(packet, transport)
    return transport + size if size >= smallest and transport + size <= packet.size else 0


cdef inline size_t piece_size(const Split* split) noexcept nogil:
    """Payload of the next segment."""
    cdef size_t offset = split.header + <size_t>split.index * split.segment_size
    return min(<size_t>split.segment_size, split.packet.size - offset)


cdef inline void write_segment(Split* split, Span packet) noexcept nogil:
    cdef uint32_t done = split.index * split.segment_size
    cdef bint is_last = split.left == 1
    cdef Span payload = part(split.packet, split.header + done, packet.size - split.header)
    cdef uint64_t total = copy_bytes(0, behind(packet, split.header), payload)
    put(packet, 0, part(split.packet, 0, split.header))
    if ip_version(packet) == 4:
        put16(packet, IPV4_IDENTIFICATION, get16(packet, IPV4_IDENTIFICATION) + split.index)
    set_ip_length(packet, packet.size)
    if split.protocol == UDP:
        put16(packet, split.transport + UDP_LENGTH, packet.size - split.transport)
    else:
        put32(packet, split.transport + TCP_SEQUENCE, get32(packet, split.transport + TCP_SEQUENCE) + done)
        set_flags(packet, split.transport + TCP_FLAGS, is_first=split.index == 0, is_last=is_last)
    put16(packet, split.checksum_at, 0)
    total += pseudo_header(packet, split.protocol, packet.size - split.transport)
    total = add_bytes(total, part(packet, split.transport, split.header - split.transport))
    put16(packet, split.checksum_at, transport_checksum(total))

    split.index += 1
    split.left -= 1
    split.next_size = 0 if is_last else split.header + piece_size(split)


cdef inline void set_flags(Span packet, size_t at, bint is_first, bint is_last) noexcept nogil:
    """CWR is said once, at the start; PSH and FIN stand at the end of what is sent."""
    cdef uint8_t flags = get8(packet, at)
    if not is_first:
        flags &= ~CWR
    if not is_last:
        flags &= ~(FIN | PSH)
    put8(packet, at, flags)


def split(bytes frame not None):
    """For tests: the packets of a frame, in order; None if it is malformed."""
    cdef Split state
    cdef bytearray room
    if not begin_split(&state, span_of(<uint8_t*><char*>frame, len(frame))):
        return None
    packets = []
    while state.left:
        room = bytearray(state.next_size)
        next_segment(&state, span_of(<uint8_t*><char*>room, len(room)))
        packets.append(bytes(room))
    return packets


def split_into(bytes frame not None, bytearray room not None):
    """For benchmarks: splits a frame into places of PLACE bytes in `room`; how many packets there were.

    Raises ValueError if the frame is malformed or a packet does not fit.
    """
    cdef Split state
    cdef Span places = span_of(<uint8_t*><char*>room, len(room))
    if not begin_split(&state, span_of(<uint8_t*><char*>frame, len(frame))):
        raise ValueError("malformed frame")
    packets = 0
    while state.left:
        if state.next_size > PLACE or places.size < PLACE:
            raise ValueError("no room for a packet")
        next_segment(&state, places)
        places = behind(places, PLACE)
        packets += 1
    return packets
