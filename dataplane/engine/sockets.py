"""The sockets of one device.

Knows their names, their numbers towards the worker and the daemon's descriptors of them, which each new
worker gets. Must not know what a peer is, beyond how many use a socket.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from dataplane.engine import errors
from dataplane.engine.control_outlet import check_outlet, check_stream
from dataplane.engine.resources import BoundSocket, Resources, closed_on_failure
from dataplane.engine.supervisor import Supervisor
from dataplane.engine.types import DeviceState, SocketSpec, SocketView
from dataplane.messages import AddSocket, RemoveSocket
from dataplane.vocabulary import SocketProtocol


@dataclass(slots=True, eq=False)
class Socket:
    """A socket. socket_id: its number towards the worker, never used again in the device's life.

    outlet_fd: where the worker sends what is not DATA_V2, None for nowhere. is_closed: its connection has ended.
    is_served: the worker has it.
    """

    name: str
    socket_id: int
    bound: BoundSocket
    adopted: bool
    outlet_fd: int | None
    is_closed: bool = False
    is_served: bool = True

    @property
    def fds(self) -> list[int]:
        """The descriptors, in the order of AddSocket."""
        return [self.bound.fd] if self.outlet_fd is None else [self.bound.fd, self.outlet_fd]

    def close(self) -> None:
        """Closes the descriptors."""
        for fd in self.fds:
            os.close(fd)


class Sockets:
    """All sockets of a device."""

    def __init__(
        self,
        device: str,
        limit: int,
        resources: Resources,
        supervisor: Supervisor,
        count_peers: Callable[[str], int],
    ) -> None:
        self._device = device
        self._limit = limit
        self._resources = resources
        self._supervisor = supervisor
        self._count_peers = count_peers
        self._by_name: dict[str, Socket] = {}
        self._last_id = 0

    def get(self, name: str) -> Socket:
        """The socket of this name. Raises EngineError SOCKET_NOT_FOUND."""
        socket = self._by_name.get(name)
        if socket is None:
            raise errors.socket_not_found(self._device, name)
        return socket

    def meant_by(self, socket_id: int) -> Socket | None:
        """The socket with this number; None if it is gone."""
        return next((socket for socket in self._by_name.values() if socket.socket_id == socket_id), None)

    def view(self, name: str) -> SocketView:
        """What is told of a socket. Raises EngineError SOCKET_NOT_FOUND."""
        socket = self.get(name)
        return SocketView(
            device=self._device,
            name=name,
            address=socket.bound.address,
            port=socket.bound.port,
            ipv6_only=socket.bound.ipv6_only,
            adopted=socket.adopted,
            peer_count=self._count_peers(name),
            has_control_outlet=socket.outlet_fd is not None,
            options=socket.bound.options,
            protocol=SocketProtocol.UDP if socket.bound.remote is None else SocketProtocol.TCP,
            remote=socket.bound.remote,
        )

    def views(self) -> list[SocketView]:
        """All of them, by name."""
        return [self.view(name) for name in sorted(self._by_name)]

    async def create(self, spec: SocketSpec) -> SocketView:
        """Makes a socket and hands it to the worker."""
        async with self._supervisor.exclusive():
            self._check_new(spec.name)
            bound = await asyncio.to_thread(self._resources.bind_udp, spec)
            with closed_on_failure(bound.fd):
                await self._hand_over(spec.name, bound, adopted=False)
            return self.view(spec.name)

    async def adopt(self, name: str, fd: int, outlet_fd: int | None, *, copy_dscp: bool) -> SocketView:
        """Hands a given socket, and its control outlet, to the worker. Takes ownership of both in every case.

        copy_dscp: without effect on a TCP socket, whose stream has one TOS.
        """
        with all_closed_on_failure(fd, outlet_fd):
            async with self._supervisor.exclusive():
                self._check_new(name)
                bound = await asyncio.to_thread(self._resources.adopt_socket, fd)
                if bound.remote is not None:
                    check_stream(outlet_fd)
                else:
                    bound = replace(bound, options=replace(bound.options, copy_dscp=copy_dscp))
                    if outlet_fd is not None:
                        check_outlet(outlet_fd)
                await self._hand_over(name, bound, adopted=True, outlet_fd=outlet_fd)
                return self.view(name)

    async def remove(self, socket: Socket) -> None:
        """Closes a socket that has no peers any more, here and in the worker. To be called inside exclusive()."""
        if self._supervisor.state is not DeviceState.FAILED and socket.is_served:
            await self._supervisor.request(RemoveSocket(socket.socket_id))
        del self._by_name[socket.name]
        socket.close()

    def streams(self) -> list[Socket]:
        """The TCP sockets."""
        return [socket for socket in self._by_name.values() if socket.bound.remote is not None]

    async def hand_all_over(self) -> None:
        """Gives the sockets to a new worker, but for connections, which have ended with the one before."""
        for socket in self._by_name.values():
            if socket.is_served:
                await self._supervisor.request(_add_socket(socket), *socket.fds)

    def close(self) -> None:
        """Closes the daemon's descriptors; the worker has ended."""
        for socket in self._by_name.values():
            socket.close()
        self._by_name.clear()

    def _check_new(self, name: str) -> None:
        if name in self._by_name:
            raise errors.socket_exists(self._device, name)
        if len(self._by_name) >= self._limit:
            raise errors.socket_limit(self._device, self._limit)

    async def _hand_over(self, name: str, bound: BoundSocket, *, adopted: bool, outlet_fd: int | None = None) -> None:
        self._last_id += 1
        socket = Socket(name, self._last_id, bound, adopted, outlet_fd)
        await self._supervisor.request(_add_socket(socket), *socket.fds)
        self._by_name[name] = socket


def _add_socket(socket: Socket) -> AddSocket:
    return AddSocket(socket.socket_id, socket.bound.options.copy_dscp)


@contextmanager
def all_closed_on_failure(*fds: int | None) -> Iterator[None]:
    """Closes the descriptors that there are if the block fails."""
    with ExitStack() as stack:
        for fd in fds:
            if fd is not None:
                stack.enter_context(closed_on_failure(fd))
        yield
