"""What a data channel tells its worker: events, timers that were due, and why a command was refused.

Knows no more than the peers that these are about. Both implementations of the data channel (this package and the
compiled one) tell the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dataplane.vocabulary import KeyLimit

if TYPE_CHECKING:
    # Peers have keys, and keys an AEAD, which whoever only wants these words need not load.
    from dataplane.datachannel.peer import Peer

ASK_INTERVAL_NS: Final = 1_000_000_000
"""A peer asks no more often whether it may float, so that it cannot flood those who hear of it."""


class PeerExists(Exception):
    """Another peer has this peer_id or VPN address, or is the one peer of a P2P device. Nothing was changed."""


class UnknownPeer(LookupError):
    """No peer has this peer_id."""


@dataclass(frozen=True, slots=True)
class Floated:
    """An authentic and newest packet came from a new endpoint: peer.remote, peer.socket_id or both have changed."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class FloatAsked:
    """A packet came by which the peer would have floated, had the FloatPolicy not been ASK: peer.asked is where to."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class KeyExhausted:
    """The primary key was used up (key_limits.py) and was removed, for both directions."""

    peer: Peer
    key_id: int


@dataclass(frozen=True, slots=True)
class KeyLimitNear:
    """A key has come so near to a limit that it is time for another; told once a key and limit."""

    peer: Peer
    key_id: int
    limit: KeyLimit


Event = Floated | FloatAsked | KeyExhausted | KeyLimitNear


@dataclass(frozen=True, slots=True)
class Timers:
    """What was due: keepalives to send, and peers that expired, which are removed already."""

    keepalives: list[tuple[Peer, bytes]]
    expired: list[Peer]
