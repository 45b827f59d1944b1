"""Devices that live no longer than the hand-off connection that gave their TUN.

Knows which device hangs on which connection. Must not know sockets or gRPC. A client that is killed
cannot delete what it made; the kernel closes its connection, and that is the sign.
"""

from __future__ import annotations

import contextlib
import os

import structlog

from dataplane.api.handoff_vault import HandedOver, HandoffVault, token_unknown
from dataplane.engine.engine import Engine
from dataplane.engine.tasks import Tasks
from dataplane.engine.types import DeviceSpec, DeviceView, EngineError


class Leases:
    """Leased devices, each on one connection."""

    def __init__(self, engine: Engine, vault: HandoffVault) -> None:
        self._engine = engine
        self._vault = vault
        self._connection_of: dict[str, int] = {}
        self._tasks = Tasks()
        self._log = structlog.get_logger()

    async def create_device(self, spec: DeviceSpec, handed: HandedOver) -> DeviceView:
        """Creates a device on the descriptor, which is deleted when the descriptor's connection closes.

        Runs to its end even if the caller is cancelled: a killed client's call is, and then the device
        must not be there without its lease. Raises as Engine.create_device, and HANDOFF_TOKEN_UNKNOWN if
        the connection is closed before the device is there.
        """
        return await self._tasks.shield(self._create_device(spec, handed))

    def forget(self, device: str) -> None:
        """The device is being deleted, or is another one than before."""
        self._connection_of.pop(device, None)

    def connection_closed(self, connection: int) -> None:
        """Deletes the devices of a connection, in the background."""
        for device in [name for name, its_connection in self._connection_of.items() if its_connection == connection]:
            self.forget(device)
            self._log.info("lease_ended", device=device)
            self._tasks.start(self._delete_device(device))

    async def join(self) -> None:
        """Waits until what was begun is done."""
        await self._tasks.join()

    async def _create_device(self, spec: DeviceSpec, handed: HandedOver) -> DeviceView:
        if not self._vault.is_open(handed.connection):
            os.close(handed.fd)
            raise token_unknown()
        view = await self._engine.create_device(spec, tun_fd=handed.fd)
        self._connection_of[view.name] = handed.connection
        if not self._vault.is_open(handed.connection):
            self.forget(view.name)
            await self._delete_device(view.name)
            raise token_unknown()
        return view

    async def _delete_device(self, device: str) -> None:
        # It may be gone already, by a call or because its interface was deleted.
        with contextlib.suppress(EngineError):
            await self._engine.delete_device(device)
