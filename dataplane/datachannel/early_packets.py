"""Packets that came before their key: kept for a moment, opened when the key is there.

At a rekey the peer may use the new key as soon as its own handshake is done. Its packets then overtake the key, which
goes through the control plane first, and would be lost at every rekey. Knows packets, their peers and deadlines. Must
not know how a packet is opened. Nothing here is authentic yet, so what is kept is little: see the limits.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from dataplane.datachannel.datagram import Datagram
from dataplane.datachannel.wire import KEY_ID_MAX
from dataplane.vocabulary import DropReason

if TYPE_CHECKING:
    # The compiled data channel takes the limits from here, and must not load the AEAD behind Peer.
    from dataplane.datachannel.peer import Peer

HOLD_NS: Final = 500_000_000
"""A key that takes longer than this is not on its way."""

PACKETS_A_PEER: Final = 64
BYTES_A_DEVICE: Final = 1 << 20
"""Limits of what is kept; each packet costs its length and PACKET_COST."""

PACKET_COST: Final = 256


class _Early(NamedTuple):
    deadline_ns: int
    peer: Peer
    socket_id: int
    datagram: Datagram

    @property
    def cost(self) -> int:
        return len(self.datagram[0]) + PACKET_COST

    @property
    def key_id(self) -> int:
        return self.datagram[0][0] & KEY_ID_MAX


class EarlyPackets:
    """The early packets of a device, oldest first. Those that leave without a key count as RX_UNKNOWN_KEY_ID."""

    __slots__ = ("_cost", "_kept", "_of_peer")

    def __init__(self) -> None:
        self._kept: deque[_Early] = deque()
        self._of_peer: Counter[int] = Counter()  # by uid
        self._cost = 0

    def keep(self, peer: Peer, socket_id: int, datagram: Datagram, now_ns: int) -> None:
        """Keeps a packet for a key that the peer does not have; counts it at once if there is no room."""
        early = _Early(now_ns + HOLD_NS, peer, socket_id, datagram)
        if self._of_peer[peer.uid] >= PACKETS_A_PEER or self._cost + early.cost > BYTES_A_DEVICE:
            peer.drop(DropReason.RX_UNKNOWN_KEY_ID)
            return
        self._kept.append(early)
        self._of_peer[peer.uid] += 1
        self._cost += early.cost

    def take(self, peer: Peer, key_id: int) -> list[tuple[int, Datagram]]:
        """Gives out the packets of a peer for a key, with the sockets they came on, in order."""
        return [(early.socket_id, early.datagram) for early in self._remove(peer, lambda early: early.key_id == key_id)]

    def forget(self, peer: Peer) -> None:
        """The peer is gone."""
        for _ in self._remove(peer, lambda _: True):
            peer.drop(DropReason.RX_UNKNOWN_KEY_ID)

    def drop_due(self, now_ns: int) -> None:
        """Counts the packets whose key did not come in time."""
        while self._kept and self._kept[0].deadline_ns <= now_ns:
            early = self._kept.popleft()
            self._uncount(early)
            early.peer.drop(DropReason.RX_UNKNOWN_KEY_ID)

    def earliest_ns(self) -> int | None:
        """When drop_due() is due; None for never."""
        return self._kept[0].deadline_ns if self._kept else None

    def _remove(self, peer: Peer, leaves: Callable[[_Early], bool]) -> list[_Early]:
        if not self._of_peer[peer.uid]:
            return []
        gone: list[_Early] = []
        stays: deque[_Early] = deque()
        for early in self._kept:
            (gone if early.peer is peer and leaves(early) else stays).append(early)
        self._kept = stays
        for early in gone:
            self._uncount(early)
        return gone

    def _uncount(self, early: _Early) -> None:
        self._cost -= early.cost
        self._of_peer[early.peer.uid] -= 1
        if not self._of_peer[early.peer.uid]:
            del self._of_peer[early.peer.uid]
