"""The shim with a fake session, programs to run under it, and a broom."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from controlplane_shim.supervisor import processes

HERE = Path(__file__).parent
WAIT_SECONDS = 100.0


class Shim:
    """Starts programs under fake_shim.py. Every process that comes of it carries a mark in its environment."""

    def __init__(self) -> None:
        self.mark = f"SHIM_TEST={uuid4()}"

    def start(self, *program: str, **options: Any) -> subprocess.Popen[str]:
        name, _, value = self.mark.partition("=")
        environment = {**os.environ, name: value, **options.pop("env", {})}
        command = [sys.executable, str(HERE / "fake_shim.py"), *program]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=environment, **{**streams, **options})

    def run(self, *program: str, text: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(*program, **options)
        out, err = process.communicate(text, timeout=WAIT_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def python(self, code: str) -> list[str]:
        """The command line of a Python program with netlink_client.py before it."""
        return [sys.executable, "-c", (HERE / "netlink_client.py").read_text() + code]

    def output(self, code: str) -> list[str]:
        """What a Python program that must succeed says under the shim, in words."""
        done = self.run(*self.python(code))
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def processes(self) -> list[int]:
        """All living processes that came of this."""
        return [process for process in _all_processes() if self.mark.encode() in _environment(process)]

    def sweep(self) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def shim() -> Iterator[Shim]:
    made = Shim()
    yield made
    made.sweep()


class Watch:
    """Waits for the death of a process that is nobody's child here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def is_dead(self, within_seconds: float = WAIT_SECONDS) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(within_seconds * 1000))

    def close(self) -> None:
        os.close(self._pidfd)


@pytest.fixture
def watch() -> Iterator[type[Watch]]:
    made: list[Watch] = []

    class Kept(Watch):
        def __init__(self, pid: int) -> None:
            super().__init__(pid)
            made.append(self)

    yield Kept
    for one in made:
        one.close()


def supervisor_of(front: int) -> int:
    """The only child of a front whose program is in the foreground."""
    (child,) = processes.children_of(front)
    return child.pid


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _environment(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []
