"""Wakes the OpenVPN of a P2P device while the key that it installed last does not seal yet.

OpenVPN looks for keys to swap whenever its loop turns, from half the time that a key lasts on, or a minute
(check_dco_key_status in forward.c, auth_deferred_expire_window in ssl.c). With its data channel offloaded nothing turns
the loop but its own timers, every 15 s or at the next handshake, when the other end gives up the key that still seals.
Knows peers and a timer. Must not know how OpenVPN is woken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from controlplane_shim.operations import Family
from controlplane_shim.peer_timers import PeerTimers
from controlplane_shim.peers import Device, Peer

WAKE_SECONDS: Final = 1.0
"""OpenVPN counts in seconds."""

WAKES: Final = 30
"""How often. A key that lasts a minute or longer is swapped in time by OpenVPN's own timer."""


class UnswappedKeys:
    """For one thread."""

    def __init__(self, ring: Callable[[], None], wake_seconds: float = WAKE_SECONDS) -> None:
        """ring: called when take_due() has something to give."""
        self._timers = PeerTimers(ring, wake_seconds)

    def add(self, device: Device, peer: Peer) -> None:
        """A key was put into the secondary slot of a P2P device's peer."""
        self.remove(peer)
        if not _reads_its_last_notice_again(device, peer):
            peer.wakes = WAKES
            self._timers.add(device, peer)

    def remove(self, peer: Peer) -> None:
        """OpenVPN has asked for the swap. The peer need not have been added."""
        self._timers.take(peer)

    def take_due(self) -> list[Device]:
        """The devices whose OpenVPN is to be woken now."""
        due = self._timers.take_due()
        for device, peer in due:
            peer.wakes -= 1
            if peer.wakes:
                self._timers.add(device, peer)
        return [device for device, _ in due]


def _reads_its_last_notice_again(device: Device, peer: Peer) -> bool:
    """OpenVPN 2.6, until 2.6.14 at least, takes whatever wakes it for the notice that it had last."""
    return device.family is Family.OVPN_DCO_V2 and device.expired_peer_id == peer.peer_id
