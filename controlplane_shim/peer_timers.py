"""Peers for which something is to be done a moment later.

Knows peers and a timer. Must not know what is to be done, nor the data plane.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from controlplane_shim.peers import Device, Peer


@dataclass(slots=True, eq=False)
class _Pending:
    device: Device
    peer: Peer


class PeerTimers:
    """For one thread; only the timers run in others."""

    def __init__(self, ring: Callable[[], None], delay_seconds: float) -> None:
        """ring: called when take_due() has something to give."""
        self._ring = ring
        self._delay_seconds = delay_seconds
        self._pending: list[_Pending] = []
        self._due: queue.SimpleQueue[_Pending] = queue.SimpleQueue()

    def add(self, device: Device, peer: Peer) -> None:
        """A peer that has nothing pending."""
        pending = _Pending(device, peer)
        self._pending.append(pending)
        timer = threading.Timer(self._delay_seconds, self._come_due, (pending,))
        timer.daemon = True
        timer.start()

    def take(self, peer: Peer) -> bool:
        """Whether the peer had something pending, which is the caller's business now."""
        kept = [pending for pending in self._pending if pending.peer is not peer]
        was_pending = len(kept) < len(self._pending)
        self._pending = kept
        return was_pending

    def take_due(self) -> list[tuple[Device, Peer]]:
        """The peers whose time has come; those that are gone meanwhile are forgotten."""
        due = []
        while not self._due.empty():
            pending = self._due.get()
            if pending in self._pending:
                self._pending.remove(pending)
                due.append((pending.device, pending.peer))
        return [(device, peer) for device, peer in due if device.peers.get(peer.peer_id) is peer]

    def _come_due(self, pending: _Pending) -> None:
        self._due.put(pending)
        self._ring()
