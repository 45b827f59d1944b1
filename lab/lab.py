"""Owner of all that the laboratory makes. Knows the order in which it must go; must not know programs.

Whatever ends the run (the end of the `with` block, an error, SIGINT, SIGTERM, SIGHUP, the interpreter's exit), the
processes are ended by pid, youngest first, and the namespaces removed with every device in them.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.interrupts import uninterrupted
from lab.netns import Link, Namespace
from lab.processes import Process, command_line
from lab.waiting import wait_until

MARK: Final = "OVPN_LAB"
"""Environment variable with the lab's name in every process started here, and so in their children too."""

GRACE_SECONDS: Final = 3
"""How long a process may outlive the one that started it before it counts as left behind."""


class Lab:
    """Namespaces `ovpn-<random>-<label>`, links between them, processes in them; logs go to `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.strays: list[str] = []
        """Command lines of processes that were still there after those that started them had been stopped."""
        self.name = f"ovpn-{secrets.token_hex(3)}"
        self.sockets = socket_directory(self.name)
        """A directory with a path short enough for Unix sockets (107 bytes)."""
        self._namespaces: list[Namespace] = []
        self._links: list[Link] = []
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        atexit.register(self.close)
        self.sockets.mkdir(mode=0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def namespace(self, label: str) -> Namespace:
        """A new namespace."""
        namespace = Namespace(f"{self.name}-{label}")
        with uninterrupted():
            self._namespaces.append(namespace)
            namespace.create()
        return namespace

    def link(self, a: Namespace, b: Namespace) -> Link:
        """A new veth pair between two namespaces, with the next free number."""
        link = Link(len(self._links) + 1, a, b)
        self._links.append(link)
        link.create()
        return link

    def start(self, namespace: Namespace, argv: list[str], label: str) -> Process:
        """Starts a program in a namespace; its output goes to `<label>.log`."""
        with uninterrupted():
            process = Process(namespace.command(argv), self.directory / f"{label}.log", {MARK: self.name})
            self._processes.append(process)
        return process

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Stops what is started in the block when that ends, youngest first; namespaces that it makes stay."""
        before = len(self._processes)
        try:
            yield
        finally:
            with uninterrupted():
                self._stop_youngest(before)

    def run(self, namespace: Namespace, argv: list[str], timeout_seconds: float = 60) -> str:
        """Runs a program in a namespace to its end and returns its output.

        Raises subprocess.CalledProcessError, or subprocess.TimeoutExpired after killing it.
        """
        done = subprocess.run(
            namespace.command(argv), check=True, capture_output=True, text=True, timeout=timeout_seconds
        )
        return done.stdout

    def pids(self) -> set[int]:
        """All processes in the lab's namespaces, whoever started them."""
        return {pid for namespace in self._namespaces for pid in namespace.pids()}

    def close(self) -> None:
        """Ends and removes everything. Repeatable; signals wait until it is done."""
        with uninterrupted():
            atexit.unregister(self.close)
            self._stop_youngest(0)
            while self._namespaces:
                self._end_strays(self._namespaces[-1])
                self._namespaces[-1].delete()
                self._namespaces.pop()
            shutil.rmtree(self.sockets, ignore_errors=True)

    def _stop_youngest(self, spared: int) -> None:
        """Stops all but the first so many processes."""
        while len(self._processes) > spared:
            self._processes[-1].stop()
            self._processes.pop()

    def _end_strays(self, namespace: Namespace) -> None:
        with suppress(RuntimeError):  # a namespace whose creation was cut short cannot be asked
            with suppress(TimeoutError):
                wait_until(lambda: not namespace.pids(), "no process", timeout_seconds=GRACE_SECONDS)
            for pid in namespace.pids():
                self.strays.append(f"{pid} {command_line(pid)}")
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not namespace.pids(), "no process")


OpenLab = Callable[[], AbstractContextManager[Lab]]
"""Opens a lab for the length of a `with` block."""


def socket_directory(lab_name: str) -> Path:
    """Where the lab of this name keeps its sockets."""
    return Path(tempfile.gettempdir(), lab_name)
