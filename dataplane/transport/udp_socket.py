"""UDP sockets before they carry anything: making and binding one, checking one that was handed over.

Knows addresses, and with socket_options.py the options. Must not know packets (see udp.py).
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from dataplane.transport.socket_options import (
    NO_OPTIONS,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    OptionRefused,
    SocketOptions,
    set_buffer,
    set_options,
)

# Values of <linux/udp.h>; a kernel that lacks them (UDP_SEGMENT came with 4.18, UDP_GRO with 5.0) gives ENOPROTOOPT.
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

BUFFER_BYTES: Final = 4 << 20
"""Size of the send and receive buffers; the usual 208 KiB lose packets of a TCP stream, 16 MiB gain nothing."""


class NotAUdpSocket(Exception):
    """The descriptor is no UDP socket over IPv4 or IPv6."""


class SocketNotBound(Exception):
    """The socket has no local port."""


@dataclass(frozen=True, slots=True)
class UdpSocketInfo:
    """What a socket is bound to. family: AF_INET or AF_INET6; address: a v4-mapped one is shown as IPv4.

    ipv6_only: whether an AF_INET6 socket refuses IPv4 (IPV6_V6ONLY); False for AF_INET.
    """

    family: int
    address: IPv4Address | IPv6Address
    port: int
    ipv6_only: bool


def bind_udp(
    address: IPv4Address | IPv6Address,
    port: int,
    *,
    ipv6_only: bool = False,
    options: SocketOptions = NO_OPTIONS,
) -> socket.socket:
    """Makes a socket in the calling thread's network namespace and binds it; port 0..65535, 0 for any free one.

    ipv6_only concerns IPv6 addresses only. The socket receives trains (see receive_trains).
    Raises OSError: EADDRINUSE, EADDRNOTAVAIL, EACCES, …; OptionRefused.
    """
    # getaddrinfo resolves nothing here; it turns an address and its zone ("fe80::1%eth0") into the tuple for bind.
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, kind, protocol, _, sockaddr = socket.getaddrinfo(str(address), port, type=socket.SOCK_DGRAM, flags=flags)[0]
    udp = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        enlarge_buffers(udp)
        set_options(udp, options)
        receive_trains(udp)
        udp.bind(sockaddr)
    except (OSError, OptionRefused):
        udp.close()
        raise
    return udp


def enlarge_buffers(udp: socket.socket) -> None:
    """Gives a socket that has less BUFFER_BYTES each way; without CAP_NET_ADMIN what net.core.rmem_max allows."""
    for force, option in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        if udp.getsockopt(socket.SOL_SOCKET, option) >= BUFFER_BYTES:
            continue
        set_buffer(udp, force, option, BUFFER_BYTES)


def receive_trains(udp: socket.socket) -> None:
    """Has the kernel give datagrams of a flow joined to one (UDP_GRO), if it can; whoever reads must expect that."""
    try:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise


def inspect_udp(fd: int) -> UdpSocketInfo:
    """Tells what somebody's socket is bound to; changes nothing and leaves the descriptor the caller's.

    Raises NotAUdpSocket, SocketNotBound.
    """
    try:
        udp = socket.socket(fileno=fd)
    except OSError as error:
        raise NotAUdpSocket(f"not a socket: {error.strerror}") from error
    try:
        is_ip = udp.family in {socket.AF_INET, socket.AF_INET6}
        if not is_ip or udp.proto != socket.IPPROTO_UDP:
            raise NotAUdpSocket("a socket, but not UDP over IPv4 or IPv6")
        host, port = udp.getsockname()[:2]
        if port == 0:
            raise SocketNotBound("the socket is not bound to a port")
        address = ip_address(host)
        if address.version == 6 and address.ipv4_mapped:
            address = address.ipv4_mapped
        is_ipv6 = udp.family == socket.AF_INET6
        ipv6_only = is_ipv6 and bool(udp.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        return UdpSocketInfo(udp.family, address, port, ipv6_only)
    finally:
        udp.detach()
