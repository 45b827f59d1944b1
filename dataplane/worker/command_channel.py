"""The worker's end of the SOCK_SEQPACKET pair to the daemon.

Knows framing, descriptors (SCM_RIGHTS) and what to do with a message that is none: it is answered, never fatal.
Must not know what a command does. Never blocks: what the daemon has no room for waits in a queue.
"""

from __future__ import annotations

import os
import socket
import struct
from array import array
from collections import OrderedDict
from typing import Final

import msgspec

from dataplane.messages import MAX_MESSAGE, FromWorker, PeerFloatAsked, PeerFloated, Reply, Request

_ANCILLARY_SPACE: Final = socket.CMSG_SPACE(4 * 4)  # four descriptors: more than any command has, so a surplus is seen
_UCRED: Final = struct.Struct("=iII")  # pid, uid, gid


class DaemonGone(Exception):
    """The daemon closed its end, or died."""


class _RequestHead(msgspec.Struct):
    request_id: int


class CommandChannel:
    """Receives requests, sends replies and events. Owns the descriptor."""

    def __init__(self, fd: int) -> None:
        """Raises OSError if the descriptor is no socket."""
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self.fd = fd
        self._unsent: OrderedDict[object, bytes] = OrderedDict()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Request).decode
        self._decode_head = msgspec.msgpack.Decoder(_RequestHead).decode

    def receive(self) -> tuple[Request, list[int]] | None:
        """Takes the next request and its descriptors, which the caller must close; None if there is none.

        Answers messages that are no request by itself. Raises DaemonGone.
        """
        while True:
            try:
                # Not socket.recv_fds, which in Python 3.11 leaves the flags out.
                message, ancillary, flags, _ = self._socket.recvmsg(
                    MAX_MESSAGE, _ANCILLARY_SPACE, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            except OSError as error:
                raise DaemonGone from error
            if not message:
                raise DaemonGone
            descriptors = _descriptors_in(ancillary)
            try:
                return self._request(message, flags), descriptors
            except ValueError as error:  # msgspec's errors are ValueErrors; they name fields, never values
                close_all(descriptors)
                self.send(Reply(self._request_id(message), "INTERNAL", f"no request: {error}"))

    def _request(self, message: bytes, flags: int) -> Request:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("the message or its descriptors did not fit")
        return self._decode(message)

    def _request_id(self, message: bytes) -> int:
        try:
            return self._decode_head(message).request_id
        except ValueError:
            return 0

    @property
    def has_unsent(self) -> bool:
        """Whether flush() should be called once the channel is writable."""
        return bool(self._unsent)

    def send(self, message: FromWorker) -> None:
        """Sends a message, or queues it behind others. Raises DaemonGone.

        A queued PeerFloated is replaced by a later one of the same peer, and so is a PeerFloatAsked: a peer that jumps
        to and fro must not be able to fill the memory.
        """
        key: object = object()
        if isinstance(message, PeerFloated | PeerFloatAsked):
            key = type(message), message.uid
        self._unsent[key] = self._encode(message)
        self._unsent.move_to_end(key)
        self.flush()

    def flush(self) -> None:
        """Sends what is queued as far as there is room. Raises DaemonGone."""
        while self._unsent:
            key, encoded = next(iter(self._unsent.items()))
            try:
                self._socket.send(encoded)
            except BlockingIOError:
                return
            except OSError as error:
                raise DaemonGone from error
            del self._unsent[key]

    def daemon_pid(self) -> int:
        """The process that made the socket pair (unix(7) SO_PEERCRED)."""
        pid, _, _ = _UCRED.unpack(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return int(pid)


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data)
    return descriptors.tolist()


def close_all(descriptors: list[int]) -> None:
    """Closes descriptors that came with a message."""
    for fd in descriptors:
        os.close(fd)
