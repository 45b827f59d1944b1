# What happens to peers on the packet path, until Python asks for it.

cimport cython
from libc.stdint cimport uint8_t

from dataplane.fastpath.peer cimport PeerState

cdef enum:
    # A kind is what happened in steps of 8, and the key_id of the key that it happened to.
    KEYS = 8
    FLOATED = 4 * KEYS  # 0: the primary key was used up; 1..3: a key came near to this KeyLimit
    FLOAT_ASKED = FLOATED + 1
    EVENT_KINDS = FLOAT_ASKED + 1

cdef struct PeerEvent:
    PeerState* peer
    uint8_t kind

cdef inline uint8_t exhaustion_of(uint8_t key_id) noexcept nogil:
    return key_id


cdef inline uint8_t nearness_of(uint8_t key_id, uint8_t limit) noexcept nogil:
    return limit * KEYS + key_id


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
