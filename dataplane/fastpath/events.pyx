"""What happens to peers on the packet path, until Python asks for it.

Knows that a peer floated or asked to, or that a key of it was used up or soon will be, and in which order. Must not
know how that came about. Noting takes neither the GIL nor memory: room for all that can wait is made when a peer is
added.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stdint cimport uint8_t, uint64_t

from dataplane.fastpath.peer cimport Peer, PeerState

from dataplane.datachannel.outcomes import FloatAsked, Floated, KeyExhausted, KeyLimitNear
from dataplane.vocabulary import KeyLimit


cdef class Events:
    """The events of a device, each at most once, in order."""

    def __cinit__(self):
        self.collected = {}

    def __dealloc__(self):
        PyMem_RawFree(self.waiting)

    cdef int reserve(self, size_t peers) except -1:
        cdef size_t room = peers * EVENT_KINDS
        cdef PeerEvent* waiting
        if room <= self.room:
            return 0
        room = max(room, 2 * self.room)
        waiting = <PeerEvent*>PyMem_RawRealloc(self.waiting, room * sizeof(PeerEvent))
        if waiting == NULL:
            raise MemoryError
        self.waiting = waiting
        self.room = room
        return 0

    cdef void note(self, PeerState* peer, uint8_t kind) noexcept nogil:
        cdef uint64_t bit = <uint64_t>1 << kind
        if peer.events & bit or self.count == self.room:
            return
        peer.events |= bit
        self.waiting[self.count].peer = peer
        self.waiting[self.count].kind = kind
        self.count += 1

    cdef int collect(self) except -1:
        cdef size_t index
        cdef PeerEvent event
        cdef Peer peer
        for index in range(self.count):
            event = self.waiting[index]
            peer = <Peer>event.peer.peer
            peer.state.events = 0
            if event.kind == FLOATED:
                self.collected[Floated(peer)] = None
            elif event.kind == FLOAT_ASKED:
                self.collected[FloatAsked(peer)] = None
            elif event.kind < KEYS:
                self.collected[KeyExhausted(peer, event.kind)] = None
                peer.keys.release_exhausted()
            else:
                self.collected[KeyLimitNear(peer, event.kind % KEYS, KeyLimit(event.kind // KEYS))] = None
        self.count = 0
        self.collected_count = len(self.collected)
        return 0

    cdef bint has_events(self) noexcept nogil:
        return self.count > 0 or self.collected_count > 0

    cpdef list take(self):
        """What happened since the last call, in order."""
        self.collect()
        taken = list(self.collected)
        self.collected.clear()
        self.collected_count = 0
        return taken
