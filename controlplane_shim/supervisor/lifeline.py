"""What the supervisor tells the front: messages over a SOCK_SEQPACKET pair, with descriptors where needed.

Knows the messages and their bytes. Must not know processes. The front sends nothing: each learns of the other's death
by the end of the stream. Standard library only.

    b"started PID" + [pidfd, listener]      the program is about to be executed; no listener if it runs unsupervised
    b"background PID" + [pidfd]             its first process has ended with 0 and left this one, a daemon, behind
    b"ended CODE SIGNAL TEXT"               all is over; after this the supervisor may die
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Self

_MAX_TEXT = 2000
_MAX_MESSAGE = 4096
_MAX_DESCRIPTORS = 2


@dataclass(frozen=True, slots=True)
class Started:
    """pidfd and listener are the receiver's to close."""

    pid: int
    pidfd: int
    listener: int | None


@dataclass(frozen=True, slots=True)
class Backgrounded:
    """The pidfd is the receiver's to close."""

    pid: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How the front is to end. code: exit code; signal: to die of, 0 for none; text: a line for the user."""

    code: int
    signal: int = 0
    text: str = ""


Message = Started | Backgrounded | Ended


class Lifeline:
    """One end of the pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Two ends joined."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def inherited(cls, fd: int) -> Self:
        """The end that an exec'd process finds under this number; it is not handed on any further."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._socket.fileno()

    def pass_on(self) -> int:
        """Lets processes that are exec'd from now on inherit this end; its number."""
        self._socket.set_inheritable(True)
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Tells the other end; nothing happens if there is none any more."""
        descriptors: list[int] = []
        match message:
            case Started(pid, pidfd, listener):
                text = f"started {pid}"
                descriptors = [pidfd] if listener is None else [pidfd, listener]
            case Backgrounded(pid, pidfd):
                text = f"background {pid}"
                descriptors = [pidfd]
            case Ended(code, signal, reason):
                text = f"ended {code} {signal} {reason[:_MAX_TEXT]}"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._socket, [text.encode(errors="replace")], descriptors)

    def receive(self) -> Message | None:
        """The next message, waiting for it; None when the other end has closed."""
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._socket, _MAX_MESSAGE, _MAX_DESCRIPTORS)
        except ConnectionResetError:
            return None
        if not data:
            return None
        for fd in descriptors:
            os.set_inheritable(fd, False)  # recv_fds of Python 3.11 heeds no MSG_CMSG_CLOEXEC
        word, _space, rest = data.decode().partition(" ")
        if word == "started":
            return Started(int(rest), descriptors[0], descriptors[1] if len(descriptors) > 1 else None)
        if word == "background":
            return Backgrounded(int(rest), descriptors[0])
        code, number, text = rest.split(" ", 2)
        return Ended(int(code), int(number), text)

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()
