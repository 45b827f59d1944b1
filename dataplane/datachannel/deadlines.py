"""The deadlines of many peers, of which only those that have come are looked at.

Knows peer_ids and times. Must not know what is due. A deadline that moved away is not searched for: the
peer is handed out at the old one, and whoever asked arms it anew.
"""

from __future__ import annotations

from heapq import heappop, heappush


class Deadlines:
    """One deadline a peer."""

    __slots__ = ("_armed", "_heap")

    def __init__(self) -> None:
        self._armed: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []  # (deadline_ns, peer_id); what differs from _armed is stale

    def arm(self, peer_id: int, deadline_ns: int) -> None:
        """Hands out peer_id at this time, or earlier if it was armed for an earlier one."""
        armed_ns = self._armed.get(peer_id)
        if armed_ns is None or deadline_ns < armed_ns:
            self._armed[peer_id] = deadline_ns
            heappush(self._heap, (deadline_ns, peer_id))

    def disarm(self, peer_id: int) -> None:
        """Forgets a peer, which need not be armed."""
        self._armed.pop(peer_id, None)

    def earliest_ns(self) -> int | None:
        """The first deadline of all; None if no peer is armed."""
        heap = self._heap
        while heap and self._armed.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now_ns: int) -> list[int]:
        """The peers whose deadline has come, earliest first; they are disarmed."""
        due = []
        while (earliest_ns := self.earliest_ns()) is not None and earliest_ns <= now_ns:
            peer_id = heappop(self._heap)[1]
            del self._armed[peer_id]
            due.append(peer_id)
        return due
