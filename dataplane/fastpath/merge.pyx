"""IP packets into frames for the TUN: in-order segments of a TCP or UDP flow become one super-packet, uncopied.

Knows what the kernel may be given as one packet without a peer being able to tell. Must not know descriptors, peers or
where packets come from. Packets are hostile: whoever holds a key may send anything, so all that is read of a packet is
checked against its size first, and what cannot be merged passes as it came.

A packet is looked at in three steps: its flow (read_flow), whether its headers allow merging (read_segment), whether it
goes on where a run of its flow ended (can_join). Checksums are summed last (is_intact), when two packets would be
merged: a lone packet is not summed. The first packet of a run therefore stands unproven until a second one comes.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from posix.uio cimport iovec

from dataplane.fastpath.checksum cimport folded, pseudo_header
from dataplane.fastpath.headers cimport (
    CWR,
    FIN,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    IPV4_IDENTIFICATION,
    IPV4_SIZE,
    NEEDS_CSUM,
    PACKET_MAX,
    PSH,
    TCP,
    TCP_FLAGS,
    TCP_SEQUENCE,
    UDP,
    UDP_LENGTH,
    VirtioHeader,
    checksum_offset,
    set_ip_length,
)
from dataplane.fastpath.segment cimport Segment, flow_hash, is_intact, read_flow, read_segment, same_flow
from dataplane.fastpath.span cimport Span, behind, equal, get8, get16, get32, part, put8, put16, span_of

cdef enum:
    RUN_PACKETS = 64  # more segments in a frame some kernels refuse for UDP
    OPEN_RUNS = 64
    BUCKET_BITS = 7
    BUCKETS = 1 << BUCKET_BITS
    NONE = 0xFFFF  # in place of an index


cdef struct Packet:
    Span bytes
    uint16_t next  # packet of the same run


cdef struct Run:
    # The packets of a frame: any single one, or segments that follow each other.
    Frame frame
    VirtioHeader header
    uint16_t first_packet
    uint16_t last_packet
    # The rest is there if the first packet is a segment.
    Segment first
    bint is_proven  # the first segment is intact
    uint32_t merged_size
    uint32_t next_sequence
    uint16_t next_identification
    uint8_t last_flags
    uint16_t below  # the next open run in the same bucket


cdef struct Merger:
    bint tcp
    bint udp
    bint virtio_header
    int packet_count
    int run_count
    int open_count
    # Open runs by flow: indexes into `runs`, chained by `below`. Flows that are made to collide cost OPEN_RUNS
    # comparisons a packet at most.
    uint16_t buckets[BUCKETS]
    Packet packets[MERGE_PACKETS]
    Run runs[MERGE_PACKETS]
    iovec pieces[2 * MERGE_PACKETS]


cdef Merger* new_merger(bint tcp, bint udp, bint virtio_header) except NULL:
    cdef Merger* merger = <Merger*>malloc(sizeof(Merger))
    if merger == NULL:
        raise MemoryError
    merger.tcp = tcp and virtio_header
    merger.udp = udp and virtio_header
    merger.virtio_header = virtio_header
    close_all(merger)
    clear_frames(merger)
    return merger


cdef void free_merger(Merger* merger) noexcept nogil:
    free(merger)


cdef void clear_frames(Merger* merger) noexcept nogil:
    if merger.open_count:
        close_all(merger)
    merger.packet_count = 0
    merger.run_count = 0


cdef Frame* frame_at(Merger* merger, int index) noexcept nogil:
    return &merger.runs[index].frame


cdef bint merge(Merger* merger, Span packet, void* owner) noexcept nogil:
    cdef Segment segment
    cdef uint16_t* link
    if merger.packet_count == MERGE_PACKETS:
        return False
    if not (merger.tcp or merger.udp) or not read_flow(&segment, packet):
        add_run(merger, packet, owner)
        return True
    link = find_run(merger, &segment)
    if not read_segment(&segment, merger.tcp, merger.udp):
        close_run(merger, link)
        add_run(merger, packet, owner)
    elif link[0] == NONE or not can_join(&merger.runs[link[0]], &segment) or not prove(&merger.runs[link[0]]):
        close_run(merger, link)
        begin_run(merger, &segment, owner)
    elif is_intact(&segment):
        join_run(merger, link, &segment)
    else:
        close_run(merger, link)
        add_run(merger, packet, owner)
    return True


cdef inline Run* add_run(Merger* merger, Span packet, void* owner) noexcept nogil:
    """A run of this packet alone, not open."""
    cdef Run* run = &merger.runs[merger.run_count]
    merger.run_count += 1
    memset(&run.header, 0, sizeof(VirtioHeader))
    run.frame.owner = owner
    run.frame.packets = 1
    run.frame.size = packet.size
    run.first_packet = add_packet(merger, packet)
    run.last_packet = run.first_packet
    return run


cdef inline uint16_t add_packet(Merger* merger, Span packet) noexcept nogil:
    cdef uint16_t index = <uint16_t>merger.packet_count
    merger.packet_count += 1
    merger.packets[index].bytes = packet
    merger.packets[index].next = NONE
    return index


cdef inline uint16_t* find_run(Merger* merger, const Segment* segment) noexcept nogil:
    """The link to the open run of this flow; it holds NONE if there is no such run."""
    cdef uint16_t* link = bucket_of(merger, segment)
    while link[0] != NONE and not same_flow(&merger.runs[link[0]].first, segment):
        link = &merger.runs[link[0]].below
    return link


cdef inline uint16_t* bucket_of(Merger* merger, const Segment* segment) noexcept nogil:
    return &merger.buckets[flow_hash(segment) >> (32 - BUCKET_BITS)]


cdef inline void close_run(Merger* merger, uint16_t* link) noexcept nogil:
    """Closes the open run that the link leads to, if any."""
    if link[0] != NONE:
        link[0] = merger.runs[link[0]].below
        merger.open_count -= 1


cdef inline void close_all(Merger* merger) noexcept nogil:
    memset(merger.buckets, 0xFF, sizeof(merger.buckets))  # NONE in each
    merger.open_count = 0


cdef void close_disproved(Merger* merger) noexcept nogil:
    """Closes the open runs whose first packet is not intact: they should not have begun."""
    cdef uint16_t* link
    cdef int bucket
    for bucket in range(BUCKETS):
        link = &merger.buckets[bucket]
        while link[0] != NONE:
            if prove(&merger.runs[link[0]]):
                link = &merger.runs[link[0]].below
            else:
                close_run(merger, link)


cdef inline bint prove(Run* run) noexcept nogil:
    run.is_proven = run.is_proven or is_intact(&run.first)
    return run.is_proven


cdef inline void begin_run(Merger* merger, const Segment* segment, void* owner) noexcept nogil:
    """A run of this segment, open if others may follow. No run of its flow is open."""
    cdef Run* run = add_run(merger, segment.packet, owner)
    cdef uint16_t* bucket
    run.is_proven = False
    if merger.open_count == OPEN_RUNS:
        # All others are closed, but only if there are really so many.
        if not is_intact(segment):
            return
        run.is_proven = True
        close_disproved(merger)
        if merger.open_count == OPEN_RUNS:
            close_all(merger)
    if segment.flags & (PSH | FIN):
        return
    run.first = segment[0]
    run.merged_size = segment.packet.size
    if segment.protocol == TCP:
        run.next_sequence = get32(segment.packet, segment.ip_size + TCP_SEQUENCE) + segment.payload_size
    if segment.ip_size == IPV4_SIZE:
        run.next_identification = get16(segment.packet, IPV4_IDENTIFICATION) + 1
    bucket = bucket_of(merger, segment)
    run.below = bucket[0]
    bucket[0] = <uint16_t>(merger.run_count - 1)
    merger.open_count += 1


cdef inline bint can_join(const Run* run, const Segment* segment) noexcept nogil:
    """Whether the segment goes on where the run of its flow ended, and has the same headers elsewhere."""
    cdef const Segment* first = &run.first
    cdef Span packet = segment.packet
    cdef Span head = first.packet
    if run.frame.packets == RUN_PACKETS or segment.payload_size > first.payload_size:
        return False
    if run.merged_size + segment.payload_size > PACKET_MAX:
        return False
    if segment.ip_size == IPV4_SIZE:
        # Type of service, DF, time to live.
        if get8(packet, 1) != get8(head, 1) or get16(packet, 6) != get16(head, 6) or get8(packet, 8) != get8(head, 8):
            return False
        if get16(packet, 6) == 0 and get16(packet, IPV4_IDENTIFICATION) != run.next_identification:
            return False
    elif get32(packet, 0) != get32(head, 0) or get8(packet, 7) != get8(head, 7):
        # Traffic class, flow label; hop limit.
        return False
    return segment.protocol == UDP or can_join_tcp(run, segment)


cdef inline bint can_join_tcp(const Run* run, const Segment* segment) noexcept nogil:
    cdef const Segment* first = &run.first
    cdef Span tcp = part(segment.packet, segment.ip_size, segment.header_size - segment.ip_size)
    cdef Span head = part(first.packet, first.ip_size, first.header_size - first.ip_size)
    return (
        get32(tcp, TCP_SEQUENCE) == run.next_sequence
        and not segment.flags & CWR
        and (segment.flags ^ first.flags) & ~(PSH | FIN | CWR) == 0
        and get32(tcp, 8) == get32(head, 8)  # acknowledgement
        and get8(tcp, 12) == get8(head, 12)  # header size, reserved bits
        and get16(tcp, 14) == get16(head, 14)  # window
        and equal(behind(tcp, 18), behind(head, 18))  # urgent pointer, options
    )


cdef inline void join_run(Merger* merger, uint16_t* link, const Segment* segment) noexcept nogil:
    cdef Run* run = &merger.runs[link[0]]
    cdef uint16_t index = add_packet(merger, segment.packet)
    merger.packets[run.last_packet].next = index
    run.last_packet = index
    run.last_flags = segment.flags
    run.frame.packets += 1
    run.frame.size += segment.packet.size
    run.merged_size += segment.payload_size
    run.next_sequence += segment.payload_size
    run.next_identification += 1
    if segment.payload_size < run.first.payload_size or segment.flags & (PSH | FIN):
        close_run(merger, link)


cdef int finish_frames(Merger* merger) noexcept nogil:
    cdef iovec* pieces = merger.pieces
    cdef Run* run
    cdef int index
    for index in range(merger.run_count):
        run = &merger.runs[index]
        if run.frame.packets > 1:
            complete_headers(run)
        run.frame.pieces = pieces
        run.frame.piece_count = 0
        add_pieces(merger, run)
        pieces += run.frame.piece_count
    return merger.run_count


cdef inline void add_pieces(Merger* merger, Run* run) noexcept nogil:
    cdef Packet* packet = &merger.packets[run.first_packet]
    if merger.virtio_header:
        add_piece(&run.frame, span_of(<uint8_t*>&run.header, sizeof(VirtioHeader)))
    add_piece(&run.frame, packet.bytes)
    while packet.next != NONE:
        packet = &merger.packets[packet.next]
        add_piece(&run.frame, behind(packet.bytes, run.first.header_size))


cdef inline void add_piece(Frame* frame, Span piece) noexcept nogil:
    frame.pieces[frame.piece_count].iov_base = piece.at
    frame.pieces[frame.piece_count].iov_len = piece.size
    frame.piece_count += 1


cdef inline void complete_headers(Run* run) noexcept nogil:
    """Makes the first packet's headers those of the whole, and the virtio header one that has the kernel cut it."""
    cdef Span packet = run.first.packet
    cdef uint8_t protocol = run.first.protocol
    cdef size_t transport = run.first.ip_size
    cdef uint16_t field = checksum_offset(protocol)
    cdef uint8_t flags = run.first.flags
    set_ip_length(packet, run.merged_size)
    if protocol == TCP:
        put8(packet, transport + TCP_FLAGS, flags | (run.last_flags & (PSH | FIN)))
        run.header.gso_type = GSO_TCPV4 if transport == IPV4_SIZE else GSO_TCPV6
        if flags & CWR:
            run.header.gso_type |= GSO_ECN
    else:
        put16(packet, transport + UDP_LENGTH, run.merged_size - transport)
        run.header.gso_type = GSO_UDP_L4
    put16(packet, transport + field, folded(pseudo_header(packet, protocol, run.merged_size - transport)))
    run.header.flags = NEEDS_CSUM
    run.header.hdr_len = run.first.header_size
    run.header.gso_size = <uint16_t>run.first.payload_size
    run.header.csum_start = <uint16_t>transport
    run.header.csum_offset = field


cdef class PacketMerger:
    """For tests and benchmarks: a Merger, used for one batch after the other."""

    cdef Merger* merger
    cdef list packets

    def __cinit__(self, *, tcp, udp, virtio_header=True):
        self.merger = new_merger(tcp, udp, virtio_header)

    def __dealloc__(self):
        free_merger(self.merger)

    def merge(self, list packets not None):
        """Merges packets (bytearrays, which are changed, and must keep their size); the number of frames.

        Raises ValueError if they are more than MERGE_PACKETS.
        """
        cdef bytearray packet
        cdef size_t index
        self.packets = packets
        clear_frames(self.merger)
        for index in range(len(packets)):
            packet = packets[index]
            if not merge(self.merger, span_of(<uint8_t*><char*>packet, len(packet)), <void*>index):
                raise ValueError("the Merger is full")
        return finish_frames(self.merger)

    def frames(self):
        """What the last merge() made: of each frame the bytes, its first packet, how many and their size in all."""
        return [self.frame(index) for index in range(self.merger.run_count)]

    cdef tuple frame(self, int index):
        cdef Frame* frame = frame_at(self.merger, index)
        cdef iovec* piece
        cdef int at
        pieces = []
        for at in range(frame.piece_count):
            piece = &frame.pieces[at]
            pieces.append((<char*>piece.iov_base)[: piece.iov_len])
        return b"".join(pieces), <size_t>frame.owner, frame.packets, frame.size
