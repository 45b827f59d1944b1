"""Network namespaces that nobody else sees, and what tests do in them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Final

import pytest
from pyroute2 import IPRoute

from dataplane.tun.device import TUNSETIFF, open_tun
from dataplane.tun.link import IFF_UP, get_link, set_link
from dataplane.tun.network_namespace import CLONE_NEWNET, in_network_namespace

RTMGRP_LINK: Final = 1
NLMSGHDR_SIZE: Final = 16
IFINFOMSG: Final = struct.Struct("=BxHiI")  # family, type, index, flags
IFF_LOWER_UP: Final = 1 << 16


@contextmanager
def fresh_namespace() -> Iterator[str]:
    """Gives the path of a new network namespace, which has no name and lives as long as a descriptor of it.

    Its interfaces speak no IPv6 of their own accord, so that a test sees only packets that it caused.
    """

    def make() -> int:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare: this test needs root")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    with ThreadPoolExecutor(max_workers=1) as thread:
        fd = thread.submit(make).result()
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def enable_ipv6(namespace: str, interface: str) -> None:
    path = Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
    in_network_namespace(namespace, lambda: path.write_text("0"))


def wait_for_addresses(namespace: str) -> None:
    """Returns once the IPv6 addresses can be bound.

    They are tentative at first, also where nobody could have the same: Linux ends that in a thread of its own.
    """
    ifa_f_tentative = 0x40

    def some_are_tentative() -> bool:
        lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
        return any(int(line.split()[4], 16) & ifa_f_tentative for line in lines)

    while in_network_namespace(namespace, some_are_tentative):
        pass


@contextmanager
def tun_in(namespace: str, name: str, *addresses: str) -> Iterator[int]:
    """A TUN in a namespace, up, with these addresses: its descriptor."""
    fd, _ = in_network_namespace(namespace, lambda: open_tun(name))
    try:
        set_link(name, namespace, admin_up=True, addresses=[ip_interface(address) for address in addresses])
        yield fd
    finally:
        os.close(fd)


def opened_with(namespace: str, flags: int) -> int:
    """A descriptor of a new interface "tun0" with these IFF_ flags."""

    def make() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tun0", flags))
        return fd

    return in_network_namespace(namespace, make)


def udp_in(namespace: str, address: str, port: int = 0) -> socket.socket:
    """A UDP socket of a namespace, bound; waits ten seconds for a packet at most."""

    def make() -> socket.socket:
        udp = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, port))
        return udp

    udp = in_network_namespace(namespace, make)
    udp.settimeout(10)
    return udp


def delete_link(namespace: str, name: str) -> None:
    index = get_link(name, namespace).index

    def delete() -> None:
        with IPRoute() as rtnetlink:
            rtnetlink.link("del", index=index)

    in_network_namespace(namespace, delete)


class LinkNotices:
    """What Linux tells of changes to an interface of a namespace (RTM_NEWLINK), which may not be there yet."""

    def __init__(self, namespace: str, interface: str) -> None:
        self._name = interface.encode() + b"\0"

        def listen() -> socket.socket:
            return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

        self._rtnetlink = in_network_namespace(namespace, listen)
        self._rtnetlink.bind((0, RTMGRP_LINK))
        self._rtnetlink.settimeout(10)

    def wait_for_carrier(self, *, on: bool) -> None:
        """Waits for one that says so; by then Linux has done what is to be done about it."""
        while (self._next_flags() & IFF_LOWER_UP != 0) is not on:
            pass

    def first_carrier_when_up(self) -> bool:
        """Whether it has a carrier in the first notice in which it is up."""
        while not (flags := self._next_flags()) & IFF_UP:
            pass
        return bool(flags & IFF_LOWER_UP)

    def _next_flags(self) -> int:
        while self._name not in (message := self._rtnetlink.recv(1 << 16)):
            pass
        flags: int = IFINFOMSG.unpack_from(message, NLMSGHDR_SIZE)[-1]
        return flags

    def close(self) -> None:
        self._rtnetlink.close()


def ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet (RFC 791)."""
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + addresses
    total = sum(struct.unpack(">10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", total ^ 0xFFFF) + header[12:] + payload


def ipv4_udp(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram (RFC 768), the latter without a checksum."""
    udp = struct.pack(">HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    return ipv4(source[0], destination[0], socket.IPPROTO_UDP, udp)


@pytest.fixture
def namespace() -> Iterator[str]:
    with fresh_namespace() as path:
        yield path
