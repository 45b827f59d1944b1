"""Starts and ends worker processes.

Knows how a worker is executed. Must not know what is said to it. The launcher is a Protocol so that
tests can put a worker of their own in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from typing import Protocol

from dataplane.vocabulary import DatapathKind


class WorkerProcess(Protocol):
    """A worker that was started."""

    @property
    def pid(self) -> int:
        """Process id."""

    def kill(self) -> None:
        """SIGKILL; no error if it has ended."""

    async def wait(self) -> int:
        """Waits for its end, reaps it and gives the return code as subprocess does (-9: killed by signal 9)."""


class WorkerLauncher(Protocol):
    """Makes workers."""

    async def launch(self) -> tuple[WorkerProcess, socket.socket]:
        """Starts a worker; gives it and the daemon's end of its link. Raises OSError."""


class SubprocessLauncher:
    """Executes `python -m dataplane.worker`, never a fork of this process, which has imported grpc.

    datapath: which implementation carries its packets.
    """

    def __init__(self, datapath: DatapathKind = DatapathKind.PYTHON) -> None:
        self._datapath = datapath

    async def launch(self) -> tuple[WorkerProcess, socket.socket]:
        """See WorkerLauncher.

        Must run in the main thread: a worker dies with the thread that started it (PR_SET_PDEATHSIG).
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "dataplane.worker",
                    "--fd",
                    str(theirs.fileno()),
                    "--datapath",
                    self._datapath.value,
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C at a terminal is for the daemon, which ends its workers in order.
                    process_group=0,
                )
        except BaseException:
            ours.close()
            raise
        return _Subprocess(process), ours


class _Subprocess:
    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        return await self._process.wait()
