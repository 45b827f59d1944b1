"""The two key slots of a peer: the primary key seals, both open. A key that was deleted may linger: it opens, too.

Knows which key is where, and keeps the SENT_ columns of the peer's statistics row true. Must not know packets.
Same rules as the kernel's drivers/net/ovpn/crypto.c, which lets no key linger.

No key lingers beside an empty primary slot, so that a peer whose keys are taken away, in whatever order, opens nothing.
"""

from __future__ import annotations

from collections.abc import MutableSequence

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.epoch import EpochKey
from dataplane.vocabulary import Column, KeySlot

AnyKey = DataKey | EpochKey
"""A key of either data format."""


class KeySlots:
    """Two slots, empty at first."""

    __slots__ = ("_latest", "_lingers_until_ns", "_row", "lingering", "primary", "secondary")

    def __init__(self, row: MutableSequence[int]) -> None:
        self.primary: AnyKey | None = None
        self.secondary: AnyKey | None = None
        self.lingering: AnyKey | None = None
        self._lingers_until_ns = 0  # means nothing without a lingering key
        self._latest: AnyKey | None = None  # the key installed last, while it is in a slot
        self._row = row

    def install(self, slot: KeySlot, key: AnyKey) -> None:
        """Puts a key into a slot; the one that was there is gone at once."""
        self._put(slot, key)
        self._latest = key

    def delete(self, slot: KeySlot) -> None:
        """Empties a slot, which may be empty already. If it is the secondary, none of its keys lingers any more."""
        if slot == KeySlot.SECONDARY:
            self.lingering = None
        self._put(slot, None)

    def let_linger(self, until_ns: int) -> None:
        """Empties the secondary slot, but its key goes on to open until then, in place of one that lingered before.

        Does nothing if the slot is empty. until_ns: CLOCK_MONOTONIC.
        """
        if self.secondary is not None:
            self.lingering, self._lingers_until_ns = self.secondary, until_ns
            self._put(KeySlot.SECONDARY, None)

    def linger_end_ns(self) -> int | None:
        """When end_linger() is due; None for never."""
        return None if self.lingering is None else self._lingers_until_ns

    def end_linger(self, now_ns: int) -> None:
        """Lets go of a lingering key whose time is over."""
        if now_ns >= self._lingers_until_ns:
            self.lingering = None

    def swap(self) -> None:
        """Exchanges the slots, empty ones too."""
        self.primary, self.secondary = self.secondary, self.primary
        self._keys_changed()

    def find(self, key_id: int) -> AnyKey | None:
        """The key to open a packet with: the first of primary, secondary and lingering that has this key_id."""
        key = self.primary
        if key is not None and key.key_id == key_id:
            return key
        key = self.secondary
        if key is not None and key.key_id == key_id:
            return key
        key = self.lingering
        if key is not None and key.key_id == key_id:
            return key
        return None

    def is_newest(self, key: AnyKey, packet_id: int) -> bool:
        """Whether this packet-id, accepted with this key, is of the newest packet the peer sent.

        It is not if the key accepted a higher one, if the peer was already heard with the key installed after it, or if
        the key only lingers: those packets were a while on their way.
        """
        if packet_id != key.replay_window.highest or key is self.lingering:
            return False
        other = self.secondary if key is self.primary else self.primary
        return other is None or other is not self._latest or other.replay_window.highest == 0

    def _put(self, slot: KeySlot, key: AnyKey | None) -> None:
        if slot == KeySlot.PRIMARY:
            gone, self.primary = self.primary, key
        else:
            gone, self.secondary = self.secondary, key
        if gone is self._latest:
            self._latest = None
        self._keys_changed()

    def _keys_changed(self) -> None:
        if self.primary is None:
            self.lingering = None
        self._row[Column.SENT_PRIMARY] = 0 if self.primary is None else self.primary.sent
        self._row[Column.SENT_SECONDARY] = 0 if self.secondary is None else self.secondary.sent
