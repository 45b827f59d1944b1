"""Link to device: what came on a socket, as datagrams or in a stream, is opened, merged and written to the TUN.

Knows the order of the steps, and who is charged when the TUN takes something not. Must not know what any step does.
"""

from libc.stdint cimport uint8_t, uint64_t
from posix.uio cimport writev

from dataplane.fastpath.channel cimport (
    RECEIVED_PACKET, DataChannel, Peer, PeerState, packets_delivered, packets_dropped,
)
from dataplane.fastpath.control_outlet cimport send_control
from dataplane.fastpath.endpoint cimport pack_endpoint, pack_local
from dataplane.fastpath.merge cimport (
    Frame, clear_frames, finish_frames, frame_at, free_merger, merge, new_merger,
)
from dataplane.fastpath.span cimport Span, behind, get8, part, span_of
from dataplane.fastpath.tcp_framing cimport CUT_BROKEN, CUT_PACKET, Cut, cut_packet
from dataplane.fastpath.tcp_socket cimport TcpReader, TcpSocket, flush_control, hand_over
from dataplane.fastpath.udp_receive cimport RECEIVE_BATCH
from dataplane.fastpath.udp_socket cimport UdpSockets

from dataplane.datachannel import wire
from dataplane.vocabulary import DropReason

cdef int OPCODE_DATA_V2 = wire.OPCODE_DATA_V2
cdef int CONTROL_QUEUE_FULL = DropReason.RX_CONTROL_QUEUE_FULL
cdef int TUN_WRITE_FAILED = DropReason.RX_TUN_WRITE_FAILED


cdef class LinkToDevice:
    """One direction of a packet path, for all its sockets. virtio_header: whether frames of the TUN begin with one;
    merge_tcp, merge_udp: what its offload takes merged.
    """

    def __cinit__(self, DataChannel channel not None, int tun_fd, bint virtio_header, bint merge_tcp, bint merge_udp):
        self.channel = channel
        self.receiver = UdpReceiver()
        self.reader = TcpReader()
        self.stream_end = pack_endpoint(None)
        self.stream_local = pack_local(None)
        self.tun_fd = tun_fd
        self.merger = new_merger(merge_tcp, merge_udp, virtio_header)

    def __dealloc__(self):
        if self.merger != NULL:
            free_merger(self.merger)

    cdef unsigned int move(self, UdpSocket* udp, uint64_t now_ns, bint* is_full) noexcept nogil:
        cdef Datagram datagram
        cdef unsigned int packets = 0
        cdef int count = self.receiver.receive(udp.fd)
        for index in range(count):
            self.receiver.datagram_at(index, &datagram)
            packets += self._move_segments(udp, &datagram, now_ns)
        self._write_frames()
        is_full[0] = count == RECEIVE_BATCH
        return packets

    cdef unsigned int _move_segments(self, UdpSocket* udp, const Datagram* datagram, uint64_t now_ns) noexcept nogil:
        cdef size_t offset = 0
        cdef size_t size
        cdef unsigned int segments = 0
        while segments == 0 or offset < datagram.payload.size:
            size = min(datagram.segment_size, datagram.payload.size - offset)
            self._move_segment(udp, datagram, part(datagram.payload, offset, size), now_ns)
            offset += size
            segments += 1
        return segments

    cdef void _move_segment(
        self, UdpSocket* udp, const Datagram* datagram, Span segment, uint64_t now_ns
    ) noexcept nogil:
        cdef Span packet
        cdef PeerState* peer
        if udp.control_fd >= 0 and segment.size > 0 and get8(segment, 0) >> 3 != OPCODE_DATA_V2:
            if not send_control(udp.control_fd, segment, datagram):
                self.channel.drop_on_device(CONTROL_QUEUE_FULL)
        elif RECEIVED_PACKET == self.channel.receive(
            udp.socket_id, segment, &datagram.source, &datagram.local, now_ns, &packet, &peer
        ):
            self._deliver(peer, packet)

    cdef unsigned int move_stream(self, TcpSocket* tcp, uint64_t now_ns, bint* is_full) noexcept nogil:
        cdef unsigned int packets = 0
        cdef Span stream = self.reader.receive(tcp, is_full)
        cdef size_t at = 0
        cdef Span packet
        cdef Cut cut = cut_packet(stream, &at, &packet)
        while cut == CUT_PACKET:
            packets += 1
            self._move_packet(tcp, packet, now_ns)
            cut = cut_packet(stream, &at, &packet)
        self._write_frames()
        self.reader.keep(tcp, behind(stream, at), cut == CUT_BROKEN)
        flush_control(tcp)
        return packets

    cdef void _move_packet(self, TcpSocket* tcp, Span segment, uint64_t now_ns) noexcept nogil:
        cdef Span packet
        cdef PeerState* peer
        if get8(segment, 0) >> 3 != OPCODE_DATA_V2:
            if not hand_over(tcp, segment):
                self.channel.drop_on_device(CONTROL_QUEUE_FULL)
        elif RECEIVED_PACKET == self.channel.receive(
            tcp.socket_id, segment, &self.stream_end, &self.stream_local, now_ns, &packet, &peer
        ):
            self._deliver(peer, packet)

    def take(self, UdpSockets sockets not None, socket_id, uint64_t now_ns):
        """For tests: moves a batch of a socket; how many OpenVPN packets came, and whether more may be waiting."""
        cdef bint is_full = False
        packets = self.move(sockets.find(socket_id), now_ns, &is_full)
        return packets, bool(is_full)

    def deliver(self, opened):
        """Writes packets that were opened already, a list of (Peer, bytes)."""
        cdef Peer peer
        cdef bytearray copy
        # Merging changes headers, and bytes must not change.
        copies = [(owner, bytearray(packet)) for owner, packet in opened]
        for peer, copy in copies:
            self._deliver(&peer.state, span_of(<uint8_t*><char*>copy, len(copy)))
        self._write_frames()

    cdef inline void _deliver(self, PeerState* peer, Span packet) noexcept nogil:
        if not merge(self.merger, packet, peer):
            self._write_frames()
            merge(self.merger, packet, peer)

    cdef void _write_frames(self) noexcept nogil:
        cdef Frame* frame
        cdef int count = finish_frames(self.merger)
        for index in range(count):
            frame = frame_at(self.merger, index)
            if writev(self.tun_fd, frame.pieces, frame.piece_count) >= 0:
                packets_delivered(<PeerState*>frame.owner, frame.packets, frame.size)
            else:
                packets_dropped(<PeerState*>frame.owner, TUN_WRITE_FAILED, frame.packets)
        clear_frames(self.merger)
