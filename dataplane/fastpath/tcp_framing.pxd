# OpenVPN packets in a stream of bytes; twin of dataplane/transport/tcp_framing.py.

from posix.uio cimport iovec

from dataplane.fastpath.byte_queue cimport ByteQueue
from dataplane.fastpath.span cimport Span

cdef enum Cut:
    CUT_PACKET
    CUT_NOTHING  # the rest is no whole frame
    CUT_BROKEN   # nobody knows where the next frame begins

cdef enum:
    PREFIX_SIZE = 2
    QUEUE_PIECES = 3

cdef struct FrameQueue:
    ByteQueue data
    ByteQueue control
    size_t begun     # bytes of the first frame in `data` of which the stream has a part
    size_t in_order  # bytes of the frames behind that, up to the last one of the control channel

# Cuts the next packet off `stream`, from `at` on, which moves behind it.
cdef Cut cut_packet(Span stream, size_t* at, Span* packet) noexcept nogil
# Whether data packets of `size` bytes together, with their prefixes, may be added.
cdef bint queue_admits(const FrameQueue* queue, size_t size) noexcept nogil
# Where a data packet of up to `size` bytes, that was admitted, is to be written; packet_written() adds it with the size
# that it has become. size 0: no memory.
cdef Span packet_room(FrameQueue* queue, size_t size) noexcept nogil
cdef void packet_written(FrameQueue* queue, size_t size) noexcept nogil
# Adds a frame of the control channel. in_order: it overtakes no data. False: no memory, and nothing was added.
cdef bint add_control(FrameQueue* queue, Span frame, bint in_order) noexcept nogil
cdef bint has_control(const FrameQueue* queue) noexcept nogil
cdef bint is_empty(const FrameQueue* queue) noexcept nogil
# What the stream is to take next, in QUEUE_PIECES pieces or less: how many.
cdef int queue_pieces(const FrameQueue* queue, iovec* pieces) noexcept nogil
# The stream took so many bytes of them.
cdef void queue_took(FrameQueue* queue, size_t count) noexcept nogil
cdef void empty_queue(FrameQueue* queue) noexcept nogil
