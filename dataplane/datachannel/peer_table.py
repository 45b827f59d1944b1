"""The peers of a device, by peer_id, by endpoint and by the addresses behind them.

Knows how a peer is found and that no two claim the same. Must not know packets, keys or time.

In MP mode a peer is behind its VPN addresses; in P2P mode the one peer is behind every address. So both modes send,
and check sources, by the same look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dataplane.datachannel.datagram import SockAddr
from dataplane.datachannel.outcomes import PeerExists, UnknownPeer
from dataplane.datachannel.peer import Peer
from dataplane.datachannel.routing import Prefix, RoutingTable
from dataplane.vocabulary import Mode

_EVERYWHERE: Final[Sequence[Prefix]] = ((bytes(4), 0), (bytes(16), 0))


class PeerTable:
    """All peers of a device. The mappings are for reading; the methods keep them in step."""

    __slots__ = ("_mode", "by_endpoint", "by_id", "routes")

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self.by_id: dict[int, Peer] = {}
        self.by_endpoint: dict[tuple[int, SockAddr | None], Peer] = {}
        """By (socket_id, remote). If two peers are at one endpoint, the one that came last is meant."""
        self.routes: RoutingTable[Peer] = RoutingTable()

    def get(self, peer_id: int) -> Peer:
        """The peer with this peer_id. Raises UnknownPeer."""
        peer = self.by_id.get(peer_id)
        if peer is None:
            raise UnknownPeer(f"no peer {peer_id}")
        return peer

    def add(self, peer: Peer) -> None:
        """Adds a peer. Raises PeerExists."""
        if peer.peer_id in self.by_id:
            raise PeerExists(f"peer {peer.peer_id} is there already")
        routes = self._routes_of(peer.vpn_ipv4, peer.vpn_ipv6)
        self._require_free(routes, peer)
        self.by_id[peer.peer_id] = peer
        self.by_endpoint[peer.socket_id, peer.remote] = peer
        for route in routes:
            self.routes.insert(route, peer)

    def remove(self, peer_id: int) -> Peer:
        """Removes a peer. Raises UnknownPeer."""
        peer = self.get(peer_id)
        del self.by_id[peer_id]
        self._leave_endpoint(peer)
        for route in self._routes_of(peer.vpn_ipv4, peer.vpn_ipv6):
            self.routes.remove(route)
        return peer

    def move(self, peer: Peer, socket_id: int, remote: SockAddr | None) -> None:
        """Gives a peer another endpoint."""
        self._leave_endpoint(peer)
        peer.socket_id = socket_id
        peer.remote = remote
        self.by_endpoint[socket_id, remote] = peer

    def set_vpn_addresses(self, peer: Peer, vpn_ipv4: bytes | None, vpn_ipv6: bytes | None) -> None:
        """Gives a peer other VPN addresses. Raises PeerExists."""
        routes = self._routes_of(vpn_ipv4, vpn_ipv6)
        self._require_free(routes, peer)
        for route in self._routes_of(peer.vpn_ipv4, peer.vpn_ipv6):
            self.routes.remove(route)
        for route in routes:
            self.routes.insert(route, peer)
        peer.vpn_ipv4 = vpn_ipv4
        peer.vpn_ipv6 = vpn_ipv6

    def _routes_of(self, vpn_ipv4: bytes | None, vpn_ipv6: bytes | None) -> Sequence[Prefix]:
        if self._mode is Mode.P2P:
            return _EVERYWHERE
        return [(address, len(address) * 8) for address in (vpn_ipv4, vpn_ipv6) if address is not None]

    def _require_free(self, routes: Sequence[Prefix], peer: Peer) -> None:
        for route in routes:
            holder = self.routes.get(route)
            if holder is not None and holder is not peer:
                raise PeerExists(f"peer {holder.peer_id} is in the place of peer {peer.peer_id}")

    def _leave_endpoint(self, peer: Peer) -> None:
        endpoint = (peer.socket_id, peer.remote)
        if self.by_endpoint.get(endpoint) is peer:
            del self.by_endpoint[endpoint]
