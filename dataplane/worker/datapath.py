"""The two implementations of what carries packets, under one set of names.

Knows where each stands and what the rest of the worker may ask of it. Must not know how it works. What belongs to one
implementation goes only to that one: a peer or key that its `Datapath` made is opaque to everybody else, hence Any.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from dataplane.datachannel.datagram import SockAddr
from dataplane.datachannel.keepalive import Keepalive
from dataplane.datachannel.mss import MssLimits, OwnLimits
from dataplane.datachannel.routing import Prefix
from dataplane.messages import FromWorker
from dataplane.transport import Transport
from dataplane.vocabulary import DatapathKind, FloatPolicy, KeySlot, Mode


class Peer(Protocol):
    """What is read of a peer, and never written; see dataplane.datachannel.peer.Peer."""

    peer_id: int
    uid: int
    socket_id: int
    remote: SockAddr | None
    local: bytes | None
    vpn_ipv4: bytes | None
    vpn_ipv6: bytes | None
    keepalive: Keepalive
    tx_id: int | None
    own_mss: OwnLimits


class DataChannel(Protocol):
    """What commands do with a data channel; see dataplane.datachannel.channel.DataChannel."""

    def peer(self, peer_id: int) -> Peer:
        """The peer with this peer_id. Raises UnknownPeer."""

    def add_peer(self, peer: Any, now_ns: int) -> None:
        """Adds a peer and starts its keepalive. Raises PeerExists."""

    def remove_peer(self, peer_id: int) -> Peer:
        """Removes a peer; its row changes no more. Raises UnknownPeer."""

    def set_keepalive(self, peer_id: int, interval_s: int, timeout_s: int, now_ns: int) -> None:
        """Sets the keepalive and restarts both clocks. Raises UnknownPeer."""

    def set_remote(
        self, peer_id: int, remote: SockAddr | None, local: bytes | None, socket_id: int | None = None
    ) -> None:
        """Sets where packets to a peer go, from which local address and by which socket. Raises UnknownPeer."""

    def peer_of_stream(self, socket_id: int) -> Peer | None:
        """The peer whose packets travel in this socket's stream, if there is one."""

    def set_vpn_addresses(self, peer_id: int, vpn_ipv4: bytes | None, vpn_ipv6: bytes | None) -> None:
        """Sets the VPN addresses of a peer. Raises UnknownPeer, PeerExists."""

    def set_tx_id(self, peer_id: int, tx_id: int | None) -> None:
        """Sets the peer-id on packets to a peer."""

    def set_switches(self, *, skip_source_check: bool, client_to_client: bool) -> None:
        """Whether inner sources are not checked, and packets between peers stay inside."""

    def set_float_policy(self, policy: FloatPolicy) -> None:
        """Sets what happens to peers that send from another endpoint than their own."""

    def set_route(self, prefix: Prefix, target: int) -> None:
        """Has a prefix lead to the peer with this peer_id or to a RouteTarget. Raises ValueError."""

    def set_device_mss(self, limits: MssLimits) -> None:
        """Sets the limits of the MSS option that hold for peers without their own."""

    def set_mss(self, peer_id: int, own: OwnLimits) -> None:
        """Sets the limits of the MSS option that a peer has of its own. Raises UnknownPeer."""

    def swap_keys(self, peer_id: int) -> None:
        """Exchanges the slots of a peer. Raises UnknownPeer."""

    def delete_key(self, peer_id: int, slot: KeySlot) -> None:
        """Empties a slot. Raises UnknownPeer."""

    def let_key_linger(self, peer_id: int, until_ns: int) -> None:
        """Empties the secondary slot; its key opens until then what is on its way. Raises UnknownPeer."""


class PacketPath(Protocol):
    """Moves the packets of one device."""

    @property
    def channel(self) -> DataChannel:
        """The data channel that it was made with."""

    def transport(self, socket_id: int) -> Transport | None:
        """The socket of this number."""

    def add_transport(self, transport: Transport) -> None:
        """Serves a socket, under a number that is free."""

    def remove_transport(self, transport: Transport) -> None:
        """Closes a socket. Packets to peers that still use it are dropped (TX_SEND_FAILED)."""

    def install_key(self, peer_id: int, slot: KeySlot, key: Any) -> None:
        """Puts a key into a slot, and moves the packets that came before it. Raises UnknownPeer."""

    def serve(self) -> bool:
        """Waits for packets and moves them; returns whether commands wait.

        Comes back at the latest when they do, when run_timers() is due or when there are messages to take.
        """

    def run_timers(self) -> None:
        """Sends the keepalives that are due and removes the peers that expired."""

    def take_messages(self) -> list[FromWorker]:
        """What the daemon is to be told, in order."""


@dataclass(frozen=True, slots=True)
class Datapath:
    """The classes of one implementation.

    packet_path takes a data channel, the descriptor of the TUN, which stays the caller's, and the descriptor that
    becomes readable when commands wait.
    """

    data_channel: Callable[[Mode, MutableSequence[int]], DataChannel]
    peer: Callable[..., Peer]
    data_key: Callable[..., Any]
    epoch_key: Callable[..., Any]
    packet_path: Callable[[Any, int, int], PacketPath]


def load_datapath(kind: DatapathKind) -> Datapath:
    """Loads an implementation, and nothing of the other. Raises ImportError if it was not built."""
    if kind is DatapathKind.PYTHON:
        from dataplane.datachannel.aead import DataKey
        from dataplane.datachannel.channel import DataChannel as ReadableChannel
        from dataplane.datachannel.epoch import EpochKey
        from dataplane.datachannel.peer import Peer as ReadablePeer
        from dataplane.worker.packet_path import PacketPath as ReadablePath

        return Datapath(ReadableChannel, ReadablePeer, DataKey, EpochKey, ReadablePath)
    channel = import_module("dataplane.fastpath.channel")
    aead = import_module("dataplane.fastpath.aead")
    path = import_module("dataplane.fastpath.packet_path")
    return Datapath(channel.DataChannel, channel.Peer, aead.DataKey, aead.DataKey, path.PacketPath)
