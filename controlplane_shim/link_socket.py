"""OpenVPN's socket as NEW_PEER names it: which transport it is, or why it cannot carry peers.

Knows socket families and states. Must not know what is done with it.
"""

from __future__ import annotations

import os
import socket
from enum import Enum
from errno import ENOTSOCK


class UnsuitableSocketError(Exception):
    """The socket cannot carry peers of the data plane. errno: what the kernel driver would answer."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class Transport(Enum):
    """What a link socket is. SWITCHED: the end of a pair that took the place of a TCP socket (tcp_switch.py)."""

    UDP = "udp"
    TCP = "tcp"
    SWITCHED = "switched"


_TRANSPORTS = {
    (socket.AF_INET, socket.SOCK_DGRAM): Transport.UDP,
    (socket.AF_INET6, socket.SOCK_DGRAM): Transport.UDP,
    (socket.AF_INET, socket.SOCK_STREAM): Transport.TCP,
    (socket.AF_INET6, socket.SOCK_STREAM): Transport.TCP,
    (socket.AF_UNIX, socket.SOCK_STREAM): Transport.SWITCHED,
}


def link_socket(fd: int) -> tuple[socket.socket, Transport]:
    """Takes `fd` over as a socket object; closes it and raises UnsuitableSocketError if it is none that could be."""
    try:
        candidate = socket.socket(fileno=fd)
    except OSError as error:
        os.close(fd)
        raise UnsuitableSocketError(ENOTSOCK, "the descriptor is not a socket") from error
    transport = _TRANSPORTS.get((candidate.family, candidate.type))
    if transport is None:
        candidate.close()
        raise UnsuitableSocketError(ENOTSOCK, "the socket is neither UDP nor TCP")
    return candidate, transport
