"""Device to link: what the TUN gives is split, sealed and sent to the peers.

Knows the order of the steps, and what the errors of a TUN mean. Must not know what any step does.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport read

from dataplane.fastpath.aead cimport OVERHEAD, SPARE
from dataplane.fastpath.channel cimport DataChannel, Peer, PeerState
from dataplane.fastpath.copies cimport Copies
from dataplane.fastpath.ip_header cimport dscp_of
from dataplane.fastpath.span cimport Span, part, span_of
from dataplane.fastpath.split cimport begin_split, next_segment
from dataplane.fastpath.tcp_send cimport TcpSender
from dataplane.fastpath.tcp_socket cimport TcpSocket, TcpSockets
from dataplane.fastpath.udp_socket cimport copies_dscp

from dataplane.vocabulary import DropReason

cdef enum:
    VIRTIO_HEADER = 10
    LONGEST_FRAME = VIRTIO_HEADER + 65536  # longer than any frame that is whole

cdef int BAD_VIRTIO_HEADER = DropReason.TX_BAD_VIRTIO_HEADER


cdef class DeviceToLink:
    """The other direction. virtio_header: whether frames of the TUN begin with one; streams: of the peers over TCP."""

    def __cinit__(self, DataChannel channel not None, int tun_fd, bint virtio_header, TcpSockets streams=None):
        self.channel = channel
        self.streams = TcpSender(channel, TcpSockets() if streams is None else streams)
        self.sender = UdpSender()
        self.copies = Copies(channel, self.sender, self.streams)
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
        cdef uint8_t tos = 0
        cdef Span room
        cdef Span packet
        cdef size_t size
        if not begin_split(&self.split, frame):
            self.channel.drop_on_device(BAD_VIRTIO_HEADER)
            return
        while self.split.left > 0:
            size = OVERHEAD + self.split.next_size + SPARE
            if not self.sender.trains.has_room(size):
                self.sender.send(sockets, now_ns)
            room = part(self.sender.trains.room(), 0, size)
            packet = part(room, OVERHEAD, self.split.next_size)
            next_segment(&self.split, packet)
            # All segments have one destination, and one TOS; if it is nobody's, each of them is counted.
            if peer == NULL:
                peer = self.channel.route(packet)
                if peer != NULL and peer != self.copies.everyone:
                    tcp = self.streams.stream_of(peer)
                    if copies_dscp(sockets, peer.socket_id):
                        tos = dscp_of(packet)
            if peer == NULL:
                continue
            if peer == self.copies.everyone:
                self.copies.add_from_room(peer, packet, sockets, now_ns)
            elif tcp != NULL:
                self.streams.send_packet(tcp, peer, packet, now_ns)
            else:
                size = self.channel.seal_packet(peer, room, now_ns)
                if size > 0:
                    self.sender.trains.add(peer, size, tos)

    def admits(self, Peer peer not None, size):
        """Whether a packet of `size` bytes, sealed, can be sent to a peer; a socket of datagrams never says no."""
        cdef TcpSocket* tcp = self.streams.stream_of(&peer.state)
        return tcp == NULL or bool(self.streams.is_admitted(tcp, size))

    def send_batch(self, sealed, UdpSockets sockets not None, uint64_t now_ns):
        """Sends packets, (Peer, bytes), that were admitted and sealed one by one."""
        cdef Peer peer
        cdef bytes packet
        cdef TcpSocket* tcp
        datagrams = []
        for peer, packet in sealed:
            tcp = self.streams.stream_of(&peer.state)
            if tcp == NULL:
                datagrams.append((peer, packet))
            else:
                self.streams.send_sealed(tcp, span_of(<uint8_t*><char*>packet, len(packet)))
        self.sender.send_batch(datagrams, sockets, now_ns)

    def take(self, UdpSockets sockets not None, uint64_t now_ns):
        """For tests: moves a batch of frames; how many came. Raises OSError if the TUN is gone."""
        count = self.move(sockets, now_ns)
        if count < 0:
            raise OSError(-count, "no device")
        return count
