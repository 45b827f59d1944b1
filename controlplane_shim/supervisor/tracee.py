"""The thread behind a notification: its memory, descriptors, executable and network namespace.

Knows how to look into another process. Must not know why. What is read here belongs to the caller only if
Listener.is_waiting() says afterwards that the thread still waits; a thread id may have been given to another since.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from controlplane_shim.supervisor import libc, processes

MAX_READ = 1 << 20
_ADDRESS_LIMIT = 1 << 63
_CAP_NET_ADMIN = 12  # <linux/capability.h>


class Tracee:
    """One caller; a context manager. Satisfies the handler's Caller."""

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._pidfd: int | None = None
        self._family: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    @property
    def pid(self) -> int:
        """Thread-group id. Raises OSError if the thread has gone."""
        return self._process_and_parent()[0]

    @property
    def parent(self) -> int:
        """Thread-group id of its parent. Raises OSError if the thread has gone."""
        return self._process_and_parent()[1]

    def is_admin(self) -> bool:
        """See Caller. In a user namespace of its own any program may have the capability, over nothing of ours."""
        effective = int(self._status("CapEff"), 16)
        ours = processes.user_namespace(os.getpid())
        return bool(effective >> _CAP_NET_ADMIN & 1) and processes.user_namespace(self._tid) == ours

    def fetch_fd(self, fd: int) -> int:
        """A copy of its descriptor; close it. Raises OSError (EBADF if it has none, EPERM without ptrace rights)."""
        if self._pidfd is None:  # kept: it names the same process even when the thread id is used again
            self._pidfd = os.pidfd_open(self.pid)
        return libc.pidfd_getfd(self._pidfd, fd)

    def has_fd(self, fd: int) -> bool:
        """Whether the number is in use. Raises OSError (EACCES without ptrace rights)."""
        try:
            Path(f"/proc/{self._tid}/fd/{fd}").readlink()
        except FileNotFoundError:
            return False
        return True

    def is_close_on_exec(self, fd: int) -> bool:
        """Whether its descriptor ends with exec. Raises OSError (ENOENT if it has none)."""
        flags = Path(f"/proc/{self._tid}/fdinfo/{fd}").read_text(errors="replace").partition("flags:")[2]
        return bool(int(flags.split(maxsplit=1)[0], 8) & os.O_CLOEXEC)

    def executable(self) -> processes.FileIdentity:
        """What it executes. Raises OSError."""
        return processes.executable(self._tid)

    def network_namespace(self) -> processes.FileIdentity:
        """Where its sockets are made. Raises OSError."""
        return processes.network_namespace(self._tid)

    def read(self, address: int, length: int) -> bytes:
        """Exactly length bytes of its memory. Raises OSError (EFAULT if it cannot be read, EMSGSIZE above MAX_READ)."""
        if length > MAX_READ:
            raise OSError(errno.EMSGSIZE, "longer than anything that is served")
        if not length:
            return b""
        if address >= _ADDRESS_LIMIT:  # the kernel's half
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        data = self._read_some(address, length)
        if len(data) != length:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return data

    def open_memory(self) -> int:
        """A descriptor of its memory, which stays its own whoever gets the thread id; close it. Raises OSError."""
        return os.open(f"/proc/{self._tid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def _process_and_parent(self) -> tuple[int, int]:
        if self._family is None:
            self._family = int(self._status("Tgid")), int(self._status("PPid"))
        return self._family

    def _status(self, name: str) -> str:
        """A line of its /proc/TID/status, up to the first blank in it."""
        status = Path(f"/proc/{self._tid}/status").read_text(errors="replace")
        return status.partition(f"\n{name}:")[2].split(maxsplit=1)[0]

    def _read_some(self, address: int, length: int) -> bytes:
        try:
            return libc.read_process_memory(self._tid, address, length)
        except OSError as error:
            if error.errno not in {errno.ENOSYS, errno.EPERM}:
                raise
        # some container profiles forbid process_vm_readv alone, and some kernels lack it
        memory = os.open(f"/proc/{self._tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(memory, length, address)
        except OSError as error:  # EIO: nothing is mapped there
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from error
        finally:
            os.close(memory)
