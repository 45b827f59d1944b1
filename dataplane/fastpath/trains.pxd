# Datagrams on their way out, gathered into trains: what one call can send to one peer.

from libc.stdint cimport uint8_t
from posix.uio cimport iovec

from dataplane.fastpath.channel cimport PeerState
from dataplane.fastpath.span cimport Span

cdef enum:
    TRAINS = 64
    TRAIN_DATAGRAMS = 64  # more are not sent as one before Linux 6.9

cdef struct Train:
    PeerState* peer
    size_t segment_size  # of every datagram but the last, which may be shorter
    size_t size
    unsigned int count
    iovec datagrams[TRAIN_DATAGRAMS]

cdef class Trains:
    cdef uint8_t* buffer
    cdef size_t used
    cdef int count
    cdef Train trains[TRAINS]
    # Whether a datagram of this size can be added, whoever it is for. An empty Trains takes every size up to 66,000.
    cdef bint has_room(self, size_t size) noexcept nogil
    # Where the next datagram is to be written.
    cdef Span room(self) noexcept nogil
    # Adds the datagram that stands at the start of room(), which moves on.
    cdef void add(self, PeerState* peer, size_t size) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef Train* _open_train(self, PeerState* peer, size_t size) noexcept nogil
