from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dataplane.datachannel.datagram import SockAddr
from dataplane.fastpath.control_outlet import hand_over
from dataplane.transport.control_outlet import ControlOutlet

SOURCES: list[tuple[SockAddr, bytes | None]] = [
    (("192.0.2.7", 1194), bytes([192, 0, 2, 1])),
    (("192.0.2.7", 65535), None),
    (("2001:db8::7", 1, 5, 0), socket.inet_pton(socket.AF_INET6, "2001:db8::1")),
    (("fe80::7", 1194, 0, 3), socket.inet_pton(socket.AF_INET6, "fe80::1")),
    (
        ("::ffff:192.0.2.7", 1194, 0, 0),
        socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1"),
    ),
    (("::ffff:192.0.2.7", 1194, 0, 0), None),
]

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    outlet, inlet = socket.socketpair(socket.AF_UNIX, request.param)
    inlet.settimeout(10)
    with outlet, inlet:
        yield outlet, inlet


@pytest.mark.parametrize(("source", "local"), SOURCES)
def test_packet_is_handed_over_as_readable_python_does(pair: Pair, source: SockAddr, local: bytes | None) -> None:
    outlet, inlet = pair
    packet = b"\x38control packet"
    readable = ControlOutlet(outlet.fileno())
    assert readable.send(packet, source, local)
    readable.close()
    assert hand_over(outlet.fileno(), packet, source, local)
    assert inlet.recv(1000) == inlet.recv(1000)


def test_no_room_is_told(pair: Pair) -> None:
    outlet, inlet = pair
    sent = 0
    while hand_over(outlet.fileno(), bytes(1000), ("192.0.2.7", 1194), None):
        sent += 1
    assert 0 < sent < 100_000
    inlet.recv(2000)
    while not hand_over(outlet.fileno(), bytes(1000), ("192.0.2.7", 1194), None):
        inlet.recv(2000)


def test_nobody_there_is_told_without_a_signal(pair: Pair) -> None:
    outlet, inlet = pair
    inlet.close()
    assert not hand_over(outlet.fileno(), b"\x38", ("192.0.2.7", 1194), None)
