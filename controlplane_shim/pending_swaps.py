"""Key swaps that a client was promised and that are carried out a moment later.

At a rekey OpenVPN's client swaps the keys first and sends the last packet of the handshake after that. A data packet
sealed with the new key and sent in between overtakes the handshake, and its server must drop it. So the old key,
which the server takes for long enough, seals for a moment more. Knows peers and a timer. Must not know the data plane.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

from controlplane_shim.peers import Device, Peer

SWAP_DELAY_SECONDS: Final = 0.1
"""OpenVPN sends what it has to send within a millisecond or so, if it gets the CPU."""


class PendingSwaps:
    """For one thread; only the timer runs in others."""

    def __init__(self, ring: Callable[[], None], delay_seconds: float = SWAP_DELAY_SECONDS) -> None:
        """ring: called when take_due() has something to give."""
        self._ring = ring
        self._delay_seconds = delay_seconds
        self._pending: list[tuple[Device, Peer]] = []
        self._due: queue.SimpleQueue[Peer] = queue.SimpleQueue()

    def add(self, device: Device, peer: Peer) -> None:
        """A swap of a peer that has none pending."""
        self._pending.append((device, peer))
        timer = threading.Timer(self._delay_seconds, self._come_due, (peer,))
        timer.daemon = True
        timer.start()

    def take(self, peer: Peer) -> bool:
        """Whether the peer has a swap pending, which is the caller's business now."""
        kept = [(device, other) for device, other in self._pending if other is not peer]
        was_pending = len(kept) < len(self._pending)
        self._pending = kept
        return was_pending

    def take_due(self) -> list[tuple[Device, Peer]]:
        """The swaps whose time has come; those of peers that are gone meanwhile are forgotten."""
        due = []
        while not self._due.empty():
            peer = self._due.get()
            due += [(device, other) for device, other in self._pending if other is peer]
            self.take(peer)
        return [(device, peer) for device, peer in due if device.peers.get(peer.peer_id) is peer]

    def _come_due(self, peer: Peer) -> None:
        self._due.put(peer)
        self._ring()
