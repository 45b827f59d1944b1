"""A peer of a device: who it is, where it is, its keys, its keepalive and its counters.

Knows state only. Must not know the tables it stands in (peer_table.py) nor what is done with it; whoever changes
socket_id, remote, local or the VPN addresses goes through DataChannel, which keeps its tables in step.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass, field
from typing import Final

from dataplane.datachannel.datagram import SockAddr
from dataplane.datachannel.keepalive import Keepalive
from dataplane.datachannel.key_slots import KeySlots
from dataplane.datachannel.mss import MssLimits, OwnLimits
from dataplane.vocabulary import Column, DropReason

_DROPS: Final = int(Column.DROPS)


@dataclass(slots=True, eq=False, kw_only=True)
class Peer:
    """A peer. Two with the same peer_id, one after the other, differ by uid.

    remote is None if its packets travel in a stream, which it has for itself and never leaves. local is the packed
    address of this host that the peer talks to (None: any), vpn_ipv4 and vpn_ipv6 are its packed addresses inside the
    tunnel. row is its statistics row (vocabulary.Column). tx_id is the peer-id on packets to it, which its end may know
    by another number (None: peer_id). own_mss are its own limits of the MSS option, mss those that hold for it. asked
    is the (socket_id, remote) to which it last asked to float, and from asks_again_ns on it may ask again.
    """

    peer_id: int
    uid: int
    socket_id: int
    remote: SockAddr | None
    row: MutableSequence[int] = field(repr=False)
    local: bytes | None = None
    vpn_ipv4: bytes | None = None
    vpn_ipv6: bytes | None = None
    keepalive: Keepalive = field(default_factory=Keepalive)
    tx_id: int | None = field(default=None, repr=False)
    keys: KeySlots = field(init=False, repr=False)
    own_mss: OwnLimits = field(init=False, repr=False, default=(None, None))
    mss: MssLimits = field(init=False, repr=False, default=MssLimits())
    asked: tuple[int, SockAddr] | None = field(init=False, repr=False, default=None)
    asks_again_ns: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        self.keys = KeySlots(self.row)

    def drop(self, reason: DropReason) -> None:
        """Counts a dropped packet."""
        self.row[_DROPS + reason] += 1

    def send_at_ns(self) -> int | None:
        """When its next keepalive is due; None for never."""
        return self.keepalive.send_at_ns(self.row[Column.LAST_TX_NS])

    def expire_at_ns(self) -> int | None:
        """When it expires if nothing more comes from it; None for never."""
        return self.keepalive.expire_at_ns(self.row[Column.LAST_RX_NS])
