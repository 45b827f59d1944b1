"""What the data channel tells, as messages to the daemon. Both packet paths report through here.

Knows outcomes and messages. Must not know how they come and go.
"""

from __future__ import annotations

from typing import Protocol

from dataplane import messages
from dataplane.datachannel.outcomes import Event, FloatAsked, Floated, KeyLimitNear
from dataplane.messages import Endpoint, KeyExhausted, PeerExpired, PeerFloatAsked, PeerFloated
from dataplane.transport.sockaddr import from_sockaddr


class Peer(Protocol):
    """What is told of a peer."""

    @property
    def peer_id(self) -> int:
        """Its number on the wire."""

    @property
    def uid(self) -> int:
        """Tells it from others with the same peer_id."""


def event_report(event: Event) -> PeerFloated | PeerFloatAsked | KeyExhausted | messages.KeyLimitNear:
    """The message of an event."""
    peer = event.peer
    if isinstance(event, Floated):
        assert peer.remote is not None  # peers in a stream do not float
        return PeerFloated(peer.peer_id, peer.uid, Endpoint(*from_sockaddr(peer.remote)), peer.socket_id)
    if isinstance(event, FloatAsked):
        assert peer.asked is not None  # that is what it did
        socket_id, remote = peer.asked
        return PeerFloatAsked(peer.peer_id, peer.uid, Endpoint(*from_sockaddr(remote)), socket_id)
    if isinstance(event, KeyLimitNear):
        return messages.KeyLimitNear(peer.peer_id, peer.uid, event.key_id, event.limit)
    return KeyExhausted(peer.peer_id, peer.uid, event.key_id)


def expiry_report(peer: Peer) -> PeerExpired:
    """The message that a peer expired."""
    return PeerExpired(peer.peer_id, peer.uid)
