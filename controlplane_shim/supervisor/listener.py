"""The seccomp notification descriptor: its requests and structures (linux/seccomp.h, seccomp_unotify(2)).

Knows ioctls. Must not know what a system call means or whose it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from dataclasses import dataclass

_RECV = 0xC0502100
_SEND = 0xC0182101
_ID_VALID = 0x40082102
_ADDFD = 0x40182103

# id, pid, flags, then struct seccomp_data: nr, arch, instruction_pointer, args[6]
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")  # id, val, error, flags
_ADD_FD = struct.Struct("=QIIII")  # id, flags, srcfd, newfd, newfd_flags
_ID = struct.Struct("=Q")

_RESPONSE_CONTINUE = 1
_ADDFD_SETFD = 1
_ADDFD_SEND = 2


class NotificationGone(Exception):
    """The system call is no longer waiting: its thread was killed."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A system call that waits for an answer. tid: its thread; arguments: as the registers held them, 64 bits each."""

    id: int
    tid: int
    number: int
    arguments: tuple[int, ...]


class Listener:
    """Takes notifications and answers them. Each must be answered once: by let_through, give or inject."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor to poll: readable with a notification, POLLHUP when no process has the filter any more."""
        return self._fd

    def receive(self) -> Notification:
        """The next notification. Raises NotificationGone."""
        buffer = bytearray(_NOTIFICATION.size)  # must be zero: the kernel refuses others
        self._control(_RECV, buffer)
        identity, tid, _flags, number, _arch, _pointer, *arguments = _NOTIFICATION.unpack(buffer)
        return Notification(identity, tid, number, tuple(arguments))

    def is_waiting(self, notification: Notification) -> bool:
        """Whether the thread still waits: then what was learnt by its tid until now was learnt of that thread."""
        try:
            self._control(_ID_VALID, bytearray(_ID.pack(notification.id)))
        except NotificationGone:
            return False
        return True

    def let_through(self, notification: Notification) -> None:
        """The kernel executes the call as it stands. Raises NotificationGone."""
        self._control(_SEND, bytearray(_RESPONSE.pack(notification.id, 0, 0, _RESPONSE_CONTINUE)))

    def give(self, notification: Notification, value: int) -> None:
        """The call returns this value, or fails if it is a negative errno, unexecuted. Raises NotificationGone."""
        self._control(_SEND, bytearray(_RESPONSE.pack(notification.id, max(value, 0), min(value, 0), 0)))

    def inject(self, notification: Notification, source: int, target: int, *, close_on_exec: bool) -> None:
        """Puts our descriptor source under the number target into the caller's table; the call returns target.

        Raises NotificationGone, or OSError (EBADF: target is not below the caller's RLIMIT_NOFILE), and then the call
        still waits.
        """
        flags = os.O_CLOEXEC if close_on_exec else 0
        request = _ADD_FD.pack(notification.id, _ADDFD_SETFD | _ADDFD_SEND, source, target, flags)
        self._control(_ADDFD, bytearray(request))

    def replace(self, notification: Notification, source: int, target: int, *, close_on_exec: bool) -> None:
        """As inject(), but the call goes on waiting for its answer: what was under the number target is closed."""
        flags = os.O_CLOEXEC if close_on_exec else 0
        self._control(_ADDFD, bytearray(_ADD_FD.pack(notification.id, _ADDFD_SETFD, source, target, flags)))

    def has_users(self) -> bool:
        """Whether any process is left under the filter."""
        poll = select.poll()
        poll.register(self._fd, 0)
        return not poll.poll(0)

    def close(self) -> None:
        """Closes the descriptor. If it was the last copy, notified calls fail with ENOSYS from now on."""
        os.close(self._fd)

    def _control(self, request: int, buffer: bytearray) -> None:
        try:
            fcntl.ioctl(self._fd, request, buffer, True)  # the kernel writes into it
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise NotificationGone from error
            raise
