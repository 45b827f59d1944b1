"""The carrier of a P2P device's interface, which is on while there is a peer, as driver `ovpn` has it.

Knows when to switch it, and that Linux may refuse (before 5.0 it cannot). Must not know how peers come and go. The
engine does this, not the worker: other users of rtnetlink may hold the call up, and a dead worker's peers are gone.
"""

from __future__ import annotations

import asyncio

import structlog

from dataplane.engine.peer_table import PeerTable
from dataplane.engine.resources import Resources, Tun
from dataplane.engine.tasks import Tasks
from dataplane.engine.types import DeviceSpec, EngineError
from dataplane.vocabulary import Mode


class Carrier:
    """The carrier of one device. That of an MP device is left alone."""

    def __init__(self, device: DeviceSpec, tun: Tun, table: PeerTable, resources: Resources, tasks: Tasks) -> None:
        self._tun = tun
        self._table = table
        self._resources = resources
        self._tasks = tasks
        self._lock = asyncio.Lock()
        self._is_followed = device.mode is Mode.P2P

    async def follow(self) -> None:
        """Brings the carrier in step with the table. What Linux refuses is logged once, and not tried again."""
        async with self._lock:
            if not self._is_followed:
                return
            try:
                await asyncio.to_thread(self._resources.set_carrier, self._tun.fd, on=len(self._table) > 0)
            except EngineError as error:
                self._is_followed = False
                if error.reason != "NOT_A_TUN":  # the interface was deleted: its device soon is
                    interface = self._tun.interface_name
                    structlog.get_logger().warning("carrier_not_set", interface=interface, error=str(error))

    def follow_soon(self) -> None:
        """As follow(), in the background."""
        if self._is_followed:
            self._tasks.start(self.follow())

    async def close(self) -> None:
        """As follow(), for the last time: at its return the descriptor may be closed."""
        await self.follow()
        self._is_followed = False
