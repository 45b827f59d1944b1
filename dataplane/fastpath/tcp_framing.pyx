"""OpenVPN packets in a stream of bytes: each stands behind its length (2 bytes, big endian).

Knows how a frame looks and which may follow which. Must not know sockets, nor what a packet means. Same results as
dataplane/transport/tcp_framing.py. A packet is cut where it stands, and a data packet is written where it waits.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset
from posix.uio cimport iovec

from dataplane.fastpath.byte_queue cimport append, empty, grew, room_for, took, waiting
from dataplane.fastpath.span cimport Span, behind, get16, part, put, put16, span_of

from dataplane.transport import tcp_framing

cdef size_t PACKET_MIN = tcp_framing.PACKET_MIN
cdef size_t PACKET_MAX = tcp_framing.PACKET_MAX
cdef size_t QUEUE_BYTES = tcp_framing.QUEUE_BYTES
assert PREFIX_SIZE == tcp_framing.PREFIX_SIZE


cdef Cut cut_packet(Span stream, size_t* at, Span* packet) noexcept nogil:
    cdef Span rest = behind(stream, at[0])
    cdef size_t size
    if rest.size < PREFIX_SIZE:
        return CUT_NOTHING
    size = get16(rest, 0)
    if size < PACKET_MIN or size > PACKET_MAX:
        return CUT_BROKEN
    if rest.size < PREFIX_SIZE + size:
        return CUT_NOTHING
    packet[0] = part(rest, PREFIX_SIZE, size)
    at[0] += PREFIX_SIZE + size
    return CUT_PACKET


cdef bint queue_admits(const FrameQueue* queue, size_t size) noexcept nogil:
    return whole_data(queue) + size <= QUEUE_BYTES


cdef size_t whole_data(const FrameQueue* queue) noexcept nogil:
    # What is left of a frame that the stream has begun to take waits no more.
    return waiting(&queue.data).size - queue.begun


cdef Span packet_room(FrameQueue* queue, size_t size) noexcept nogil:
    # All at once: a queue that is used at all is soon used to the full.
    cdef Span room = room_for(&queue.data, PREFIX_SIZE + size, 2 * (QUEUE_BYTES + PREFIX_SIZE + PACKET_MAX))
    return behind(room, PREFIX_SIZE) if room.size > 0 else room


cdef void packet_written(FrameQueue* queue, size_t size) noexcept nogil:
    put16(room_for(&queue.data, PREFIX_SIZE + size, 0), 0, <unsigned short>size)
    grew(&queue.data, PREFIX_SIZE + size)


cdef bint add_control(FrameQueue* queue, Span frame, bint in_order) noexcept nogil:
    if not in_order and queue.in_order == 0:
        return append(&queue.control, frame)
    if not append(&queue.data, frame):
        return False
    queue.in_order = whole_data(queue)
    return True


cdef bint has_control(const FrameQueue* queue) noexcept nogil:
    return waiting(&queue.control).size > 0 or queue.in_order > 0


cdef bint is_empty(const FrameQueue* queue) noexcept nogil:
    return waiting(&queue.data).size == 0 and waiting(&queue.control).size == 0


cdef int queue_pieces(const FrameQueue* queue, iovec* pieces) noexcept nogil:
    cdef Span data = waiting(&queue.data)
    cdef int count = 0
    count += put_piece(&pieces[count], part(data, 0, queue.begun))
    count += put_piece(&pieces[count], waiting(&queue.control))
    count += put_piece(&pieces[count], behind(data, queue.begun))
    return count


cdef int put_piece(iovec* piece, Span bytes_of_it) noexcept nogil:
    piece[0] = iovec(bytes_of_it.at, bytes_of_it.size)
    return bytes_of_it.size > 0


cdef void queue_took(FrameQueue* queue, size_t count) noexcept nogil:
    cdef size_t taken = min(count, queue.begun)
    cdef size_t control = min(count - taken, waiting(&queue.control).size)
    cdef size_t frames = 0
    cdef Span data
    took(&queue.data, taken)
    queue.begun -= taken
    took(&queue.control, control)
    count -= taken + control
    if count == 0:
        return
    data = waiting(&queue.data)
    while frames < count:
        frames += PREFIX_SIZE + get16(data, frames)
    queue.begun = frames - count
    queue.in_order -= min(queue.in_order, frames)
    took(&queue.data, count)


cdef void empty_queue(FrameQueue* queue) noexcept nogil:
    empty(&queue.data)
    empty(&queue.control)
    queue.begun = queue.in_order = 0


# For tests.

def packets_in(bytes stream not None):
    """The packets at the start of a stream, how many bytes they are, and whether what follows is broken."""
    cdef size_t at = 0
    cdef Span packet
    cdef Cut cut
    packets = []
    while True:
        cut = cut_packet(span_of(<uint8_t*><char*>stream, len(stream)), &at, &packet)
        if cut != CUT_PACKET:
            return packets, at, cut == CUT_BROKEN
        packets.append((<char*>packet.at)[:packet.size])


cdef class Queue:
    """A FrameQueue."""

    cdef FrameQueue queue

    def __cinit__(self):
        memset(&self.queue, 0, sizeof(FrameQueue))

    def __dealloc__(self):
        empty_queue(&self.queue)

    def admits(self, size_t size):
        """See queue_admits()."""
        return bool(queue_admits(&self.queue, size))

    def add_data(self, bytes packet not None):
        """Adds a data packet."""
        put(packet_room(&self.queue, len(packet)), 0, span_of(<uint8_t*><char*>packet, len(packet)))
        packet_written(&self.queue, len(packet))

    def add_control(self, bytes packet not None, *, bint in_order=False):
        """Adds a packet of the control channel."""
        frame = tcp_framing.frame_of(packet)
        add_control(&self.queue, span_of(<uint8_t*><char*>frame, len(frame)), in_order)

    def pieces(self):
        """What the stream is to take next."""
        cdef iovec pieces[QUEUE_PIECES]
        count = queue_pieces(&self.queue, pieces)
        return [(<char*>pieces[index].iov_base)[:pieces[index].iov_len] for index in range(count)]

    def took(self, size_t count):
        """See queue_took()."""
        queue_took(&self.queue, count)

    def capacity(self):
        """Bytes of memory that it has."""
        return self.queue.data.capacity + self.queue.control.capacity

    @property
    def is_empty(self):
        """Whether the stream has taken all."""
        return bool(is_empty(&self.queue))
