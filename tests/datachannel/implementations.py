"""The two implementations of the data channel, each part under one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.channel import DataChannel
from dataplane.datachannel.datagram import SockAddr
from dataplane.datachannel.epoch import EpochKey
from dataplane.datachannel.ip_header import destination_of, dscp_of, source_of
from dataplane.datachannel.key_slots import KeySlots
from dataplane.datachannel.mss import MssLimits, clamped
from dataplane.datachannel.peer import Peer
from dataplane.datachannel.peer_table import PeerTable
from dataplane.datachannel.replay_window import ReplayWindow
from dataplane.datachannel.routing import RoutingTable
from dataplane.vocabulary import RouteTarget


@dataclass(frozen=True)
class Implementation:
    """The parts of one implementation, typed as those of the readable one."""

    data_channel: type[DataChannel]
    peer: type[Peer]
    data_key: type[DataKey]
    epoch_key: type[EpochKey]
    replay_window: type[ReplayWindow]
    key_slots: type[KeySlots]
    peer_table: type[PeerTable]
    peer_at: Callable[[PeerTable, int, SockAddr], Peer | None]
    peer_behind: Callable[[PeerTable, bytes], Peer | RouteTarget | None]
    move: Callable[[PeerTable, Peer, int, SockAddr], None]
    routing_table: type[RoutingTable[Any]]
    source_of: Callable[[bytes], bytes | None]
    destination_of: Callable[[bytes], bytes | None]
    clamped: Callable[[bytes, MssLimits], bytes]
    dscp_of: Callable[[bytes], int]


def readable() -> Implementation:
    """dataplane.datachannel."""
    return Implementation(
        data_channel=DataChannel,
        peer=Peer,
        data_key=DataKey,
        epoch_key=EpochKey,
        replay_window=ReplayWindow,
        key_slots=KeySlots,
        peer_table=PeerTable,
        peer_at=lambda table, socket_id, remote: table.by_endpoint.get((socket_id, remote)),
        peer_behind=lambda table, address: table.routes.lookup(address),
        move=PeerTable.move,
        routing_table=RoutingTable,
        source_of=source_of,
        destination_of=destination_of,
        clamped=clamped,
        dscp_of=dscp_of,
    )


def compiled() -> Implementation:
    """dataplane.fastpath; an error if it was not built."""

    def part(name: str) -> Any:
        return import_module(f"dataplane.fastpath.{name}")

    return Implementation(
        data_channel=part("channel").DataChannel,
        peer=part("channel").Peer,
        data_key=part("aead").DataKey,
        epoch_key=part("aead").DataKey,
        replay_window=part("replay_window").ReplayWindow,
        key_slots=part("key_slots").KeySlots,
        peer_table=part("peer_table").PeerTable,
        peer_at=part("peer_table").peer_at,
        peer_behind=part("peer_table").peer_behind,
        move=part("peer_table").move,
        routing_table=part("routing").TestedRoutingTable,
        source_of=part("ip_header").source,
        destination_of=part("ip_header").destination,
        clamped=part("mss").clamped,
        dscp_of=part("ip_header").dscp,
    )
