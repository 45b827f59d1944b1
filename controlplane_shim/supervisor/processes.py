"""Processes seen through /proc: children, executables, the environment this process was given.

Knows the layout of /proc/PID/stat. Must not know the program or seccomp. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FileIdentity = tuple[int, int]
"""st_dev and st_ino: the same file even if it was renamed, deleted or seen from another mount namespace."""


@dataclass(frozen=True, slots=True)
class Process:
    """A line of /proc/PID/stat. started: clock ticks since boot."""

    pid: int
    parent: int
    started: int


def executable(pid: int) -> FileIdentity:
    """What the process or thread executes. Raises OSError (ENOENT for a zombie)."""
    return _identity(f"/proc/{pid}/exe")


def network_namespace(pid: int) -> FileIdentity:
    """The network namespace of the process or thread. Raises OSError."""
    return _identity(f"/proc/{pid}/ns/net")


def user_namespace(pid: int) -> FileIdentity:
    """Where the capabilities of the process or thread count. Raises OSError."""
    return _identity(f"/proc/{pid}/ns/user")


def find_executable(name: str) -> FileIdentity | None:
    """What execvp(3) would execute for this name, or None; of a script, the script itself."""
    candidates = [name] if "/" in name else [str(Path(folder, name)) for folder in os.get_exec_path()]
    for candidate in candidates:
        if Path(candidate).is_file() and os.access(candidate, os.X_OK):
            return _identity(candidate)
    return None


def children_of(pid: int) -> list[Process]:
    """The children of a process, zombies included, oldest first."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    children = [process for number in numbers if (process := _read(number)) and process.parent == pid]
    return sorted(children, key=lambda child: (child.started, child.pid))


def original_environment() -> dict[bytes, bytes]:
    """The environment as this process received it: Python itself may have added LC_CTYPE since (PEP 538)."""
    environment: dict[bytes, bytes] = {}
    for entry in Path("/proc/self/environ").read_bytes().split(b"\0"):
        name, separator, value = entry.partition(b"=")
        if separator:
            environment.setdefault(name, value)  # of a name given twice getenv(3) finds the first
    return environment


def spawn(arguments: Sequence[str]) -> int:
    """Starts a program by its path, with the original environment and every inheritable descriptor; its pid.

    For processes with one thread. Not by posix_spawn(3): under glibc the program would find signals 32 and 33 ignored.
    """
    environment = original_environment()
    pid = os.fork()
    if not pid:
        try:
            os.execve(arguments[0], list(arguments), environment)  # noqa: S606 - no shell is wanted
        finally:
            os._exit(127)
    return pid


def open_standard_descriptors() -> None:
    """/dev/null where the user has closed a standard descriptor, lest another file gets its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def detach_from_terminal() -> None:
    """A session of its own, and nothing of the user's left on the standard descriptors."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)


def _identity(path: str) -> FileIdentity:
    status = Path(path).stat()
    return status.st_dev, status.st_ino


def _read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:  # it has gone in between
        return None
    # the second field is the name in brackets and may contain anything; parent is field 4, start time field 22
    fields = text.rpartition(")")[2].split()
    return Process(pid, parent=int(fields[1]), started=int(fields[19]))
