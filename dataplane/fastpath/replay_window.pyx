"""The replay window: accepts every packet-id once, and late ones only for a while.

Knows packet-ids and times of authentic packets. Must not know packets, keys or peers. Same rules and results as
dataplane/datachannel/replay_window.py, which explains them.

The ids stand in a ring of more words than a window touches (33 at most), so that an id that is ahead only has to empty
the words that it enters.
"""

from libc.stdint cimport uint64_t

from dataplane.vocabulary import DropReason

cdef enum:
    WINDOW_SIZE = 2048
    WORD_BITS = 64

cdef uint64_t EXPIRE_NS = 30_000_000_000

cdef int PACKET_ID_ZERO = DropReason.RX_PACKET_ID_ZERO
cdef int REPLAYED = DropReason.RX_REPLAYED
cdef int TOO_OLD = DropReason.RX_TOO_OLD


cdef int accept(WindowState* window, uint64_t packet_id, uint64_t now_ns) noexcept nogil:
    cdef uint64_t* word = &window.seen[packet_id // WORD_BITS % RING_WORDS]
    cdef uint64_t bit = <uint64_t>1 << packet_id % WORD_BITS
    if packet_id == 0:
        return PACKET_ID_ZERO
    if now_ns >= window.expire_ns:
        window.floor = window.highest
    if packet_id > window.highest:
        advance(window, packet_id)
    elif window.highest - packet_id >= WINDOW_SIZE or packet_id <= window.floor:
        return TOO_OLD
    elif word[0] & bit:
        return REPLAYED
    word[0] |= bit
    window.expire_ns = now_ns + EXPIRE_NS
    return ACCEPTED


cdef inline void advance(WindowState* window, uint64_t packet_id) noexcept nogil:
    cdef uint64_t entered = packet_id // WORD_BITS
    cdef uint64_t word = window.highest // WORD_BITS
    if entered - word > RING_WORDS:
        word = entered - RING_WORDS
    while word < entered:
        word += 1
        window.seen[word % RING_WORDS] = 0
    window.highest = packet_id


cdef class ReplayWindow:
    """The packet-ids received with one key."""

    def __cinit__(self):
        self.state = &self.own

    @property
    def highest(self):
        """The newest id accepted, 0 for none."""
        return self.state.highest

    def accept(self, uint64_t packet_id, uint64_t now_ns):
        """Takes the id (64 bits at most) of an authentic packet; None if it is accepted, else why not."""
        reason = accept(self.state, packet_id, now_ns)
        return None if reason == ACCEPTED else DropReason(reason)
