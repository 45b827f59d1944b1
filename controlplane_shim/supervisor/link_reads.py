"""What OpenVPN reads from a TCP link: whole frames only, so that the stream can be taken from it between two of them.

Knows TCP sockets and OpenVPN's framing (16 bits of length in network order, then the packet). Must not know packets,
nor what becomes of the stream. A read that finds less than a frame gives EAGAIN, and the socket (SO_RCVLOWAT) is
readable again when the frame is whole. Whatever is no such stream is left to the kernel: another protocol, a length
that the buffer cannot hold (OpenVPN then closes the connection), the rest before the end of the stream.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from enum import Enum
from typing import Final

PREFIX: Final = struct.Struct("!H")
LONGEST_PACKET: Final = 0xFFFF

_ENDING: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Unframed(Enum):
    """Why there is no frame. NATIVE: the kernel is to execute the read; PARTIAL: the rest has to come first."""

    NATIVE = "native"
    PARTIAL = "partial"


def is_link(candidate: socket.socket) -> bool:
    """Whether this is a non-blocking TCP socket over IPv4 or IPv6, as OpenVPN's links are."""
    if candidate.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    is_tcp = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == socket.IPPROTO_TCP
    return is_tcp and not os.get_blocking(candidate.fileno())


def peek_frame(link: socket.socket, length: int) -> bytes | Unframed:
    """The next frame, prefix included, if it is whole and `length` bytes hold it; it stays in the socket."""
    try:
        data = link.recv(min(length, PREFIX.size + LONGEST_PACKET), socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:  # nothing has come, or the connection was reset: the kernel says it best
        return Unframed.NATIVE
    whole = PREFIX.size
    if len(data) >= PREFIX.size:
        (packet_length,) = PREFIX.unpack_from(data)
        whole += packet_length
        if not packet_length or whole > length:
            return Unframed.NATIVE
        if len(data) >= whole:
            return data[:whole]
    if _is_ending(link):
        return Unframed.NATIVE
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, whole)
    return Unframed.PARTIAL


def take_frame(link: socket.socket, frame: bytes, memory: int, address: int) -> None:
    """Moves a frame that was peeked at into the program's memory, at this address of the descriptor `memory`.

    Raises OSError, and then the frame is still in the socket.
    """
    os.pwrite(memory, frame, address)
    link.recv(len(frame), socket.MSG_DONTWAIT)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _is_ending(link: socket.socket) -> bool:
    poll = select.poll()
    poll.register(link.fileno(), _ENDING)
    return bool(poll.poll(0))
