"""TCP: the packets of one peer in a stream, which the control channel shares.

Knows a connected socket and the control stream, by which the control plane has its own packets from and into the
socket, framed as they are there. Must not know peers, nor which packets are whose.

    in:   socket -> receive(); of that the control plane's -> hand_over() -> control stream
    out:  send_batch() and the control stream -> socket

Nothing is lost and little is held when one end is slow: while the control stream is full the socket is not read, while
a control packet waits for the socket the control stream is not read, and data are admitted up to QUEUE_BYTES. Control
packets overtake the data that wait; one that has a mark does not, unless the last that had one had the same. What can
be done next shows in interests(). Every call carries MSG_DONTWAIT: O_NONBLOCK would also change the socket for whoever
shares it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from select import EPOLLIN, EPOLLOUT
from typing import Final

from dataplane.transport.tcp_framing import FrameCutter, FrameQueue, frame_of
from dataplane.transport.tcp_socket import inspect_control_stream, tune
from dataplane.vocabulary import DelReason

READ_BYTES: Final = 128 << 10
"""Taken from a socket before others get their turn."""

OrderMark = Callable[[bytes], int]
"""The mark of a control packet that must not overtake data; the same for its repetitions, 0: it may."""

_NO_WAIT: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class TcpTransport:
    """A connected TCP socket and its control stream. Works on duplicates of the descriptors.

    copy_dscp: never, for a stream has one TOS. fd, control_fd: the duplicates. closed: why the stream ended, None while
    it has not.
    """

    copy_dscp = False

    def __init__(self, socket_id: int, fd: int, control_fd: int, order_mark: OrderMark) -> None:
        """Raises OSError if fd is no TCP socket, NotAControlStream."""
        inspect_control_stream(control_fd)
        self.socket_id = socket_id
        self._socket = socket.socket(fileno=os.dup(fd))
        try:
            tune(self._socket)
        except OSError:
            self._socket.close()
            raise
        self._control = socket.socket(fileno=os.dup(control_fd))
        self.fd = self._socket.fileno()
        self.control_fd = self._control.fileno()
        self.closed: DelReason | None = None
        self._incoming = FrameCutter()
        self._commands = FrameCutter()
        self._queue = FrameQueue()
        self._order_mark = order_mark
        self._last_mark = 0
        self._to_control = bytearray()
        self._is_full = False  # the socket
        self._send_failure: DelReason | None = None
        self._control_reads = self._control_writes = True

    def close(self) -> None:
        """Closes the duplicates, after one try to send what waits."""
        if self.closed is None:
            self.relay_control()
        self._socket.close()
        self._control.close()

    def interests(self) -> dict[int, int]:
        """The epoll events to wait for, by descriptor. With none of them a descriptor is not to be watched at all."""
        stream = control = 0
        if self.closed is None:
            stream = (0 if self._to_control else EPOLLIN) | (EPOLLOUT if self._is_full else 0)
            control = EPOLLIN if self._control_reads and not self._queue.has_control else 0
        if self._to_control:
            control |= EPOLLOUT
        return {self.fd: stream, self.control_fd: control}

    # From the socket

    def receive(self) -> list[bytes]:
        """Takes the packets that wait, READ_BYTES at most; none while the control plane is behind."""
        if self.closed is not None or self._to_control:
            return []
        try:
            data = self._socket.recv(READ_BYTES, _NO_WAIT)
        except BlockingIOError:
            # A stream that takes nothing more is over when all was read that had come.
            self.closed = self._send_failure
            return []
        except OSError as error:
            self.closed = self._send_failure or reason_of(error)
            return []
        packets = self._incoming.feed(data)
        if self._incoming.is_broken:
            self.closed = DelReason.TRANSPORT_ERROR
        elif not data:
            self.closed = self._send_failure or DelReason.TRANSPORT_DISCONNECT
        return packets

    def hand_over(self, packets: list[bytes]) -> bool:
        """Gives packets to the control plane, now or when it takes them. False: it has closed its end."""
        self._to_control += b"".join(map(frame_of, packets))
        self.flush_control()
        return self._control_writes

    def flush_control(self) -> None:
        """Gives the control plane what waits for it, as far as it takes it."""
        while self._to_control:
            try:
                del self._to_control[: self._control.send(self._to_control, _NO_WAIT)]
            except BlockingIOError:
                return
            except OSError:
                self._control_writes = False
            if not self._control_writes:
                self._to_control.clear()

    # Into the socket

    def admits(self, size: int) -> bool:
        """Whether send_batch() will take packets of `size` bytes together, with a prefix of 2 bytes each."""
        return self._send_failure is None and self.closed is None and self._queue.admits(size)

    def send_batch(self, packets: Iterable[tuple[object, bytes]], _tos: int = 0) -> None:
        """Takes data packets, which were admitted, in order, and sends what the socket takes. All have one TOS."""
        for _, packet in packets:
            self._queue.add_data(packet)
        if not self._is_full:
            self.flush()

    def relay_control(self) -> None:
        """Takes packets of the control plane, unless earlier ones wait, and sends what the socket takes."""
        if self._control_reads and not self._queue.has_control and self.closed is None:
            self._read_control()
        if not self._is_full:
            self.flush()

    def _read_control(self) -> None:
        try:
            data = self._control.recv(READ_BYTES, _NO_WAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._control_reads = bool(data)
        for packet in self._commands.feed(data):
            self._queue.add_control(packet, in_order=self._keeps_order(packet))
        if self._commands.is_broken:
            self.closed = DelReason.TRANSPORT_ERROR

    def _keeps_order(self, packet: bytes) -> bool:
        # Repeated on a slow link, it would hold up the control channel for as long as a full queue takes, each time.
        mark = self._order_mark(packet)
        is_new = mark not in {0, self._last_mark}
        self._last_mark = mark or self._last_mark
        return is_new

    def flush(self) -> None:
        """Sends what waits, as far as the socket takes it."""
        self._is_full = False
        while not (self._queue.is_empty or self._is_full or self._send_failure or self.closed):
            pieces = self._queue.pieces()
            try:
                taken = self._socket.sendmsg(pieces, [], _NO_WAIT)
            except BlockingIOError:
                self._is_full = True
            except OSError as error:
                self._fail(error)
            else:
                self._queue.took(taken)
                self._is_full = taken < sum(map(len, pieces))

    @property
    def is_ending(self) -> bool:
        """Whether nothing can be sent any more, and receive() is to be called until it says `closed` or is held up."""
        return self._send_failure is not None and self.closed is None and not self._to_control

    def _fail(self, error: OSError) -> None:
        # What the peer sent before is still to be read.
        self._send_failure = reason_of(error)
        self._queue = FrameQueue()


def reason_of(error: OSError) -> DelReason:
    """Why a peer goes whose stream had this error."""
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return DelReason.TRANSPORT_DISCONNECT
    return DelReason.TRANSPORT_ERROR
