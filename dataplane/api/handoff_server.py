"""The hand-off socket: takes descriptors from clients on this machine and answers with tokens.

Knows sockets, SCM_RIGHTS and SO_PEERCRED, on asyncio. Must not know what a descriptor is for. Descriptors
cannot travel by gRPC, and grpcio tells no peer credentials: hence a socket of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from dataplane.api.handoff_protocol import MAX_REQUEST_BYTES, Datagram, answer, error_reply
from dataplane.api.handoff_vault import HandoffRefused, HandoffVault
from dataplane.api.socket_path import listen_unix

MAX_CONNECTIONS: Final = 256
_ACCEPT_PAUSE_SECONDS: Final = 1.0
_UCRED: Final = struct.Struct("3i")
"""struct ucred (unix(7)): pid, uid, gid."""
_FD: Final = struct.Struct("i")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4 * _FD.size)
"""Room for more than one descriptor, so that several are told from one; what is beyond it the kernel closes."""


def may_hand_over(uid: int, own_uid: int) -> bool:
    """Whether a client with this user id is served: root and the daemon's own user are."""
    return uid in {0, own_uid}


class HandoffServer:
    """Listens at `path` until close(). on_closed: called with a connection's number when its client is gone.

    To be made where an event loop runs. Raises SocketPathError.
    """

    def __init__(self, path: Path, vault: HandoffVault, on_closed: Callable[[int], None]) -> None:
        self._path = path
        self._vault = vault
        self._on_closed = on_closed
        self._clients: dict[int, socket.socket] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger()
        self._listener = listen_unix(path, socket.SOCK_SEQPACKET)
        self._listen()

    def close(self) -> None:
        """Closes the socket, its connections and what is in the vault, and removes the file."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for client in self._clients.values():
            self._loop.remove_reader(client)
            client.close()
        self._clients.clear()
        if self._expiry is not None:
            self._expiry.cancel()
        self._vault.close()
        self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors: the listener stays readable, so asking again at once would keep the loop busy.
            self._log.error("handoff_accept_failed", error=str(error))
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._listen)
            return
        client.setblocking(False)
        try:
            self._check_client(client)
        except HandoffRefused as refusal:
            with client, contextlib.suppress(OSError):
                client.send(error_reply(refusal))
            return
        connection = self._vault.open_connection()
        self._clients[connection] = client
        self._loop.add_reader(client, self._readable, connection, client)

    def _check_client(self, client: socket.socket) -> None:
        _, uid, _ = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if not may_hand_over(uid, os.geteuid()):
            self._log.warning("handoff_refused", uid=uid)
            raise HandoffRefused("PERMISSION_DENIED", f"user id {uid} is neither 0 nor the daemon's")
        if len(self._clients) >= MAX_CONNECTIONS:
            raise HandoffRefused("CONNECTION_LIMIT", f"there are {MAX_CONNECTIONS} connections")

    def _readable(self, connection: int, client: socket.socket) -> None:
        """Reads one datagram; the others get their turn when the loop comes round again."""
        try:
            data, ancillary, flags, _ = client.recvmsg(MAX_REQUEST_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection, client)
            return
        fds = _descriptors(ancillary)
        if not data and not fds:
            self._drop(connection, client)
            return
        datagram = Datagram(data, fds, is_cut=bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)))
        reply = answer(self._vault, connection, datagram, time.monotonic())
        self._await_expiry()
        try:
            client.send(reply)
        except OSError:
            # It went away, or does not read its replies until the socket is full.
            self._drop(connection, client)

    def _drop(self, connection: int, client: socket.socket) -> None:
        self._loop.remove_reader(client)
        client.close()
        del self._clients[connection]
        self._vault.close_connection(connection)
        self._on_closed(connection)

    def _await_expiry(self) -> None:
        deadline = self._vault.next_expiry()
        if self._expiry is None and deadline is not None:
            # The loop's clock is time.monotonic().
            self._expiry = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._vault.expire(time.monotonic())
        self._await_expiry()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in _FD.iter_unpack(data[: len(data) - len(data) % _FD.size])
    ]
