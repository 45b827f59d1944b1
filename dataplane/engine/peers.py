"""Creating, changing and removing the peers of one device, and what the worker reports of them.

Knows the rules: which peer may be where, and why it goes. Must not know descriptors or keys. The table
changes at the worker's reply, never before: a command that fails leaves it as it was.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

import msgspec

from dataplane import messages
from dataplane.engine import errors
from dataplane.engine.carrier import Carrier
from dataplane.engine.counters import peer_counters
from dataplane.engine.peer_table import Peer, PeerTable
from dataplane.engine.resources import BoundSocket
from dataplane.engine.routes import Routes
from dataplane.engine.sockets import Socket, Sockets
from dataplane.engine.supervisor import Supervisor
from dataplane.engine.types import (
    UNSET,
    DeviceSpec,
    Endpoint,
    EngineError,
    IPAddress,
    PeerChange,
    PeerCounters,
    PeerCreated,
    PeerDeleted,
    PeerFloatAsked,
    PeerFloated,
    PeerSpec,
    PeerView,
    SocketClosed,
)
from dataplane.engine.watch import EventLog
from dataplane.messages import AddPeer, RemovePeer, UpdatePeer
from dataplane.vocabulary import DelReason, Mode

_EVENTS_BETWEEN_PAUSES: Final = 1000


class Peers:
    """The peers of a device."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a device that peers have to do with
        self,
        device: DeviceSpec,
        table: PeerTable,
        sockets: Sockets,
        supervisor: Supervisor,
        events: EventLog,
        routes: Routes,
        carrier: Carrier,
    ) -> None:
        self._device = device.name
        self._mode = device.mode
        self._table = table
        self._sockets = sockets
        self._supervisor = supervisor
        self._events = events
        self._routes = routes
        self._carrier = carrier

    async def create(self, spec: PeerSpec) -> PeerView:
        """Adds a peer; on a P2P device in place of the one that is there."""
        async with self._supervisor.exclusive():
            socket = self._sockets.get(spec.socket)
            if socket.is_closed:
                raise errors.socket_closed(self._device, socket.name)
            if socket.bound.remote is None:
                _check_families(spec, socket.bound)
            if self._mode is Mode.MP:
                self._check_new(spec)
                self._check_alone(socket)
            else:
                await self._remove_each(self._table, DelReason.TEARDOWN)
            peer = self._table.draft(dataclasses.replace(spec, remote=socket.bound.remote or spec.remote))
            try:
                await self._supervisor.request(_add_peer(peer, socket))
            except EngineError:
                self._table.discard(peer)
                raise
            peer.create_time_ns = time.time_ns()
            peer.create_revision = self._events.revision + 1  # the event's
            self._table.add(peer)
            view = peer.view()
            self._events.publish(self._device, lambda revision: PeerCreated(revision, view))
            await self._carrier.follow()
            self._routes.touch(spec)
            await self._routes.settle()
            return view

    async def update(self, peer_id: int, change: PeerChange) -> PeerView:
        """Changes a peer in place."""
        async with self._supervisor.exclusive():
            peer = self._table.get(peer_id)
            wanted = _changed(peer.spec, change)
            socket = self._sockets.get(wanted.socket)
            if socket.bound.remote is None:
                _check_families(wanted, socket.bound)
            self._check_addresses(wanted)
            await self._supervisor.request(_update_peer(wanted, change, socket))
            # Not `wanted`: the peer may have floated since.
            before, after = peer.spec, _changed(peer.spec, change)
            self._table.respecify(peer, after)
            self._routes.touch(before, after)
            await self._routes.settle()
            return peer.view()

    async def delete(self, peer_id: int) -> PeerCounters:
        """Removes a peer; gives its final counters."""
        async with self._supervisor.exclusive():
            return await self._remove(self._table.get(peer_id), DelReason.USERSPACE)

    async def remove_of_socket(self, socket: str) -> None:
        """Removes the peers of a socket that is about to be closed. To be called inside exclusive()."""
        await self._remove_each(self._table.of_socket(socket), DelReason.TRANSPORT_DISCONNECT)

    async def lost(self, reason: DelReason) -> None:
        """Removes all peers, whose worker has ended."""
        for count, peer in enumerate(self._table, start=1):
            self._gone(peer, reason)
            if count % _EVENTS_BETWEEN_PAUSES == 0:
                await self._events.pace()

    def expired(self, event: messages.PeerExpired) -> None:
        """The worker removed a peer."""
        peer = self._table.meant_by(event.peer_id, event.uid)
        if peer is not None:
            self._gone(peer, DelReason.EXPIRED)

    def floated(self, event: messages.PeerFloated) -> None:
        """The worker found a peer at a new address. Raises ValueError if that is none."""
        peer = self._table.meant_by(event.peer_id, event.uid)
        if peer is None:
            return
        remote = _endpoint(event.remote)
        local = peer.spec.local_address
        if local is not None and local.version != remote.address.version:
            local = None
        socket = self._sockets.meant_by(event.socket_id)
        name = peer.spec.socket if socket is None else socket.name
        self._table.respecify(peer, dataclasses.replace(peer.spec, remote=remote, local_address=local, socket=name))
        self._events.publish(self._device, lambda revision: PeerFloated(revision, self._device, event.peer_id, remote))

    def float_asked(self, event: messages.PeerFloatAsked) -> None:
        """The worker heard a peer from elsewhere. Raises ValueError if that is no address."""
        peer = self._table.meant_by(event.peer_id, event.uid)
        socket = self._sockets.meant_by(event.socket_id)
        if peer is None or socket is None or peer.spec.remote is None:
            return
        remote, asked = peer.spec.remote, _endpoint(event.remote)
        self._events.publish(
            self._device,
            lambda revision: PeerFloatAsked(revision, self._device, event.peer_id, remote, asked, socket.name),
        )

    def stream_ended(self, event: messages.TransportClosed) -> None:
        """The worker removed the peer of a TCP socket, whose connection has ended. Raises ValueError for no reason."""
        reason = DelReason(event.reason)
        socket = self._sockets.meant_by(event.socket_id)
        if socket is None:
            return
        for peer in self._table.of_socket(socket.name):
            self._gone(peer, reason)
        self._stream_closed(socket, reason)

    def streams_lost(self) -> None:
        """The worker has ended, and with it the knowledge where a packet begins or ends in a connection."""
        for socket in self._sockets.streams():
            socket.is_served = False
            self._stream_closed(socket, DelReason.TRANSPORT_ERROR)

    def _stream_closed(self, socket: Socket, reason: DelReason) -> None:
        if not socket.is_closed:
            socket.is_closed = True
            self._events.publish(
                self._device, lambda revision: SocketClosed(revision, self._device, socket.name, reason)
            )

    def _check_alone(self, socket: Socket) -> None:
        if socket.bound.remote is not None:
            for other in self._table.of_socket(socket.name):
                raise errors.socket_in_use(self._device, socket.name, other.spec.peer_id)

    def _check_new(self, spec: PeerSpec) -> None:
        if spec.peer_id in self._table:
            raise errors.peer_exists(self._device, spec.peer_id)
        if len(self._table) == self._table.capacity:
            raise errors.peer_limit(self._device, self._table.capacity)
        self._check_addresses(spec)

    def _check_addresses(self, spec: PeerSpec) -> None:
        """Raises EngineError VPN_ADDRESS_IN_USE, ROUTE_IN_USE if another peer has an address or a network of it."""
        for address in spec.vpn_addresses:
            owner = self._table.owner_of(address)
            if owner is not None and owner != spec.peer_id:
                raise errors.vpn_address_in_use(self._device, address, owner)
        for network in (*map(ip_network, spec.vpn_addresses), *spec.routes):
            owner = self._table.owner_of_route(network)
            if owner is None and network.prefixlen == network.max_prefixlen:
                owner = self._table.owner_of(network.network_address)
            if owner is not None and owner != spec.peer_id:
                raise errors.route_in_use(self._device, network, owner)

    async def _remove_each(self, peers: Iterable[Peer], reason: DelReason) -> None:
        for count, peer in enumerate(peers, start=1):
            await self._remove(peer, reason)
            if count % _EVENTS_BETWEEN_PAUSES == 0:
                await self._events.pace()

    async def _remove(self, peer: Peer, reason: DelReason) -> PeerCounters:
        try:
            await self._supervisor.request(RemovePeer(peer.spec.peer_id))
        except EngineError as error:
            # It expired before the worker read the command: gone, as was wanted.
            if error.reason != "PEER_NOT_FOUND":
                raise
            if peer.final_words is not None:
                return peer_counters(peer.final_words)
        return self._gone(peer, reason)

    def _gone(self, peer: Peer, reason: DelReason) -> PeerCounters:
        counters = self._table.remove(peer)
        self._routes.gone(peer.spec)
        self._carrier.follow_soon()
        self._events.publish(
            self._device,
            lambda revision: PeerDeleted(
                revision, self._device, peer.spec.peer_id, reason, counters, peer.create_revision
            ),
        )
        return counters


def _check_families(spec: PeerSpec, bound: BoundSocket) -> None:
    """Raises EngineError ADDRESS_FAMILY_MISMATCH if the socket cannot send to the peer from its local address."""
    assert spec.remote is not None  # decoded so
    remote, local = spec.remote.address, spec.local_address
    if local is not None and local.version != remote.version:
        raise errors.address_family_mismatch(remote, local)
    # A socket of IPv6 carries IPv4 too, but only if it is bound to "::" and not told otherwise.
    is_dual_stack = bound.address.version == 6 and bound.address.is_unspecified and not bound.ipv6_only
    if remote.version != bound.address.version and not (remote.version == 4 and is_dual_stack):
        raise errors.address_family_mismatch(remote, bound.address)


def _changed(spec: PeerSpec, change: PeerChange) -> PeerSpec:
    fields = {field.name: getattr(change, field.name) for field in dataclasses.fields(change)}
    return dataclasses.replace(spec, **{name: value for name, value in fields.items() if value is not UNSET})


def _add_peer(peer: Peer, socket: Socket) -> AddPeer:
    spec = peer.spec
    is_stream = socket.bound.remote is not None
    return AddPeer(
        peer_id=spec.peer_id,
        uid=peer.uid,
        row=peer.row,
        socket_id=socket.socket_id,
        remote=None if is_stream or spec.remote is None else _message_endpoint(spec.remote),
        local=_packed(spec.local_address),
        vpn_ipv4=_packed(spec.vpn_ipv4),
        vpn_ipv6=_packed(spec.vpn_ipv6),
        keepalive_interval_s=spec.keepalive_interval_s,
        keepalive_timeout_s=spec.keepalive_timeout_s,
        tx_id=spec.tx_id,
        tcp_mss_ipv4=spec.tcp_mss_ipv4,
        tcp_mss_ipv6=spec.tcp_mss_ipv6,
    )


def _update_peer(wanted: PeerSpec, change: PeerChange, socket: Socket) -> UpdatePeer:
    unset = msgspec.UNSET
    stays = change.socket is UNSET
    return UpdatePeer(
        peer_id=wanted.peer_id,
        remote=unset if change.remote is UNSET else _message_endpoint(change.remote),
        # Else it would keep what it learned on the other socket.
        local=unset if change.local_address is UNSET and stays else _packed(wanted.local_address),
        vpn_ipv4=unset if change.vpn_ipv4 is UNSET else _packed(change.vpn_ipv4),
        vpn_ipv6=unset if change.vpn_ipv6 is UNSET else _packed(change.vpn_ipv6),
        keepalive_interval_s=unset if change.keepalive_interval_s is UNSET else change.keepalive_interval_s,
        keepalive_timeout_s=unset if change.keepalive_timeout_s is UNSET else change.keepalive_timeout_s,
        tx_id=unset if change.tx_id is UNSET else change.tx_id,
        tcp_mss_ipv4=unset if change.tcp_mss_ipv4 is UNSET else change.tcp_mss_ipv4,
        tcp_mss_ipv6=unset if change.tcp_mss_ipv6 is UNSET else change.tcp_mss_ipv6,
        socket_id=unset if stays else socket.socket_id,
    )


def _packed(address: IPAddress | None) -> bytes | None:
    return None if address is None else address.packed


def _message_endpoint(endpoint: Endpoint) -> messages.Endpoint:
    return messages.Endpoint(endpoint.address.packed, endpoint.port, endpoint.scope_id)


def _endpoint(endpoint: messages.Endpoint) -> Endpoint:
    address = ip_address(endpoint.address)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return Endpoint(address, endpoint.port, endpoint.scope_id)
