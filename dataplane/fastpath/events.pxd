# What happens to peers on the packet path, until Python asks for it.

cimport cython
from libc.stdint cimport uint8_t

from dataplane.fastpath.peer cimport PeerState

cdef enum:
    FLOATED = 8  # 0..7: the primary key, which had this key_id, was exhausted
    EVENT_KINDS = 9

cdef struct PeerEvent:
    PeerState* peer
    uint8_t kind


@cython.final
cdef class Events:
    cdef PeerEvent* waiting
    cdef size_t count
    cdef size_t room
    cdef dict collected
    cdef size_t collected_count
    # Makes room for the events of this many peers. Raises MemoryError.
    cdef int reserve(self, size_t peers) except -1
    # Notes an event, which is told once however often it happens before it is taken.
    cdef void note(self, PeerState* peer, uint8_t kind) noexcept nogil
    # Turns what was noted into objects, after which the peers may go.
    cdef int collect(self) except -1
    cdef bint has_events(self) noexcept nogil
    cpdef list take(self)
