"""The supervised program: started, followed into the background, ended, reaped.

Knows processes and their ends. Must not know notifications or netlink. The supervisor is a child subreaper: when a
process of the program dies, its orphans become children of the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from controlplane_shim.supervisor import launcher, processes, signals

_MAX_MESSAGE = 1024


class LauncherDied(Exception):
    """The launcher ended before it could hand anything over; it has told the user why."""


@dataclass(frozen=True, slots=True)
class Supervision:
    """What the launcher handed over. listener: None if the program must run unsupervised, for this reason."""

    listener: int | None
    injected: range
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MovedToBackground:
    """The main process ended with status 0 and left a daemon, now the main process."""

    pid: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class ProgramEnded:
    """The main process has ended. code: exit code; signal: what killed it, 0 if nothing did."""

    code: int
    signal: int


class Program:
    """The main process of the program and its successors."""

    def __init__(self, command: Sequence[str], pid: int, control: socket.socket) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._control = control
        # Children that are older than the program were not left by it.
        children = processes.children_of(os.getpid())
        self._strangers = {child.pid for child in children} - {pid}
        self._executable = processes.find_executable(command[0])
        self._kill_at_seconds: float | None = None
        self._exit_code: int | None = None

    @classmethod
    def launch(cls, command: Sequence[str], mask: frozenset[int]) -> Self:
        """Starts the launcher, which executes the command at go(). mask: the signals that the program finds blocked."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            theirs.set_inheritable(True)
            fixed = [sys.executable, "-P", "-m", launcher.__name__, str(theirs.fileno()), signals.encode_mask(mask)]
            pid = processes.spawn([*fixed, *command])
        return cls(command, pid, ours)

    @property
    def pid(self) -> int:
        """The main process."""
        return self._pid

    @property
    def pidfd(self) -> int:
        """Names the main process for as long as it is the main process."""
        return self._pidfd

    def receive_supervision(self) -> Supervision:
        """Waits for the launcher. Raises LauncherDied."""
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._control, _MAX_MESSAGE, 1)
        except ConnectionResetError:
            data, descriptors = b"", []
        word, _space, rest = data.decode().partition(" ")
        if word == "listener":
            os.set_inheritable(descriptors[0], False)
            first, past = rest.split()
            return Supervision(descriptors[0], range(int(first), int(past)))
        if word == "unsupervised":
            return Supervision(None, range(0), rest)
        raise LauncherDied

    def go(self) -> None:
        """Lets the launcher execute the command."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # killed meanwhile: reap() will tell
            self._control.send(launcher.GO)
        self._control.close()

    def executable(self) -> processes.FileIdentity | None:
        """What the main process executes, or did last: it may exec again, and it is a zombie before it is reaped."""
        with contextlib.suppress(OSError):
            self._executable = processes.executable(self._pid)
        return self._executable

    def end(self, grace_seconds: float) -> None:
        """SIGTERM now, SIGKILL after the grace. Repeated, only an earlier SIGKILL counts."""
        kill_at = time.monotonic() + grace_seconds
        if self._kill_at_seconds is None:
            self._signal(signal.SIGTERM)
            self._kill_at_seconds = kill_at
        self._kill_at_seconds = min(self._kill_at_seconds, kill_at)

    def kill_after_seconds(self) -> float | None:
        """When to call kill_if_overdue(); None unless end() was called."""
        return None if self._kill_at_seconds is None else max(0.0, self._kill_at_seconds - time.monotonic())

    def kill_if_overdue(self) -> None:
        """SIGKILL once the grace of end() is over."""
        if self._kill_at_seconds is not None and time.monotonic() >= self._kill_at_seconds:
            self._signal(signal.SIGKILL)
            self._kill_at_seconds += 1  # again, should the one killed have left a successor

    def reap(self) -> MovedToBackground | ProgramEnded | None:
        """Takes the ends of all children that have died; what that means for the program. Call it at each SIGCHLD."""
        for pid, code in _dead_children():
            if pid == self._pid:
                self._exit_code = code
        if self._exit_code is None:
            return None
        if self._exit_code == 0:
            try:
                successor = self._successor()
            except _Undecided:
                return None
            if successor is not None:
                return self._follow(successor)
        return ProgramEnded(max(self._exit_code, 0), max(-self._exit_code, 0))

    def close(self) -> None:
        """Closes the descriptors; a launcher that still waits for go() ends by it."""
        self._control.close()
        os.close(self._pidfd)

    def _successor(self) -> int | None:
        """The daemon that the main process left. Raises _Undecided.

        The newest orphan with the same executable: a helper process of a plugin may have the same one, but was forked
        before the daemon was.
        """
        orphans = processes.children_of(os.getpid())
        ours = [child.pid for child in orphans if child.pid not in self._strangers]
        same = [pid for pid in ours if _executable(pid) == self._executable is not None]
        return same[-1] if same else None

    def _follow(self, successor: int) -> MovedToBackground:
        os.close(self._pidfd)
        self._pid, self._pidfd, self._exit_code = successor, os.pidfd_open(successor), None
        if self._kill_at_seconds is not None:
            self._signal(signal.SIGTERM)
        return MovedToBackground(self._pid, self._pidfd)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


class _Undecided(Exception):
    """A child is about to die and may leave the daemon to us; then there will be another SIGCHLD."""


def _executable(child: int) -> processes.FileIdentity | None:
    """What a child executes, None if that is hidden. Raises _Undecided."""
    try:
        return processes.executable(child)
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError) as error:
        raise _Undecided from error


def _dead_children() -> Iterator[tuple[int, int]]:
    """Pids and exit codes, negative for a signal, of the children that have died."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1])
