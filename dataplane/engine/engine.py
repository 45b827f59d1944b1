"""The engine: the truth about configuration, and the only door to it.

Knows which devices there are. Must not know protobuf, gRPC or packets. Calls that change something run to
their end even if the caller is cancelled; calls that only read are plain functions. All methods are to
be called in the event loop's thread; all raise EngineError with the reasons of proto/ovpn/dataplane/v1.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Final

import structlog

from dataplane.engine import errors
from dataplane.engine.device import Device, Surroundings
from dataplane.engine.key_history import KeyHistory
from dataplane.engine.limits import DEFAULT_LIMITS, Limits
from dataplane.engine.resources import LinuxResources, Resources, Tun, closed_on_failure
from dataplane.engine.sockets import all_closed_on_failure
from dataplane.engine.tasks import Tasks
from dataplane.engine.types import (
    DeviceChange,
    DeviceCreated,
    DeviceDeleted,
    DeviceSpec,
    DeviceView,
    EngineError,
    KeySpec,
    KeyView,
    PeerChange,
    PeerCounters,
    PeerSpec,
    PeerView,
    SocketSpec,
    SocketView,
)
from dataplane.engine.watch import EventLog, Watch
from dataplane.engine.worker_process import SubprocessLauncher, WorkerLauncher
from dataplane.vocabulary import KeySlot

COMMAND_TIMEOUT_S: Final = 10.0
"""A worker that has not answered a command for so long counts as dead."""


class Engine:
    """All devices. To be used in one event loop, and closed there.

    instance_id: random; whoever sees another one knows that everything of before is gone.
    """

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        worker_launcher: WorkerLauncher | None = None,
        resources: Resources | None = None,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        self.instance_id = str(uuid.uuid4())
        self.limits = limits
        self._events = EventLog()
        self._tasks = Tasks()
        self._shared = Surroundings(
            limits=limits,
            launcher=worker_launcher or SubprocessLauncher(),
            resources=resources or LinuxResources(),
            events=self._events,
            key_history=KeyHistory(),
            tasks=self._tasks,
            command_timeout_s=command_timeout_s,
        )
        self._devices: dict[str, Device] = {}
        self._names_being_made: set[str] = set()
        self._closing = False
        self._log = structlog.get_logger()

    @property
    def revision(self) -> int:
        """Revision of the last event, 0 before the first."""
        return self._events.revision

    def watch(self, device: str = "") -> Watch:
        """Snapshot and changes of one device or, with "", of all."""
        return Watch(device, self._events, self)

    async def close(self) -> None:
        """Deletes all devices, ends the workers, then the watches."""
        self._closing = True
        await self._delete_all()
        await self._tasks.join()
        await self._delete_all()  # those that were being made
        self._events.close()

    # Devices

    async def create_device(self, spec: DeviceSpec, *, tun_fd: int | None = None) -> DeviceView:
        """Creates a device on a TUN of its own or, ignoring spec.interface_name, on the given one.

        Takes ownership of `tun_fd` in every case.
        """
        if tun_fd is None:
            return await self._tasks.shield(self._create_device(spec))
        return await self._tasks.shield(self._create_device_on(spec, tun_fd))

    def get_device(self, name: str) -> DeviceView:
        """One device."""
        return self._device(name).view()

    def list_devices(self) -> list[DeviceView]:
        """All devices, by name."""
        return [self._devices[name].view() for name in sorted(self._devices)]

    async def update_device(self, name: str, change: DeviceChange) -> DeviceView:
        """Changes settings of the interface; works while the worker is being restarted, too."""
        return await self._tasks.shield(self._device(name).update(change))

    async def delete_device(self, name: str) -> None:
        """Deletes a device; at the return its interface (unless others hold it) and sockets are closed."""
        await self._tasks.shield(self._delete(self._device(name)))

    # Sockets

    async def create_socket(self, spec: SocketSpec) -> SocketView:
        """Makes and binds a socket."""
        return await self._tasks.shield(self._device(spec.device).sockets.create(spec))

    async def adopt_socket(
        self, device: str, name: str, fd: int, outlet_fd: int | None = None, *, copy_dscp: bool = False
    ) -> SocketView:
        """Takes over a socket, and its control outlet. Takes ownership of both in every case."""
        with all_closed_on_failure(fd, outlet_fd):
            sockets = self._device(device).sockets
        return await self._tasks.shield(sockets.adopt(name, fd, outlet_fd, copy_dscp=copy_dscp))

    def get_socket(self, device: str, name: str) -> SocketView:
        """One socket."""
        return self._device(device).sockets.view(name)

    def list_sockets(self, device: str) -> list[SocketView]:
        """The sockets of a device, by name."""
        return self._device(device).sockets.views()

    async def delete_socket(self, device: str, name: str) -> None:
        """Removes the socket's peers (TRANSPORT_DISCONNECT) and closes it, here and in the worker."""
        await self._tasks.shield(self._device(device).delete_socket(name))

    # Peers

    async def create_peer(self, spec: PeerSpec) -> PeerView:
        """Adds a peer; on a P2P device the one that is there goes first (TEARDOWN)."""
        return await self._tasks.shield(self._device(spec.device).peers.create(spec))

    def get_peer(self, device: str, peer_id: int) -> PeerView:
        """One peer."""
        return self._device(device).table.get(peer_id).view()

    def list_peers(self, device: str, *, after: int = -1, limit: int | None = None) -> list[PeerView]:
        """Peers with a peer_id greater than `after`, by peer_id, `limit` at most."""
        return [peer.view() for peer in self._device(device).table.page(after, limit)]

    def peer_views(self, device: str) -> Iterable[PeerView]:
        """The peers that there are now, by peer_id; each view is made when it is asked for."""
        return (peer.view() for peer in self._device(device).table)

    async def update_peer(self, device: str, peer_id: int, change: PeerChange) -> PeerView:
        """Changes a peer in place."""
        return await self._tasks.shield(self._device(device).peers.update(peer_id, change))

    async def delete_peer(self, device: str, peer_id: int) -> PeerCounters:
        """Removes a peer (USERSPACE); gives its final counters."""
        return await self._tasks.shield(self._device(device).peers.delete(peer_id))

    # Keys

    async def install_key(self, spec: KeySpec) -> KeyView:
        """Fills a key slot; what is there is replaced."""
        return await self._tasks.shield(self._device(spec.device).keys.install(spec))

    def get_key(self, device: str, peer_id: int, slot: KeySlot) -> KeyView:
        """What is in a key slot."""
        return self._device(device).keys.view(peer_id, slot)

    async def swap_keys(self, device: str, peer_id: int) -> None:
        """Exchanges the key slots."""
        await self._tasks.shield(self._device(device).keys.swap(peer_id))

    async def delete_key(self, device: str, peer_id: int, slot: KeySlot, linger_ns: int = 0) -> None:
        """Empties a key slot, if it is not empty. linger_ns: as in messages.DeleteKey."""
        await self._tasks.shield(self._device(device).keys.delete(peer_id, slot, linger_ns))

    def _device(self, name: str) -> Device:
        device = self._devices.get(name)
        if device is None:
            raise errors.device_not_found(name)
        return device

    @contextlib.contextmanager
    def _name_taken(self, name: str) -> Iterator[None]:
        """Keeps a name, and a place under the limit, while its device is being made."""
        if self._closing:
            raise errors.shutting_down()
        if name in self._devices or name in self._names_being_made:
            raise errors.device_exists(name)
        if len(self._devices) + len(self._names_being_made) >= self.limits.max_devices:
            raise errors.device_limit(self.limits.max_devices)
        self._names_being_made.add(name)
        try:
            yield
        finally:
            self._names_being_made.discard(name)

    async def _create_device(self, spec: DeviceSpec) -> DeviceView:
        with self._name_taken(spec.name):
            tun = await asyncio.to_thread(self._shared.resources.make_tun, spec)
            with closed_on_failure(tun.fd):
                return await self._start_device(spec, tun)

    async def _create_device_on(self, spec: DeviceSpec, tun_fd: int) -> DeviceView:
        with closed_on_failure(tun_fd), self._name_taken(spec.name):
            tun = await asyncio.to_thread(self._shared.resources.adopt_tun, tun_fd, spec.mtu)
            return await self._start_device(spec, tun)

    async def _start_device(self, spec: DeviceSpec, tun: Tun) -> DeviceView:
        device = Device(spec, tun, self._shared, self._interface_gone)
        await device.start()
        self._devices[spec.name] = device
        view = device.view()
        self._events.publish(spec.name, lambda revision: DeviceCreated(revision, view))
        self._log.info("device_created", device=spec.name, interface=tun.interface_name, mode=spec.mode.name)
        return view

    def _interface_gone(self, device: Device) -> None:
        self._log.warning("interface_gone", device=device.name)
        self._tasks.start(self._delete_if_there(device))

    async def _delete(self, device: Device) -> None:
        await device.delete()
        del self._devices[device.name]
        self._events.publish(device.name, lambda revision: DeviceDeleted(revision, device.name))
        self._log.info("device_deleted", device=device.name)

    async def _delete_if_there(self, device: Device) -> None:
        with contextlib.suppress(EngineError):
            await self._delete(device)

    async def _delete_all(self) -> None:
        await asyncio.gather(*map(self._delete_if_there, self._devices.values()))
