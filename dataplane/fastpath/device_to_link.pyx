"""Device to link: what the TUN gives is split, sealed and sent to the peers.

Knows the order of the steps, and what the errors of a TUN mean. Must not know what any step does.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport read

from dataplane.fastpath.aead cimport OVERHEAD, SPARE
from dataplane.fastpath.channel cimport DataChannel, PeerState
from dataplane.fastpath.span cimport Span, part, span_of
from dataplane.fastpath.split cimport begin_split, next_segment

from dataplane.vocabulary import DropReason

cdef enum:
    VIRTIO_HEADER = 10
    LONGEST_FRAME = VIRTIO_HEADER + 65536  # longer than any frame that is whole

cdef int BAD_VIRTIO_HEADER = DropReason.TX_BAD_VIRTIO_HEADER


cdef class DeviceToLink:
    """The other direction. virtio_header: whether frames of the TUN begin with one."""

    def __cinit__(self, DataChannel channel not None, int tun_fd, bint virtio_header):
        self.channel = channel
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
            # All segments have one destination; if it is nobody's, each of them is counted.
            if peer == NULL:
                peer = self.channel.route(packet)
            if peer != NULL:
                size = self.channel.seal_packet(peer, room, now_ns)
                if size > 0:
                    self.sender.trains.add(peer, size)

    def take(self, UdpSockets sockets not None, uint64_t now_ns):
        """For tests: moves a batch of frames; how many came. Raises OSError if the TUN is gone."""
        count = self.move(sockets, now_ns)
        if count < 0:
            raise OSError(-count, "no device")
        return count
