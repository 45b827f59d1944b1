# Datagrams on their way out, gathered into trains: what one call can send to one peer.

cimport cython
from libc.stdint cimport uint8_t
from posix.uio cimport iovec

from dataplane.fastpath.channel cimport PeerState
from dataplane.fastpath.span cimport Span

cdef enum:
    TRAINS = 64
    TRAIN_DATAGRAMS = 64  # older kernels take no more as one

cdef struct Train:
    PeerState* peer
    size_t segment_size  # of every datagram but the last, which may be shorter
    size_t size
    uint8_t tos  # of all datagrams
    unsigned int count
    iovec datagrams[TRAIN_DATAGRAMS]
    # The same bytes in as few pieces as can be: what the kernel is given, since it looks at each piece.
    unsigned int piece_count
    iovec pieces[TRAIN_DATAGRAMS]


@cython.final
cdef class Trains:
    cdef uint8_t* buffer
    cdef size_t used
    cdef int count
    cdef Train trains[TRAINS]
    # Whether a datagram of this size can be added, whoever it is for. There is always room in an empty one.
    cdef bint has_room(self, size_t size) noexcept nogil
    # Where the next datagram is to be written.
    cdef Span room(self) noexcept nogil
    # Adds the datagram that stands at the start of room(), which moves on. tos: 0 leaves it to the socket.
    cdef void add(self, PeerState* peer, size_t size, uint8_t tos=*) noexcept nogil
    cdef void clear(self) noexcept nogil
    # private
    cdef Train* _open_train(self, PeerState* peer, size_t size, uint8_t tos) noexcept nogil
