"""Device to link: what the TUN gives is split, sealed and sent to the peers.

Knows the order of the steps, and what the errors of a TUN mean. Must not know what any step does.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport read

from dataplane.fastpath.aead cimport OVERHEAD
from dataplane.fastpath.channel cimport DataChannel, Peer, PeerState
from dataplane.fastpath.span cimport Span, behind, part, put, span_of
from dataplane.fastpath.split cimport begin_split, next_segment
from dataplane.fastpath.tcp_framing cimport packet_room, packet_written
from dataplane.fastpath.tcp_socket cimport TcpSocket, TcpSockets, break_stream, flush, tcp_admits

from dataplane.vocabulary import DropReason

cdef enum:
    VIRTIO_HEADER = 10
    LONGEST_FRAME = VIRTIO_HEADER + 65536  # longer than any frame that is whole

cdef int BAD_VIRTIO_HEADER = DropReason.TX_BAD_VIRTIO_HEADER


cdef class DeviceToLink:
    """The other direction. virtio_header: whether frames of the TUN begin with one; streams: of the peers over TCP."""

    def __cinit__(self, DataChannel channel not None, int tun_fd, bint virtio_header, TcpSockets streams=None):
        self.channel = channel
        self.streams = TcpSockets() if streams is None else streams
        self.sender = UdpSender()
        self.tun_fd = tun_fd
        self.virtio_header = virtio_header
        self.frame = <uint8_t*>calloc(1, LONGEST_FRAME)
        if self.frame == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.frame)

    cdef int move(self, UdpSockets sockets, uint64_t now_ns) noexcept nogil:
        # Packets of a TUN without virtio headers are put behind one that is all zero.
        cdef size_t start = 0 if self.virtio_header else VIRTIO_HEADER
        cdef int count = 0
        cdef int error = 0
        cdef ssize_t size
        while count < FRAMES:
            size = read(self.tun_fd, self.frame + start, LONGEST_FRAME - start)
            if size < 0:
                error = errno
                break
            self._move_frame(span_of(self.frame, start + size), sockets, now_ns)
            count += 1
        self.sender.send(sockets, now_ns)
        return count if error == 0 or error == EAGAIN or error == EINTR else -error

    cdef void _move_frame(self, Span frame, UdpSockets sockets, uint64_t now_ns) noexcept nogil:
        cdef PeerState* peer = NULL
        cdef TcpSocket* tcp = NULL
        cdef Span datagram
        if not begin_split(&self.split, frame):
            self.channel.drop_on_device(BAD_VIRTIO_HEADER)
            return
        while self.split.left > 0:
            if not self.sender.trains.has_room(OVERHEAD + self.split.next_size):
                self.sender.send(sockets, now_ns)
            datagram = part(self.sender.trains.room(), 0, OVERHEAD + self.split.next_size)
            next_segment(&self.split, behind(datagram, OVERHEAD))
            # All segments have one destination; if it is nobody's, each of them is counted.
            if peer == NULL:
                peer = self.channel.route(behind(datagram, OVERHEAD))
                tcp = self._stream_of(peer)
            if tcp != NULL:
                self._move_to_stream(tcp, peer, behind(datagram, OVERHEAD), now_ns)
            elif peer != NULL and self.channel.seal_packet(peer, datagram, now_ns):
                self.sender.trains.add(peer, datagram.size)

    cdef inline TcpSocket* _stream_of(self, PeerState* peer) noexcept nogil:
        return self.streams.find(peer.socket_id) if peer != NULL and peer.remote.size == 0 else NULL

    cdef void _move_to_stream(self, TcpSocket* tcp, PeerState* peer, Span packet, uint64_t now_ns) noexcept nogil:
        # Room before anything else: a packet-id that was spent must be sent, since over TCP they have no gaps.
        cdef Span datagram
        self.streams.touch(tcp)
        if not self._is_admitted(tcp, OVERHEAD + packet.size):
            self.channel.refuse_packet(peer, packet.size)
            return
        datagram = packet_room(&tcp.queue, OVERHEAD + packet.size)
        if datagram.size == 0:
            self.channel.refuse_packet(peer, packet.size)
            return
        put(datagram, OVERHEAD, packet)
        if self.channel.seal_packet(peer, datagram, now_ns):
            packet_written(&tcp.queue, datagram.size)

    cdef bint _is_admitted(self, TcpSocket* tcp, size_t size) noexcept nogil:
        # The queue fills with what one batch brings; that it is full says something only once it was sent.
        if not tcp_admits(tcp, size) and not tcp.is_full:
            flush(tcp)
        return tcp_admits(tcp, size)

    def admits(self, Peer peer not None, size):
        """Whether a packet of `size` bytes, sealed, can be sent to a peer; a socket of datagrams never says no."""
        cdef TcpSocket* tcp = self._stream_of(&peer.state)
        return tcp == NULL or bool(self._is_admitted(tcp, size))

    def send_batch(self, sealed, UdpSockets sockets not None, uint64_t now_ns):
        """Sends packets, (Peer, bytes), that were admitted and sealed one by one."""
        cdef Peer peer
        cdef bytes packet
        cdef TcpSocket* tcp
        cdef Span room
        datagrams = []
        for peer, packet in sealed:
            tcp = self._stream_of(&peer.state)
            if tcp == NULL:
                datagrams.append((peer, packet))
                continue
            self.streams.touch(tcp)
            room = packet_room(&tcp.queue, len(packet))
            if room.size == 0:
                break_stream(tcp)
                continue
            put(room, 0, span_of(<uint8_t*><char*>packet, len(packet)))
            packet_written(&tcp.queue, len(packet))
        self.sender.send_batch(datagrams, sockets, now_ns)

    def take(self, UdpSockets sockets not None, uint64_t now_ns):
        """For tests: moves a batch of frames; how many came. Raises OSError if the TUN is gone."""
        count = self.move(sockets, now_ns)
        if count < 0:
            raise OSError(-count, "no device")
        return count
