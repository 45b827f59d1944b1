"""The two key slots of a peer: the primary key seals, both open.

Knows which key is where, and keeps the SENT_ columns of the peer's statistics row true. Must not know packets.
Same rules as the kernel's drivers/net/ovpn/crypto.c.
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

    __slots__ = ("_latest", "_row", "primary", "secondary")

    def __init__(self, row: MutableSequence[int]) -> None:
        self.primary: AnyKey | None = None
        self.secondary: AnyKey | None = None
        self._latest: AnyKey | None = None  # the key installed last, while it is in a slot
        self._row = row

    def install(self, slot: KeySlot, key: AnyKey) -> None:
        """Puts a key into a slot; the one that was there is gone at once."""
        self._put(slot, key)
        self._latest = key

    def delete(self, slot: KeySlot) -> None:
        """Empties a slot, which may be empty already."""
        self._put(slot, None)

    def swap(self) -> None:
        """Exchanges the slots, empty ones too."""
        self.primary, self.secondary = self.secondary, self.primary
        self._count_sent()

    def find(self, key_id: int) -> AnyKey | None:
        """The key to open a packet with; if both slots have this key_id, the primary."""
        key = self.primary
        if key is not None and key.key_id == key_id:
            return key
        key = self.secondary
        if key is not None and key.key_id == key_id:
            return key
        return None

    def is_newest(self, key: AnyKey, packet_id: int) -> bool:
        """Whether this packet-id, accepted with this key, is of the newest packet the peer sent.

        It is not if the key accepted a higher one, or if the peer was already heard with the key installed after it.
        """
        if packet_id != key.replay_window.highest:
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
        self._count_sent()

    def _count_sent(self) -> None:
        self._row[Column.SENT_PRIMARY] = 0 if self.primary is None else self.primary.sent
        self._row[Column.SENT_SECONDARY] = 0 if self.secondary is None else self.secondary.sent
