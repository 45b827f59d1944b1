"""Device to link over TCP: packets are sealed in the queues of their streams, which are written when a batch ends.

Knows the order of the steps. Must not know the TUN, nor how a queue is written. There is room before anything else: a
packet-id that was spent must be sent, since over TCP they have no gaps.
"""

from dataplane.fastpath.aead cimport OVERHEAD, SPARE
from dataplane.fastpath.span cimport put
from dataplane.fastpath.tcp_framing cimport packet_room, packet_written
from dataplane.fastpath.tcp_socket cimport break_stream, flush, tcp_admits


cdef class TcpSender:
    """Sends for all streams of a packet path."""

    def __cinit__(self, DataChannel channel not None, TcpSockets streams not None):
        self.channel = channel
        self.streams = streams

    cdef TcpSocket* stream_of(self, PeerState* peer) noexcept nogil:
        return self.streams.find(peer.socket_id) if peer.remote.size == 0 else NULL

    cdef bint is_admitted(self, TcpSocket* tcp, size_t size) noexcept nogil:
        # The queue fills with what one batch brings; that it is full says something only once it was sent.
        if not tcp_admits(tcp, size) and not tcp.is_full:
            flush(tcp)
        return tcp_admits(tcp, size)

    cdef void send_packet(self, TcpSocket* tcp, PeerState* peer, Span packet, uint64_t now_ns) noexcept nogil:
        cdef Span room
        cdef size_t size
        self.streams.touch(tcp)
        if not self.is_admitted(tcp, OVERHEAD + packet.size):
            self.channel.refuse_packet(peer, packet.size)
            return
        room = packet_room(&tcp.queue, OVERHEAD + packet.size + SPARE)
        if room.size == 0:
            self.channel.refuse_packet(peer, packet.size)
            return
        put(room, OVERHEAD, packet)
        size = self.channel.seal_packet(peer, room, now_ns)
        if size > 0:
            packet_written(&tcp.queue, size)

    cdef void send_sealed(self, TcpSocket* tcp, Span datagram) noexcept nogil:
        cdef Span room
        self.streams.touch(tcp)
        room = packet_room(&tcp.queue, datagram.size)
        if room.size == 0:
            break_stream(tcp)
            return
        put(room, 0, datagram)
        packet_written(&tcp.queue, datagram.size)
