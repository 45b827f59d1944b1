"""What both families' tests of bad requests need: a program with two devices, and what it is told."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from controlplane_shim.netlink.message import AckOptions, split
from controlplane_shim.session import Session
from tests.shim.conftest import FakeCaller
from tests.shim.netlink.conftest import NETLINK_GENERIC, NETLINK_ROUTE, attribute, message, u8

PORT_ID = 4711
UDP, TCP, NO_LINK_SOCKET, OTHER_UDP, CONNECTED, CLOSING, NO_SOCKET = range(7, 14)
"""Descriptors. NO_LINK_SOCKET: of a family that carries no peers. OTHER_UDP: of the P2P device's peer. CLOSING: a
connection whose other end is closed already."""
MP, P2P = 100, 101
FOREIGN = 1  # lo


class Told(NamedTuple):
    """The answer to a request. errno: 0 for an acknowledgement. The rest is empty unless the request failed."""

    errno: int
    sentence: str = ""
    offset: int | None = None
    missing: int | None = None
    missing_in: int | None = None


class Program:
    """OpenVPN with an MP and a P2P device of one family, a peer 3 in each."""

    def __init__(self, session: Session, caller: FakeCaller) -> None:
        self.session = session
        self.caller = caller

    def ask(self, request: bytes, protocol: int = NETLINK_GENERIC) -> Told:
        handled = self.session.handle(protocol, request, PORT_ID, self.caller, AckOptions(extended=True))
        if handled.kernel_messages:
            return Told(0)
        (last,) = split(handled.replies[-1])
        code = -struct.unpack_from("=i", last.body)[0]
        if not code:
            return Told(0)
        explained = dict(_attributes(last.body[4 + len(request) + -len(request) % 4 :]))
        numbers = [struct.unpack("=I", explained[row])[0] if row in explained else None for row in (2, 5, 6)]
        return Told(code, explained.get(1, b"").rstrip(b"\0").decode(), *numbers)

    def make_devices(self, kind: bytes, new_peers: list[bytes]) -> None:
        for name, mode in ((b"tun0\0", 1), (b"tun1\0", 0)):
            assert self.ask(new_link(kind, name, mode), NETLINK_ROUTE) == Told(0)
        for new_peer in new_peers:
            assert self.ask(new_peer) == Told(0)


def new_link(kind: bytes, name: bytes, mode: int) -> bytes:
    """RTM_NEWLINK as OpenVPN builds it."""
    info = attribute(1, kind + b"\0") + attribute(2, u8(1, mode))
    return message(16, 0x605, bytes(16) + attribute(3, name) + attribute(18, info))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, type_ = struct.unpack_from("=HH", data)
        yield type_ & 0x3FFF, data[4:length]
        data = data[length + -length % 4 :]


@pytest.fixture
def program(shim_session: Session, udp: socket.socket) -> Iterator[Program]:
    with ExitStack() as opened:
        made = {
            UDP: udp,
            TCP: opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
            NO_LINK_SOCKET: opened.enter_context(socket.socket(socket.AF_UNIX)),
            OTHER_UDP: opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        }
        made[OTHER_UDP].bind(("127.0.0.1", 0))
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        remotes = {number: socket.create_connection(server.getsockname()) for number in (CONNECTED, CLOSING)}
        for number, remote in remotes.items():
            opened.enter_context(remote)
            made[number] = opened.enter_context(server.accept()[0])
        remotes[CLOSING].close()
        assert made[CLOSING].recv(1) == b""
        file = opened.enter_context(open("/dev/null", "rb"))  # noqa: PTH123 - a descriptor is what is wanted
        numbers = {number: opened_.fileno() for number, opened_ in made.items()} | {NO_SOCKET: file.fileno()}
        caller = FakeCaller(numbers)
        yield Program(shim_session, caller)
        caller.close(CONNECTED)
