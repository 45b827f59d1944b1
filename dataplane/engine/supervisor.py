"""Keeps a worker running for one device, and lets one change of the device happen at a time.

Knows when a worker is dead (its link closed, it did not answer, it does not start) and how often that may
happen. Must not know what the device consists of: its owner configures each new worker and takes the losses.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog

from dataplane.engine import errors
from dataplane.engine.tasks import Tasks
from dataplane.engine.types import DeviceState, EngineError
from dataplane.engine.worker_link import LinkClosed, WorkerEvent, WorkerLink
from dataplane.engine.worker_process import WorkerLauncher, WorkerProcess
from dataplane.messages import Command, Stop

DEATHS_MAX: Final = 5
DEATHS_WINDOW_S: Final = 60.0
"""After so many deaths of a device's workers within so many seconds no new one is started."""


class WorkerOwner(Protocol):
    """What a supervisor needs of the device."""

    async def configure_worker(self) -> None:
        """Tells a new worker, by request(), what the device has. Raises EngineError."""

    async def worker_lost(self) -> None:
        """The worker is dead and writes to the statistics page no more; its peers are gone."""

    def worker_restarted(self, pid: int) -> None:
        """A new worker runs and is configured."""

    def worker_event(self, event: WorkerEvent) -> None:
        """The worker said something unasked."""


class Supervisor:
    """The worker of one device.

    Commands are sent by request(), inside exclusive(). A worker's death makes the state RESTARTING at
    once; what follows waits for the change that was under way.
    """

    def __init__(
        self, device: str, owner: WorkerOwner, launcher: WorkerLauncher, tasks: Tasks, command_timeout_s: float
    ) -> None:
        self.state = DeviceState.RESTARTING
        self._device = device
        self._owner = owner
        self._launcher = launcher
        self._tasks = tasks
        self._command_timeout_s = command_timeout_s
        self._lock = asyncio.Lock()
        self._ending = False
        self._process: WorkerProcess | None = None
        self._link: WorkerLink | None = None
        self._deaths: deque[float] = deque(maxlen=DEATHS_MAX)
        self._log = structlog.get_logger(device=device)

    @property
    def worker_pid(self) -> int:
        """Process id of the worker, 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    @asynccontextmanager
    async def exclusive(self, *, needs_worker: bool = True) -> AsyncIterator[None]:
        """The right to change the device.

        Raises EngineError: DEVICE_NOT_FOUND when it is being deleted; where a worker is needed,
        WORKER_RESTARTING and WORKER_FAILED.
        """
        self._admit(needs_worker)
        async with self._lock:
            self._admit(needs_worker)  # things may have changed while waiting
            yield

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """The last change: stops the worker, for good. Raises EngineError DEVICE_NOT_FOUND the second time."""
        is_first = not self._ending
        self._ending = True
        async with self._lock:
            if not is_first:
                raise errors.device_not_found(self._device)
            await self._stop()
            yield

    async def start(self) -> None:
        """Starts the first worker. Raises EngineError WORKER_FAILED if it does not come up; there is no second try."""
        try:
            await self._launch()
        except EngineError as error:
            self._ending = True
            await self._reap()
            raise errors.worker_failed(self._device, str(error)) from error
        self.state = DeviceState.READY
        self._log.info("worker_started", pid=self.worker_pid)

    async def request(self, command: Command, *fds: int) -> None:
        """Has the worker carry out a command, with copies of `fds`.

        Raises EngineError: as the worker refused, or WORKER_RESTARTING if it died meanwhile. One that
        does not answer in time counts as dead.
        """
        link = self._link
        if link is None:
            raise errors.worker_restarting(self._device)
        try:
            async with asyncio.timeout(self._command_timeout_s):
                reply = await link.request(command, fds)
        except TimeoutError:
            self._log.warning("worker_silent", pid=self.worker_pid, command=type(command).__name__)
            link.lose()
            raise errors.worker_restarting(self._device) from None
        except LinkClosed:
            raise errors.worker_restarting(self._device) from None
        if reply.error:
            raise errors.worker_refused(self._device, reply)

    def _admit(self, needs_worker: bool) -> None:
        if self._ending:
            raise errors.device_not_found(self._device)
        if needs_worker and self.state is DeviceState.RESTARTING:
            raise errors.worker_restarting(self._device)
        if needs_worker and self.state is DeviceState.FAILED:
            raise errors.worker_failed(self._device, f"{DEATHS_MAX} deaths within {DEATHS_WINDOW_S:.0f} s")

    async def _launch(self) -> None:
        try:
            self._process, sock = await self._launcher.launch()
        except OSError as error:
            raise errors.worker_failed(self._device, str(error)) from error
        link = self._link = WorkerLink(sock, self._owner.worker_event, self._lost)
        await self._owner.configure_worker()
        if link.closed:
            raise errors.worker_restarting(self._device)

    def _lost(self) -> None:
        # Before READY and while ending, whoever starts or stops the worker sees to it.
        if self.state is DeviceState.READY and not self._ending:
            self.state = DeviceState.RESTARTING
            self._tasks.start(self._restart())

    async def _restart(self) -> None:
        await self._reap()
        async with self._lock:
            if self._ending:
                return
            await self._owner.worker_lost()
            while not self._ending:
                if self._dies_too_often():
                    self.state = DeviceState.FAILED
                    self._log.error("worker_failed", deaths=DEATHS_MAX, seconds=DEATHS_WINDOW_S)
                    return
                try:
                    await self._launch()
                except EngineError as error:
                    self._log.warning("worker_not_restarted", error=str(error))
                    await self._reap()
                    continue
                self.state = DeviceState.READY
                self._log.info("worker_restarted", pid=self.worker_pid)
                self._owner.worker_restarted(self.worker_pid)
                return

    def _dies_too_often(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._deaths.append(now)
        return len(self._deaths) == DEATHS_MAX and now - self._deaths[0] <= DEATHS_WINDOW_S

    async def _stop(self) -> None:
        if self._link is not None and self._process is not None:
            try:
                await self.request(Stop())
                async with asyncio.timeout(self._command_timeout_s):
                    await self._process.wait()
            except (EngineError, TimeoutError):
                self._log.warning("worker_not_stopped", pid=self.worker_pid)
        await self._reap()

    async def _reap(self) -> None:
        """Makes sure that the worker, if any, has ended."""
        link, process = self._link, self._process
        self._link = None
        if link is not None:
            link.close()
        if process is not None:
            process.kill()
            returncode = await process.wait()
            if not self._ending:
                self._log.warning("worker_died", pid=process.pid, returncode=returncode)
            self._process = None
