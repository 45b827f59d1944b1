"""TCP sockets before they carry anything: checking one that was handed over, and its control stream.

Knows addresses and socket options. Must not know packets (see tcp.py).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from dataplane.transport.sockaddr import SockAddr, from_sockaddr

# Not in the socket module; values of <asm-generic/socket.h> and <linux/tcp.h>.
_SO_PROTOCOL: Final = 38
_TCP_NOTSENT_LOWAT: Final = 25

UNSENT_BYTES: Final = 128 << 10
"""How much the kernel takes beyond what is on its way: what it has cannot be overtaken by a control packet."""


class NotATcpStream(Exception):
    """The TCP socket is not connected."""


class NotAControlStream(Exception):
    """The descriptor is no connected AF_UNIX socket that is a stream."""


@dataclass(frozen=True, slots=True)
class TcpSocketInfo:
    """The two ends of a stream: (address, port, scope id), a v4-mapped address as IPv4."""

    local: tuple[IPv4Address | IPv6Address, int, int]
    remote: tuple[IPv4Address | IPv6Address, int, int]


def is_tcp(fd: int) -> bool:
    """Whether a descriptor is a TCP socket over IPv4 or IPv6."""
    try:
        stream = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        is_ip = stream.family in {socket.AF_INET, socket.AF_INET6}
        return is_ip and stream.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL) == socket.IPPROTO_TCP
    finally:
        stream.detach()


def inspect_tcp(fd: int) -> TcpSocketInfo:
    """Tells what a TCP socket connects; the descriptor stays the caller's, unchanged. Raises NotATcpStream."""
    stream = socket.socket(fileno=fd)
    try:
        return TcpSocketInfo(_end(stream.getsockname()), _end(stream.getpeername()))
    except OSError as error:
        raise NotATcpStream(f"a TCP socket, but not connected: {error.strerror}") from error
    finally:
        stream.detach()


def inspect_control_stream(fd: int) -> None:
    """Checks a descriptor, which stays the caller's. Raises NotAControlStream."""
    try:
        stream = socket.socket(fileno=fd)
    except OSError as error:
        raise NotAControlStream(f"not a socket: {error.strerror}") from error
    try:
        if stream.family != socket.AF_UNIX or stream.type != socket.SOCK_STREAM:
            raise NotAControlStream("a socket, but not AF_UNIX with SOCK_STREAM, as a TCP socket needs it")
        stream.getpeername()
    except OSError as error:
        raise NotAControlStream(f"not connected: {error.strerror}") from error
    finally:
        stream.detach()


def tune(stream: socket.socket) -> None:
    """Sets up a stream for packets that wait for nothing.

    TCP_NODELAY: what there is to send goes in one call, so Nagle could only hold back the last packet of a burst until
    the one before is acknowledged (OpenVPN leaves that to `--tcp-nodelay`). TCP_NOTSENT_LOWAT: what waits, waits in our
    queue, where control packets go first. The buffers stay the kernel's, which fits them to the path.
    """
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _end(sockaddr: SockAddr) -> tuple[IPv4Address | IPv6Address, int, int]:
    address, port, scope_id = from_sockaddr(sockaddr)
    return (IPv4Address(address) if len(address) == 4 else IPv6Address(address)), port, scope_id
