"""What the owner of a device may ask of a socket: mark, interface, buffers, fragmentation.

Knows the options of socket(7), ip(7) and ipv6(7) that stand for it. Must not know addresses or packets; copying the
DSCP is named here and done where packets are sent (udp.py).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from dataplane.vocabulary import FragmentationPolicy

# Not in the socket module; values of <asm-generic/socket.h>.
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
# Values of <linux/in.h> and <linux/in6.h>.
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23

_PMTUDISC: Final = {
    FragmentationPolicy.MAY_FRAGMENT: 0,  # IP_PMTUDISC_DONT
    FragmentationPolicy.PATH_MTU: 1,  # IP_PMTUDISC_WANT, what Linux does unless told otherwise
    FragmentationPolicy.DONT_FRAGMENT: 2,  # IP_PMTUDISC_DO
}
_POLICIES: Final = {value: policy for policy, value in _PMTUDISC.items()} | {
    3: FragmentationPolicy.DONT_FRAGMENT,  # IP_PMTUDISC_PROBE
    4: FragmentationPolicy.DONT_FRAGMENT,  # IP_PMTUDISC_INTERFACE, which lets routers fragment, but does not itself
    5: FragmentationPolicy.MAY_FRAGMENT,  # IP_PMTUDISC_OMIT
}
_INTERFACE_NAME_SIZE: Final = 16
_MARK: Final = struct.Struct("=I")


class OptionRefused(Exception):
    """Linux does not let a socket have an option. option: its name in the API; error: why."""

    def __init__(self, option: str, error: OSError) -> None:
        super().__init__(f"{option}: {error.strerror}")
        self.option = option
        self.error = error


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What is asked of a socket, or what it has; see Socket in socket.proto.

    Buffers in bytes as in setsockopt, which are half of what Linux then takes (socket(7)); 0: the default.
    """

    mark: int = 0
    bind_to_interface: str = ""
    receive_buffer_bytes: int = 0
    send_buffer_bytes: int = 0
    copy_dscp: bool = False
    fragmentation: FragmentationPolicy = FragmentationPolicy.MAY_FRAGMENT


NO_OPTIONS: Final = SocketOptions()
"""What a socket has that nothing was asked of."""


def set_options(sock: socket.socket, options: SocketOptions) -> None:
    """Sets the options of an IPv4 or IPv6 socket that is not bound yet. Raises OptionRefused."""
    if options.mark:
        with _refusal_of("mark"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(options.mark))
    if options.bind_to_interface:
        with _refusal_of("bind_to_interface"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options.bind_to_interface.encode() + b"\0")
    if options.receive_buffer_bytes:
        set_buffer(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF, options.receive_buffer_bytes)
    if options.send_buffer_bytes:
        set_buffer(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF, options.send_buffer_bytes)
    # A socket of IPv6 sends IPv4 packets, too.
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, _PMTUDISC[options.fragmentation])
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, _PMTUDISC[options.fragmentation])


def read_options(sock: socket.socket) -> SocketOptions:
    """The options that a socket has; copy_dscp is none of its own."""
    if sock.family == socket.AF_INET6:
        policy = sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
    else:
        policy = sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER)
    (mark,) = _MARK.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.size))
    return SocketOptions(
        mark=mark,
        bind_to_interface=_interface_of(sock),
        receive_buffer_bytes=sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2,
        send_buffer_bytes=sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2,
        fragmentation=_POLICIES[policy],
    )


def _interface_of(sock: socket.socket) -> str:
    try:
        name = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _INTERFACE_NAME_SIZE)
    except OSError as error:
        if error.errno != errno.ENODEV:  # the interface is gone
            raise
        return ""
    return name.rstrip(b"\0").decode(errors="replace")


def set_buffer(sock: socket.socket, force: int, option: int, size: int) -> None:
    """Sets a buffer by its forced option; without CAP_NET_ADMIN as far as net.core.rmem_max or wmem_max allows."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, option, size)


@contextmanager
def _refusal_of(option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OptionRefused(option, error) from error
