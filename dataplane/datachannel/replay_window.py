"""The replay window: accepts every packet-id once, and late ones only for a while.

Knows packet-ids and times of authentic packets. Must not know packets, keys or peers. Same rules as the
kernel's drivers/net/ovpn/pktid.c.

An id newer than every id before is accepted. An older one is accepted if it lies less than 2,048 behind the newest,
was not accepted before, and lies above the floor. The floor rises to the newest id when 30 s have passed since
an id was last accepted, so that nobody can hold packets back for longer.
"""

from __future__ import annotations

from typing import Final

from dataplane.vocabulary import DropReason

WINDOW_SIZE: Final = 2048
"""Ids that the window remembers, the newest included."""

EXPIRE_NS: Final = 30_000_000_000
"""After this time without an accepted id, late ones are refused."""

_ALL_SEEN: Final = (1 << WINDOW_SIZE) - 1


class ReplayWindow:
    """The packet-ids received with one key.

    The kernel also keeps an "extent", the number of ids the window covers so far. As ids begin at 1 it is always
    min(highest, 2048), and the ids it would exclude are 0 and below; so it needs no memory here.
    """

    __slots__ = ("_expire_ns", "_floor", "_seen", "highest")

    def __init__(self) -> None:
        self.highest = 0
        """The newest id accepted, 0 for none."""
        self._seen = 0  # bit k: id highest - k was accepted
        self._floor = 0
        self._expire_ns = 0

    def accept(self, packet_id: int, now_ns: int) -> DropReason | None:
        """Takes the id (64 bits at most) of an authentic packet; None if it is accepted, else why not.

        Call it after authentication only: a forged id must not move the window.
        """
        if packet_id == 0:
            return DropReason.RX_PACKET_ID_ZERO
        if now_ns >= self._expire_ns:
            self._floor = self.highest
        ahead = packet_id - self.highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & _ALL_SEEN if ahead < WINDOW_SIZE else 1
            self.highest = packet_id
        else:
            backtrack = -ahead
            if backtrack >= WINDOW_SIZE or packet_id <= self._floor:
                return DropReason.RX_TOO_OLD
            bit = 1 << backtrack
            if self._seen & bit:
                return DropReason.RX_REPLAYED
            self._seen |= bit
        self._expire_ns = now_ns + EXPIRE_NS
        return None
