"""The two key slots of a peer: the primary key seals, both open. A key that was deleted may linger: it opens, too.

Knows which key is where, and keeps the SENT_ columns of the peer's statistics row true. Must not know packets. Same
rules as dataplane/datachannel/key_slots.py.

The packet path reads the pointers and may empty the primary slot, both without the GIL; all else is done by commands,
while no packet is on its way.
"""

from libc.stdint cimport uint8_t, uint64_t

from dataplane.fastpath.aead cimport DataKey, KeyState
from dataplane.fastpath.row cimport Row

from dataplane.vocabulary import KeySlot

cdef object PRIMARY = KeySlot.PRIMARY


cdef class KeySlots:
    """Two slots, empty at first."""

    def __cinit__(self, row):
        self.row = row if isinstance(row, Row) else Row(row)
        self.slots.row = self.row.words

    @property
    def primary(self):
        """The key that seals, or None."""
        return self.primary_key if self.slots.primary != NULL else None

    @property
    def secondary(self):
        """The other key that opens, or None."""
        return self.secondary_key

    @property
    def lingering(self):
        """The deleted key that still opens, or None."""
        return self.lingering_key if self.slots.lingering != NULL else None

    cpdef install(self, slot, DataKey key):
        """Puts a key into a slot; the one that was there is gone at once."""
        self._put(slot, key)
        self.slots.latest = &key.state

    cpdef delete(self, slot):
        """Empties a slot, which may be empty already. If it is the secondary, none of its keys lingers any more."""
        if slot != PRIMARY:
            self.lingering_key = None
        self._put(slot, None)

    cpdef let_linger(self, uint64_t until_ns):
        """Empties the secondary slot, but its key goes on to open until then, in place of one that lingered before.

        Does nothing if the slot is empty. until_ns: CLOCK_MONOTONIC.
        """
        self.release_exhausted()
        if self.secondary_key is not None:
            self.lingering_key, self.secondary_key = self.secondary_key, None
            self.lingers_until_ns = until_ns
            self._keys_changed()

    cpdef linger_end_ns(self):
        """When end_linger() is due; None for never."""
        return None if self.slots.lingering == NULL else self.lingers_until_ns

    cpdef end_linger(self, uint64_t now_ns):
        """Lets go of a lingering key whose time is over."""
        if now_ns >= self.lingers_until_ns:
            self.slots.lingering = NULL
            self.lingering_key = None

    cpdef swap(self):
        """Exchanges the slots, empty ones too."""
        self.release_exhausted()
        self.primary_key, self.secondary_key = self.secondary_key, self.primary_key
        self._keys_changed()

    def find(self, uint8_t key_id):
        """The key to open a packet with: the first of primary, secondary and lingering that has this key_id."""
        cdef KeyState* key = find_key(&self.slots, key_id)
        if key == NULL:
            return None
        if key == self.slots.primary:
            return self.primary_key
        return self.secondary_key if key == self.slots.secondary else self.lingering_key

    def is_newest(self, DataKey key not None, uint64_t packet_id):
        """Whether this packet-id, accepted with this key, is of the newest packet the peer sent."""
        return is_newest(&self.slots, &key.state, packet_id)

    cdef int release_exhausted(self) except -1:
        if self.slots.primary == NULL:
            self.primary_key = None
            self.lingering_key = None
        return 0

    def _put(self, slot, DataKey key):
        self.release_exhausted()
        if slot == PRIMARY:
            self.primary_key = key
        else:
            self.secondary_key = key
        self._keys_changed()

    def _keys_changed(self):
        self.slots.primary = NULL if self.primary_key is None else &self.primary_key.state
        self.slots.secondary = NULL if self.secondary_key is None else &self.secondary_key.state
        self.release_exhausted()
        self.slots.lingering = NULL if self.lingering_key is None else &self.lingering_key.state
        if self.slots.latest != self.slots.primary and self.slots.latest != self.slots.secondary:
            self.slots.latest = NULL
        count_sent(&self.slots)
