"""Which prefix of a device leads where, from all who have a say, and what of it the worker has been told.

Knows the order of precedence: VPN addresses (which the worker knows by itself), the peers' own routes, the kernel's,
and the groups of forward_multicast. Must not know packets, nor how the kernel's routes come here (kernel_routes.py).

Whatever changes only marks the prefixes that it concerns; settle() then tells the worker the differences. So a peer
that comes after a route to its address, one that goes, and one whose address changes are one case.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from itertools import chain
from typing import Final

from dataplane.engine.peer_table import PeerTable
from dataplane.engine.supervisor import Supervisor
from dataplane.engine.tasks import Tasks
from dataplane.engine.types import DeviceSpec, EngineError, IPAddress, IPNetwork, PeerSpec
from dataplane.messages import ROUTES_MAX, Route, SetRoutes
from dataplane.tun.routes import Hop, NextHop
from dataplane.vocabulary import RouteTarget

_GROUPS: Final = frozenset(map(ip_network, ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")))
"""What is sent to everyone, besides the broadcast addresses of the interface's networks."""


class Routes:
    """The routes of a device. On a P2P device, whose peers have neither addresses nor routes, there are none."""

    def __init__(self, device: DeviceSpec, table: PeerTable, supervisor: Supervisor, tasks: Tasks) -> None:
        self._device = device
        self._table = table
        self._supervisor = supervisor
        self._tasks = tasks
        self._hops: dict[IPNetwork, tuple[NextHop, ...]] = {}
        self._by_gateway: defaultdict[IPAddress, set[IPNetwork]] = defaultdict(set)
        self._told: dict[IPNetwork, int] = {}
        self._told_of_peer: defaultdict[int, set[IPNetwork]] = defaultdict(set)
        self._unsettled: dict[IPNetwork, None] = {}  # in order
        self._is_settling_soon = False

    def switch(self, device: DeviceSpec) -> None:
        """The device has new switches: follow_kernel_routes and forward_multicast matter."""
        self._device = device
        self._consider(chain(self._hops, _GROUPS))

    def learn(self, changes: Mapping[IPNetwork, tuple[NextHop, ...]]) -> None:
        """The kernel has other next hops for these networks, best first; none: no route any more."""
        for network, hops in changes.items():
            for gateway in _gateways(self._hops.pop(network, ())):
                self._by_gateway[gateway].discard(network)
                if not self._by_gateway[gateway]:
                    del self._by_gateway[gateway]
            if hops:
                self._hops[network] = hops
            for gateway in _gateways(hops):
                self._by_gateway[gateway].add(network)
        self._consider(changes)

    def forget_kernel(self) -> None:
        """The kernel's routes are not followed any more."""
        self.learn(dict.fromkeys(self._hops, ()))

    def touch(self, *specs: PeerSpec) -> None:
        """A peer has come, or is another than before: it was and is such."""
        for spec in specs:
            self._consider(map(_host, spec.vpn_addresses))
            self._consider(spec.routes)
            for address in spec.vpn_addresses:
                self._consider(self._by_gateway.get(address, ()))

    def gone(self, spec: PeerSpec) -> None:
        """A peer has left the table, and the worker, with all its routes. What others claim of them is told soon."""
        lost = self._told_of_peer.pop(spec.peer_id, set())
        for network in lost:
            del self._told[network]
        self._consider(lost)
        self.touch(spec)
        self.settle_soon()

    async def renew(self) -> None:
        """Tells a new worker everything. To be called while it is configured."""
        self._told.clear()
        self._told_of_peer.clear()
        self._unsettled.clear()
        self._consider(chain(self._hops, _GROUPS))
        await self.settle()

    async def settle(self) -> None:
        """Tells the worker what has changed. To be called inside exclusive(). Raises EngineError."""
        while self._unsettled:
            networks = list(self._unsettled)[:ROUTES_MAX]
            targets = {network: self._target(network) for network in networks}
            for network, target in targets.items():
                del self._unsettled[network]
                self._note(network, target)
            await self._supervisor.request(SetRoutes(tuple(_message(*route) for route in targets.items())))

    def settle_soon(self) -> None:
        """As settle(), when nothing else changes the device. A worker that dies has nothing to be told."""
        if self._unsettled and not self._is_settling_soon:
            self._is_settling_soon = True
            self._tasks.start(self._settle_exclusively())

    async def _settle_exclusively(self) -> None:
        with contextlib.suppress(EngineError):
            async with self._supervisor.exclusive():
                self._is_settling_soon = False
                await self.settle()
        self._is_settling_soon = False

    def _consider(self, networks: Iterable[IPNetwork]) -> None:
        for network in networks:
            if self._target(network) == self._told.get(network, RouteTarget.NOBODY):
                self._unsettled.pop(network, None)
            else:
                self._unsettled[network] = None

    def _note(self, network: IPNetwork, target: int) -> None:
        # Before the worker has answered: a peer that it meanwhile removes is then known to take the route with it.
        before = self._told.pop(network, RouteTarget.NOBODY)
        if before in self._told_of_peer:
            self._told_of_peer[before].discard(network)
        if target != RouteTarget.NOBODY:
            self._told[network] = target
        if target >= 0:
            self._told_of_peer[target].add(network)

    def _target(self, network: IPNetwork) -> int:
        """Where a prefix is to lead, as far as the worker does not know by itself."""
        if network.prefixlen == network.max_prefixlen and self._table.owner_of(network.network_address) is not None:
            return RouteTarget.NOBODY
        owner = self._table.owner_of_route(network)
        if owner is not None:
            return owner
        for hop in self._hops.get(network, ()):
            target = self._target_of_hop(hop)
            if target != RouteTarget.NOBODY:
                return target
        is_group = network in _GROUPS and self._device.forward_multicast
        return RouteTarget.EVERYONE if is_group else RouteTarget.NOBODY

    def _target_of_hop(self, hop: NextHop) -> int:
        if hop is Hop.LOCAL:
            return RouteTarget.HOST
        if hop is Hop.BROADCAST:
            return RouteTarget.EVERYONE if self._device.forward_multicast else RouteTarget.HOST
        if not self._device.follow_kernel_routes:
            return RouteTarget.NOBODY
        if hop is Hop.ON_LINK:
            return RouteTarget.HOST
        owner = self._table.owner_of(hop)
        return RouteTarget.NOBODY if owner is None else owner


def _gateways(hops: Iterable[NextHop]) -> list[IPAddress]:
    return [hop for hop in hops if not isinstance(hop, Hop)]


def _host(address: IPAddress) -> IPNetwork:
    return ip_network(address)


def _message(network: IPNetwork, target: int) -> Route:
    return Route(network.network_address.packed, network.prefixlen, target)
