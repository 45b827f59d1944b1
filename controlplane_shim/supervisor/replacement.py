"""Another file under one of the program's descriptors, while its thread is blocked in a system call.

Knows descriptor tables and epoll. Must not know what the files are. The program goes on waiting for the number by
epoll, so what it has registered has to move along: epoll keeps registrations by file *and* number, and takes both
from the table of whoever calls epoll_ctl(2). So a thread with a table of its own puts the files under that number.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from errno import ENOENT, ESRCH
from pathlib import Path

from controlplane_shim.supervisor import libc
from controlplane_shim.supervisor.listener import Listener, Notification, NotificationGone
from controlplane_shim.supervisor.tracee import Tracee

_EPOLL = "anon_inode:[eventpoll]"


class BlockedCaller:
    """The handler's Caller: a thread that waits for the answer to its system call."""

    def __init__(self, listener: Listener, notification: Notification, tracee: Tracee) -> None:
        self._listener = listener
        self._notification = notification
        self._tracee = tracee

    @property
    def pid(self) -> int:
        """See Caller."""
        return self._tracee.pid

    def is_admin(self) -> bool:
        """See Caller."""
        return self._tracee.is_admin()

    def fetch_fd(self, fd: int) -> int:
        """See Caller."""
        return self._tracee.fetch_fd(fd)

    def replace_fd(self, fd: int, source: int) -> None:
        """See Caller."""
        close_on_exec = self._tracee.is_close_on_exec(fd)
        with ExitStack() as opened:
            old = self._tracee.fetch_fd(fd)
            opened.callback(os.close, old)
            registrations = list(_registrations(self._tracee, fd, os.fstat(old).st_ino, opened))
            _move(registrations, fd, old, source)
            try:
                self._listener.replace(self._notification, source, fd, close_on_exec=close_on_exec)
            except NotificationGone as gone:
                raise OSError(ESRCH, os.strerror(ESRCH)) from gone
            except OSError:
                _move(registrations, fd, source, old)
                raise


@dataclass(frozen=True, slots=True)
class _Registration:
    """What an epoll file holds of a descriptor. epoll: our copy of it; events, data: as they were given."""

    epoll: int
    events: int
    data: int


def _registrations(tracee: Tracee, fd: int, inode: int, opened: ExitStack) -> Iterator[_Registration]:
    """Those of the caller's file of this inode under this number, in all of its epoll files."""
    process = Path(f"/proc/{tracee.pid}")
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed by another thread
            if str(entry.readlink()) != _EPOLL:
                continue
            for line in (process / "fdinfo" / entry.name).read_text().splitlines():
                # "tfd: 8 events: 19 data: 5581f0c0 pos:0 ino:61af sdev:9"; but for the first all is hexadecimal
                words = line.replace(":", " ").split()
                fields = dict(zip(words[::2], words[1::2], strict=False))
                if "tfd" in fields and int(fields["tfd"]) == fd and int(fields["ino"], 16) == inode:
                    epoll = tracee.fetch_fd(int(entry.name))
                    opened.callback(os.close, epoll)
                    yield _Registration(epoll, int(fields["events"], 16), int(fields["data"], 16))


def _move(registrations: list[_Registration], number: int, old: int, new: int) -> None:
    """Moves registrations from the file of descriptor old to that of new. Raises OSError; then they are moved back."""
    failures: list[OSError] = []

    def work() -> None:
        try:
            libc.unshare_descriptors()
            _move_here(registrations, number, old, new)
        except OSError as error:
            failures.append(error)

    if registrations:
        thread = threading.Thread(target=work, name="epoll")
        thread.start()
        thread.join()
    if failures:
        raise failures[0]


def _move_here(registrations: list[_Registration], number: int, old: int, new: int) -> None:
    """The same in a descriptor table of our own, where any number may be overwritten."""
    beyond = max(number, old, new, *(registration.epoll for registration in registrations)) + 1

    def keep(fd: int) -> int:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) if fd == number else fd

    kept_old, kept_new = keep(old), keep(new)
    kept = [_Registration(keep(one.epoll), one.events, one.data) for one in registrations]
    moved: list[_Registration] = []
    try:
        for one in kept:
            moved.append(one)
            _register(one, number, kept_old, kept_new)
    except OSError:
        for one in moved:
            with contextlib.suppress(OSError):
                _register(one, number, kept_new, kept_old)
        raise


def _register(registration: _Registration, number: int, old: int, new: int) -> None:
    os.dup2(old, number)
    try:
        libc.epoll_delete(registration.epoll, number)
    except OSError as error:
        if error.errno != ENOENT:
            raise
    os.dup2(new, number)
    libc.epoll_add(registration.epoll, number, registration.events, registration.data)
