# The two key slots of a peer: the primary key seals, both open, and so does one that was deleted and lingers; twin of
# dataplane/datachannel/key_slots.py.

cimport cython
from libc.stdint cimport uint8_t, uint64_t

from dataplane.fastpath.aead cimport DataKey, KeyState
from dataplane.fastpath.row cimport SENT_PRIMARY, SENT_SECONDARY, Row

cdef struct Slots:
    KeyState* primary  # NULL: empty
    KeyState* secondary
    KeyState* latest  # the key installed last, while it is in a slot
    KeyState* lingering  # NULL: none, as always beside an empty primary slot
    uint64_t* row


@cython.final
cdef class KeySlots:
    cdef Slots slots
    # What the pointers point into. An exhausted key, and one that lingered beside it, stay here, out of use, until
    # release_exhausted().
    cdef DataKey primary_key
    cdef DataKey secondary_key
    cdef DataKey lingering_key
    cdef uint64_t lingers_until_ns  # means nothing without a lingering key
    cdef Row row
    cpdef install(self, slot, DataKey key)
    cpdef delete(self, slot)
    cpdef let_linger(self, uint64_t until_ns)
    cpdef linger_end_ns(self)
    cpdef end_linger(self, uint64_t now_ns)
    cpdef swap(self)
    cdef int release_exhausted(self) except -1


# The key to open a packet with: the first of primary, secondary and lingering that has this key_id. NULL: none.
cdef inline KeyState* find_key(const Slots* slots, uint8_t key_id) noexcept nogil:
    if slots.primary != NULL and slots.primary.key_id == key_id:
        return slots.primary
    if slots.secondary != NULL and slots.secondary.key_id == key_id:
        return slots.secondary
    if slots.lingering != NULL and slots.lingering.key_id == key_id:
        return slots.lingering
    return NULL


# Whether this packet-id, accepted with this key, is of the newest packet the peer sent. It is not if the key accepted a
# higher one, if the peer was already heard with the key installed after it, or if the key only lingers.
cdef inline bint is_newest(const Slots* slots, const KeyState* key, uint64_t packet_id) noexcept nogil:
    cdef KeyState* other = slots.secondary if key == slots.primary else slots.primary
    if packet_id != key.window.highest or key == slots.lingering:
        return False
    return other == NULL or other != slots.latest or other.window.highest == 0


# Empties the primary slot when its key has no packet-id left.
cdef inline void remove_exhausted(Slots* slots) noexcept nogil:
    if slots.latest == slots.primary:
        slots.latest = NULL
    slots.primary = NULL
    slots.lingering = NULL
    count_sent(slots)


cdef inline void count_sent(Slots* slots) noexcept nogil:
    slots.row[SENT_PRIMARY] = slots.primary.sent if slots.primary != NULL else 0
    slots.row[SENT_SECONDARY] = slots.secondary.sent if slots.secondary != NULL else 0
