from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from dataplane.transport.control_outlet import ControlOutlet
from dataplane.transport.sockaddr import SockAddr

V4 = IPv4Address("192.0.2.1").packed
MAPPED = IPv6Address("::ffff:192.0.2.1").packed
LOCAL_MAPPED = IPv6Address("::ffff:198.51.100.1").packed
V6 = IPv6Address("fe80::1").packed


@pytest.fixture(params=[socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[ControlOutlet, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, request.param)
    with ours:
        outlet = ControlOutlet(ours.fileno())
    theirs.settimeout(10)
    yield outlet, theirs
    outlet.close()
    theirs.close()


@pytest.mark.parametrize(
    ("source", "local", "header"),
    [
        (("192.0.2.1", 1194), None, b"\x04\0\x04\xaa" + bytes(4) + MAPPED + bytes(16)),
        (("192.0.2.1", 1194), LOCAL_MAPPED[12:], b"\x04\0\x04\xaa" + bytes(4) + MAPPED + LOCAL_MAPPED),
        (("::ffff:192.0.2.1", 1194, 0, 0), LOCAL_MAPPED, b"\x04\0\x04\xaa" + bytes(4) + MAPPED + LOCAL_MAPPED),
        (("fe80::1", 65535, 0, 7), V6, b"\x06\0\xff\xff\0\0\0\x07" + V6 + V6),
    ],
)
def test_packet_comes_behind_its_addresses(
    ends: tuple[ControlOutlet, socket.socket], source: SockAddr, local: bytes | None, header: bytes
) -> None:
    outlet, theirs = ends
    assert outlet.send(b"the packet", source, local)
    assert theirs.recv(100) == header + b"the packet"


def test_full_queue_is_told_and_does_not_wait(ends: tuple[ControlOutlet, socket.socket]) -> None:
    outlet, theirs = ends
    sent = 0
    while outlet.send(bytes([sent % 256]), ("192.0.2.1", 1194), None):
        sent += 1
    assert [theirs.recv(100)[-1] for _ in range(sent)] == [number % 256 for number in range(sent)]
    assert outlet.send(b"again", ("192.0.2.1", 1194), None)


def test_packets_for_nobody_are_told_and_end_nothing(ends: tuple[ControlOutlet, socket.socket]) -> None:
    outlet, theirs = ends
    theirs.close()
    assert not outlet.send(b"hello", ("192.0.2.1", 1194), None)


@pytest.mark.parametrize(
    ("family", "kind"), [(socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)]
)
def test_other_sockets_are_refused(family: int, kind: int) -> None:
    with socket.socket(family, kind) as other, pytest.raises(ValueError, match="no AF_UNIX socket"):
        ControlOutlet(other.fileno())


def test_what_is_no_socket_is_refused() -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="Socket operation on non-socket"):
        ControlOutlet(writing)
    os.close(reading)
    os.close(writing)
