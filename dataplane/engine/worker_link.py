"""The daemon's end of the SOCK_SEQPACKET pair to a worker, on asyncio.

Knows datagrams, descriptors and which reply belongs to which request. Must not know what the messages
mean. The worker meets hostile packets, so it is not trusted: what is no message ends the link.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from dataplane.messages import (
    MAX_MESSAGE,
    Command,
    DeviceClosed,
    FromWorker,
    KeyExhausted,
    KeyLimitNear,
    PeerExpired,
    PeerFloatAsked,
    PeerFloated,
    Reply,
    Request,
    TransportClosed,
)

WorkerEvent = PeerExpired | PeerFloated | PeerFloatAsked | KeyExhausted | KeyLimitNear | DeviceClosed | TransportClosed

_READ_BATCH: Final = 64
"""Datagrams read before other tasks of the loop get their turn."""


class LinkClosed(Exception):
    """The worker is not there any more."""


class WorkerLink:
    """Sends commands and hears events. Takes ownership of `sock`.

    `on_event` and `on_lost` are called by the loop; ValueError from `on_event` means that a worker would not
    say such a thing. Everything is handed on in the order in which the
    worker said it: the task that waits for a reply goes on before later events are handled, because both
    are scheduled with call_soon. `on_lost` is called at most once, and not after close().
    """

    def __init__(
        self, sock: socket.socket, on_event: Callable[[WorkerEvent], None], on_lost: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_event = on_event
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(FromWorker).decode
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._last_request_id = 0
        self.closed = False
        self._loop.add_reader(sock, self._readable)

    async def request(self, command: Command, fds: Sequence[int] = ()) -> Reply:
        """Sends a command, with copies of `fds`, and gives the worker's reply. Raises LinkClosed."""
        if self.closed:
            raise LinkClosed
        self._last_request_id += 1
        request_id = self._last_request_id
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[request_id] = reply
        try:
            self._send(self._encode(Request(request_id, command)), fds)
            return await reply
        finally:
            del self._waiting[request_id]

    def lose(self) -> None:
        """Closes the link as if the worker had closed it."""
        if not self.closed:
            self.close()
            self._on_lost()

    def close(self) -> None:
        """Closes the link; those who wait for a reply get LinkClosed."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(LinkClosed())

    def _send(self, datagram: bytes, fds: Sequence[int]) -> None:
        # A full buffer (BlockingIOError) holds many commands: a worker that lets it come to that is as good as dead.
        try:
            socket.send_fds(self._sock, [datagram], fds)
        except OSError:
            self.lose()

    def _readable(self) -> None:
        for _ in range(_READ_BATCH):
            if self.closed:
                return
            try:
                # recv, not recvmsg: descriptors that a worker might send are discarded by the kernel.
                message = self._decode(self._sock.recv(MAX_MESSAGE))
            except BlockingIOError:
                return
            except (OSError, msgspec.MsgspecError):
                # The end of the stream reads as an empty datagram, which is no message either.
                self.lose()
                return
            self._hand_on(message)

    def _hand_on(self, message: FromWorker) -> None:
        if not isinstance(message, Reply):
            self._loop.call_soon(self._event, message)
            return
        reply = self._waiting.get(message.request_id)
        if reply is not None and not reply.done():
            reply.set_result(message)

    def _event(self, event: WorkerEvent) -> None:
        try:
            self._on_event(event)
        except ValueError:
            self.lose()
