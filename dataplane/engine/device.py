"""One device: its TUN, its statistics page, its worker, and what is on it.

Knows how the parts are put together, given to each new worker and taken apart. Must not know other devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Callable

from dataplane.engine.carrier import Carrier
from dataplane.engine.counters import drop_counters
from dataplane.engine.kernel_routes import KernelRoutes
from dataplane.engine.key_history import KeyHistory
from dataplane.engine.keys import Keys
from dataplane.engine.limits import Limits
from dataplane.engine.peer_table import PeerTable
from dataplane.engine.peers import Peers
from dataplane.engine.resources import Resources, Tun
from dataplane.engine.routes import Routes
from dataplane.engine.sockets import Sockets
from dataplane.engine.supervisor import Supervisor
from dataplane.engine.tasks import Tasks
from dataplane.engine.types import (
    DeviceChange,
    DeviceSpec,
    DeviceState,
    DeviceView,
    EngineError,
    WorkerRestarted,
)
from dataplane.engine.watch import EventLog
from dataplane.engine.worker_link import WorkerEvent
from dataplane.engine.worker_process import WorkerLauncher
from dataplane.messages import (
    Command,
    Configure,
    DeviceClosed,
    KeyExhausted,
    KeyLimitNear,
    PeerExpired,
    PeerFloatAsked,
    PeerFloated,
    SetFloatPolicy,
    SetSwitches,
    SetTcpMss,
    TransportClosed,
)
from dataplane.statistics_page import DEVICE_ROW, StatisticsPage
from dataplane.vocabulary import DelReason, FloatPolicy


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What all devices share."""

    limits: Limits
    launcher: WorkerLauncher
    resources: Resources
    events: EventLog
    key_history: KeyHistory
    tasks: Tasks
    command_timeout_s: float


class Device:
    """A device. start() it, then delete() it. on_interface_gone: called when somebody deleted the interface."""

    def __init__(
        self, spec: DeviceSpec, tun: Tun, shared: Surroundings, on_interface_gone: Callable[[Device], None]
    ) -> None:
        self.name = spec.name
        self._spec = dataclasses.replace(spec, interface_name=tun.interface_name, mtu=tun.mtu)
        self._tun = tun
        self._resources = shared.resources
        self._events = shared.events
        self._on_interface_gone = on_interface_gone

        rows = shared.limits.max_peers_per_device + 1
        self._page_fd = StatisticsPage.create_memfd(rows)
        self._page = StatisticsPage(self._page_fd, rows)

        self._supervisor = Supervisor(spec.name, self, shared.launcher, shared.tasks, shared.command_timeout_s)
        self.table = PeerTable(spec.name, self._page)
        self.sockets = Sockets(
            spec.name,
            shared.limits.max_sockets_per_device,
            shared.resources,
            self._supervisor,
            self.table.count_of_socket,
        )
        self._routes = Routes(spec, self.table, self._supervisor, shared.tasks)
        self._kernel_routes = KernelRoutes(tun, shared.resources, self._routes)
        self._carrier = Carrier(spec, tun, self.table, shared.resources, shared.tasks)
        self.peers = Peers(spec, self.table, self.sockets, self._supervisor, shared.events, self._routes, self._carrier)
        self.keys = Keys(spec.name, self.table, self._supervisor, shared.events, shared.key_history)

    async def start(self) -> None:
        """Starts the worker. Raises EngineError; the TUN then stays open and is the caller's again."""
        try:
            await self._carrier.follow()
            await self._kernel_routes.switch(self._spec)
            await self._supervisor.start()
        except BaseException:
            self._kernel_routes.close()
            self._close_page()
            raise

    async def delete(self) -> None:
        """Ends the worker, reports the peers and closes everything. Raises EngineError DEVICE_NOT_FOUND."""
        async with self._supervisor.ending():
            await self.peers.lost(DelReason.TEARDOWN)
            await self._carrier.close()
            self._kernel_routes.close()
            self.sockets.close()
            # The kernel takes its time to unregister an interface.
            await asyncio.to_thread(os.close, self._tun.fd)
            self._close_page()

    def view(self) -> DeviceView:
        """What is told of it."""
        return DeviceView(
            name=self._spec.name,
            interface_name=self._spec.interface_name,
            mode=self._spec.mode,
            mtu=self._spec.mtu,
            addresses=self._spec.addresses,
            admin_up=self._spec.admin_up,
            network_namespace=self._spec.network_namespace,
            state=self._supervisor.state,
            peer_count=len(self.table),
            drops=drop_counters(self._page.snapshot(DEVICE_ROW)),
            worker_pid=self._supervisor.worker_pid,
            skip_source_check=self._spec.skip_source_check,
            client_to_client=self._spec.client_to_client,
            forward_multicast=self._spec.forward_multicast,
            follow_kernel_routes=self._spec.follow_kernel_routes,
            tcp_mss_ipv4=self._spec.tcp_mss_ipv4,
            tcp_mss_ipv6=self._spec.tcp_mss_ipv6,
            float_policy=self._spec.float_policy,
        )

    async def update(self, change: DeviceChange) -> DeviceView:
        """Changes settings; a worker that is being started is told them when it is configured."""
        async with self._supervisor.exclusive(needs_worker=False):
            fields = {field.name: getattr(change, field.name) for field in dataclasses.fields(change)}
            given = {name: value for name, value in fields.items() if value is not None}
            wanted = dataclasses.replace(self._spec, **given)
            await self._kernel_routes.switch(wanted)
            try:
                if change.concerns_link:
                    await asyncio.to_thread(self._resources.change_link, self._tun.fd, self._completed(change))
                await self._tell(wanted)
            except EngineError:
                await self._kernel_routes.switch(self._spec)
                raise
            self._spec = wanted
            self._routes.switch(wanted)
            with contextlib.suppress(EngineError):
                await self._routes.settle()
            return self.view()

    async def delete_socket(self, name: str) -> None:
        """Removes a socket's peers, then the socket."""
        # Where the worker has failed for good there are no peers, and nobody to tell.
        has_worker = self._supervisor.state is not DeviceState.FAILED
        async with self._supervisor.exclusive(needs_worker=has_worker):
            socket = self.sockets.get(name)
            await self.peers.remove_of_socket(name)
            await self.sockets.remove(socket)

    async def configure_worker(self) -> None:
        """See WorkerOwner."""
        spec = self._spec
        command = Configure(spec.name, spec.mode, self._page.rows, spec.skip_source_check, spec.client_to_client)
        await self._supervisor.request(command, self._tun.fd, self._page_fd)
        if spec.tcp_mss_ipv4 or spec.tcp_mss_ipv6:
            await self._supervisor.request(SetTcpMss(spec.tcp_mss_ipv4, spec.tcp_mss_ipv6))
        if spec.float_policy is not FloatPolicy.ALLOW:
            await self._supervisor.request(SetFloatPolicy(spec.float_policy))
        await self.sockets.hand_all_over()
        await self._routes.renew()

    async def worker_lost(self) -> None:
        """See WorkerOwner."""
        await self.peers.lost(DelReason.TRANSPORT_ERROR)
        self.peers.streams_lost()

    def worker_restarted(self, pid: int) -> None:
        """See WorkerOwner."""
        self._events.publish(self._spec.name, lambda revision: WorkerRestarted(revision, self._spec.name, pid))

    def worker_event(self, event: WorkerEvent) -> None:
        """See WorkerOwner. Raises ValueError for what cannot be."""
        match event:
            case PeerExpired():
                self.peers.expired(event)
            case PeerFloated():
                self.peers.floated(event)
            case PeerFloatAsked():
                self.peers.float_asked(event)
            case KeyExhausted():
                self.keys.exhausted(event)
            case KeyLimitNear():
                self.keys.limit_near(event)
            case TransportClosed():
                self.peers.stream_ended(event)
            case DeviceClosed():
                self._on_interface_gone(self)

    async def _tell(self, wanted: DeviceSpec) -> None:
        if self._supervisor.state is not DeviceState.READY:
            return
        try:
            for before, after in zip(_commands(self._spec), _commands(wanted), strict=True):
                if after != before:
                    await self._supervisor.request(after)
        except EngineError as error:
            # A new worker is told when it is configured, which waits for this change.
            if error.reason != "WORKER_RESTARTING":
                raise

    def _completed(self, change: DeviceChange) -> DeviceChange:
        # Linux forgets the IPv6 addresses of an interface that goes down.
        if change.admin_up and not self._spec.admin_up and change.addresses is None and self._spec.addresses:
            return dataclasses.replace(change, addresses=self._spec.addresses)
        return change

    def _close_page(self) -> None:
        self._page.close()
        os.close(self._page_fd)


def _commands(spec: DeviceSpec) -> tuple[Command, ...]:
    """What tells a worker those settings that may change."""
    return (
        SetSwitches(spec.skip_source_check, spec.client_to_client),
        SetTcpMss(spec.tcp_mss_ipv4, spec.tcp_mss_ipv6),
        SetFloatPolicy(spec.float_policy),
    )
