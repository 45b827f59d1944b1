"""From peer to peer: what stays inside the data channel of a device on its way from one peer to another.

Knows where a packet that has passed all checks goes if it need not see the device first. Must not know why (the
device's client_to_client), sockets, the TUN or the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dataplane.datachannel.ip_header import destination_of
from dataplane.datachannel.peer import Peer
from dataplane.datachannel.peer_table import PeerTable
from dataplane.datachannel.transmit import Admits, Transmitter
from dataplane.vocabulary import Column, RouteTarget

_VPN_RX_BYTES: Final = int(Column.VPN_RX_BYTES)
_VPN_RX_PACKETS: Final = int(Column.VPN_RX_PACKETS)


class Relay:
    """Sends packets of a device's peers on to others."""

    __slots__ = ("_peers", "_transmitter")

    def __init__(self, peers: PeerTable, transmitter: Transmitter) -> None:
        self._peers = peers
        self._transmitter = transmitter

    def relay_batch(
        self, opened: Sequence[tuple[Peer, bytes]], now_ns: int, admits: Admits
    ) -> tuple[list[tuple[Peer, bytes]], list[tuple[Peer, bytes]]]:
        """What is for the device, and the DATA_V2 packets to other peers; see DataChannel.relay."""
        for_device: list[tuple[Peer, bytes]] = []
        sealed: list[tuple[Peer, bytes]] = []
        for sender, packet in opened:
            destination = destination_of(packet)
            target = None if destination is None else self._peers.routes.lookup(destination)
            if isinstance(target, Peer):
                sender.row[_VPN_RX_BYTES] += len(packet)
                sender.row[_VPN_RX_PACKETS] += 1
                self._transmitter.seal_to(target, packet, now_ns, sealed, admits)
                continue
            if target is RouteTarget.EVERYONE:
                for peer in self._peers.by_id.values():
                    if peer is not sender:
                        self._transmitter.seal_to(peer, packet, now_ns, sealed, admits)
            for_device.append((sender, packet))
        return for_device, sealed
