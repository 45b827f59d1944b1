"""What the two kernel drivers refuse, and how the shim refuses it: real bytes through a Session.

The rows are those of the kernel drivers' bad requests. Where the driver's errno would end OpenVPN (ADR 6), or the shim
takes more than the driver, the row says what is told instead.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from errno import EADDRINUSE, EEXIST, EINVAL, ENOENT, ENOTSOCK, EOPNOTSUPP, ERANGE
from typing import Any, NamedTuple

import pytest

from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.netlink.message import AckOptions, split
from controlplane_shim.session import Session
from tests.shim.conftest import FakeCaller, FakeDataPlane
from tests.shim.netlink.conftest import (
    DCO,
    DUMP_ACK,
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    OVPN,
    attribute,
    be16,
    generic,
    keyconf_nest,
    message,
    nest,
    new_key_nest,
    sockaddr_in,
    sockaddr_in6,
    u8,
    u16,
    u32,
)

PORT_ID = 4711
UDP, TCP, NO_SOCKET = 7, 8, 9
MP, P2P = 100, 101
FOREIGN = 1  # lo

Row = tuple[str, bytes, int]


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
            info = attribute(1, kind + b"\0") + attribute(2, u8(1, mode))
            link = message(16, 0x605, bytes(16) + attribute(3, name) + attribute(18, info))
            assert self.ask(link, NETLINK_ROUTE) == Told(0)
        for new_peer in new_peers:
            assert self.ask(new_peer) == Told(0)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, type_ = struct.unpack_from("=HH", data)
        yield type_ & 0x3FFF, data[4:length]
        data = data[length + -length % 4 :]


@pytest.fixture
def program(shim_session: Session, udp: socket.socket) -> Iterator[Program]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, socket.socket(socket.AF_UNIX) as unix:
        yield Program(shim_session, FakeCaller({UDP: udp.fileno(), TCP: tcp.fileno(), NO_SOCKET: unix.fileno()}))


# ovpn-dco-v2


def dco(command: int, *attributes: bytes, ifindex: int = MP, flags: int = 0x5) -> bytes:
    return generic(DCO, command, u32(1, ifindex), *attributes, flags=flags)


REMOTE = attribute(2, sockaddr_in("127.0.0.1", 1194))
VPN = attribute(4, bytes([10, 8, 0, 9]))


def dco_peer(*attributes: bytes, peer_id: int = 9, fd: int = UDP, ifindex: int = MP) -> bytes:
    return dco(1, nest(2, u32(1, peer_id), u32(3, fd), *attributes), ifindex=ifindex)


DCO_COMMANDS: dict[str, Callable[[int], bytes]] = {
    "SET_PEER": lambda peer_id: dco(2, nest(3, u32(1, peer_id), u32(2, 10), u32(3, 60))),
    "DEL_PEER": lambda peer_id: dco(3, nest(4, u32(2, peer_id))),
    "SWAP_KEYS": lambda peer_id: dco(5, nest(6, u32(1, peer_id))),
    "DEL_KEY": lambda peer_id: dco(6, nest(7, u32(1, peer_id), u8(2, 1))),
    "GET_PEER": lambda peer_id: dco(7, nest(8, u32(1, peer_id))),
}
DCO_ROWS: list[Row] = [
    ("no IFINDEX", generic(DCO, 1, nest(2, u32(1, 9), u32(3, UDP), REMOTE, VPN)), EINVAL),
    ("no such ifindex (ENODEV would end OpenVPN)", dco_peer(REMOTE, VPN, ifindex=4242), EINVAL),
    ("interface is no ovpn-dco", dco_peer(REMOTE, VPN, ifindex=FOREIGN), EINVAL),
    ("nest missing", dco(1), EINVAL),
    ("mandatory attribute missing", dco(1, nest(2, u32(1, 9), REMOTE, VPN)), EINVAL),
    ("MP without VPN address", dco_peer(REMOTE), EINVAL),
    ("descriptor is none", dco_peer(REMOTE, VPN, fd=987654), ENOTSOCK),
    ("descriptor is neither UDP nor TCP", dco_peer(REMOTE, VPN, fd=NO_SOCKET), ENOTSOCK),
    ("UDP without remote", dco_peer(VPN), EINVAL),
    ("remote of a wrong size", dco_peer(attribute(2, sockaddr_in("127.0.0.1", 1) + bytes(4)), VPN), EINVAL),
    ("remote of a wrong family", dco_peer(attribute(2, b"\1\0" + bytes(14)), VPN), EINVAL),
    ("local of a wrong length", dco_peer(REMOTE, VPN, attribute(6, bytes(6))), EINVAL),
    ("local of another family", dco_peer(REMOTE, VPN, attribute(6, bytes(15) + b"\1")), EINVAL),
    ("duplicate peer in P2P replaces", dco_peer(REMOTE, peer_id=4, ifindex=P2P), 0),
    *((f"unknown peer: {name}", make(8), ENOENT) for name, make in DCO_COMMANDS.items()),
    ("unknown peer: NEW_KEY (any errno would end OpenVPN)", dco(4, new_key_nest(peer_id=u32(1, 8))), 0),
    ("cipher none", dco(4, new_key_nest(cipher=u16(4, 0))), EINVAL),
    ("cipher unknown", dco(4, new_key_nest(cipher=u16(4, 3))), EINVAL),
    (
        "key of a bad length",
        dco(4, new_key_nest(encrypt=nest(5, attribute(1, b"E" * 9), attribute(2, bytes(8))))),
        EINVAL,
    ),
    ("swap with empty slots", DCO_COMMANDS["SWAP_KEYS"](3), 0),
    ("delete of an empty slot", DCO_COMMANDS["DEL_KEY"](3), 0),
    ("only the interval", dco(2, nest(3, u32(1, 3), u32(2, 10))), 0),
    ("only the timeout", dco(2, nest(3, u32(1, 3), u32(3, 10))), 0),
    ("peer-id above 24 bits", dco_peer(REMOTE, VPN, peer_id=0x1000009), 0),
]


@pytest.fixture
def program_26(program: Program) -> Program:
    peers = [dco_peer(REMOTE, VPN, peer_id=3), dco_peer(REMOTE, peer_id=3, ifindex=P2P)]
    program.make_devices(b"ovpn-dco", peers)
    return program


@pytest.mark.parametrize(("request_", "errno"), [pytest.param(*row[1:], id=row[0]) for row in DCO_ROWS])
def test_ovpn_dco_v2_answers_as_the_driver(program_26: Program, request_: bytes, errno: int) -> None:
    assert program_26.ask(request_).errno == errno


@pytest.mark.parametrize(("reason", "errno"), [("PEER_EXISTS", EEXIST), ("NOT_A_UDP_SOCKET", ENOTSOCK)])
def test_ovpn_dco_v2_tells_what_the_data_plane_refuses(
    program_26: Program, dataplane: FakeDataPlane, reason: str, errno: int
) -> None:
    dataplane.fail("create_peer", DataPlaneError("FAILED_PRECONDITION", reason, "why"))
    assert program_26.ask(dco_peer(REMOTE, VPN)).errno == errno


# ovpn


def ovpn(command: int, *attributes: bytes, ifindex: int = MP, flags: int = 0x5) -> bytes:
    return generic(OVPN, command, u32(1, ifindex), *attributes, flags=flags)


REMOTE4 = attribute(2, bytes([192, 0, 2, 1]))
REMOTE6 = attribute(3, socket.inet_pton(socket.AF_INET6, "2001:db8::1"))
MAPPED6 = attribute(3, socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1"))
PORT = be16(5, 1194)
VPN4 = attribute(8, bytes([10, 8, 0, 9]))
LOCAL4 = attribute(10, bytes([192, 0, 2, 2]))
LOCAL6 = attribute(11, socket.inet_pton(socket.AF_INET6, "2001:db8::2"))
IFINDEX_AT, NEST_AT, INNER_AT = 20, 28, 32


def ovpn_peer(*attributes: bytes, command: int = 1, ifindex: int = MP) -> bytes:
    """PEER_NEW of peer 9 on the UDP socket, or PEER_SET of peer 3."""
    begin = (u32(1, 9), u32(6, UDP)) if command == 1 else (u32(1, 3),)
    return ovpn(command, nest(2, *begin, *attributes), ifindex=ifindex)


OVPN_COMMANDS: dict[str, Callable[[int], bytes]] = {
    "PEER_SET": lambda peer_id: ovpn(2, nest(2, u32(1, peer_id), u32(13, 10), u32(14, 60))),
    "PEER_GET": lambda peer_id: ovpn(3, nest(2, u32(1, peer_id))),
    "PEER_DEL": lambda peer_id: ovpn(4, nest(2, u32(1, peer_id))),
    "KEY_GET": lambda peer_id: ovpn(7, nest(3, u32(1, peer_id), u32(2, 0))),
    "KEY_SWAP": lambda peer_id: ovpn(8, nest(3, u32(1, peer_id))),
    "KEY_DEL": lambda peer_id: ovpn(10, nest(3, u32(1, peer_id), u32(2, 1))),
}
OUT_OF_RANGE = "integer out of range"
OVPN_ROWS: list[tuple[str, bytes, Told]] = [
    ("peer-id above 24 bits", OVPN_COMMANDS["PEER_DEL"](1 << 24), Told(ERANGE, OUT_OF_RANGE, INNER_AT)),
    ("key-id 8", ovpn(6, keyconf_nest(key_id=u32(3, 8))), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 16)),
    ("slot 2", ovpn(10, nest(3, u32(1, 3), u32(2, 2))), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 8)),
    ("cipher 3", ovpn(6, keyconf_nest(cipher=u32(4, 3))), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 24)),
    ("port 0", ovpn_peer(REMOTE4, be16(5, 0), VPN4), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 24)),
    ("integer of a wrong size", ovpn(4, nest(2, u16(1, 3))), Told(EINVAL, "invalid attribute length", INNER_AT)),
    ("attribute unknown", ovpn(4, nest(2, u32(1, 3), u32(2, 1))), Told(EINVAL, "Unknown attribute type", INNER_AT + 8)),
    ("attribute not taken", ovpn_peer(u32(6, UDP), command=2), Told(EINVAL, "Unsupported attribute", INNER_AT + 8)),
    ("nest of another command", ovpn(6, nest(2, u32(1, 3))), Told(EINVAL, "Unsupported attribute", NEST_AT)),
    ("no nested flag", ovpn(4, attribute(2, u32(1, 3))), Told(EINVAL, "NLA_F_NESTED is missing", NEST_AT)),
    (
        "header bits",
        ovpn(4, nest(2, u32(1, 3)), flags=0x105),
        Told(EINVAL, "ambiguous or reserved bits set in nlmsg_flags"),
    ),
    ("command unknown", ovpn(5), Told(EOPNOTSUPP, "ovpn: command 5 is unknown or cannot dump")),
    ("dump of another command", ovpn(4, flags=DUMP_ACK), Told(EOPNOTSUPP, "ovpn: command 4 is unknown or cannot dump")),
    (
        "dump with a nest",
        ovpn(3, nest(2), flags=DUMP_ACK),
        Told(EINVAL, "Unknown attribute type", NEST_AT),
    ),
    *(
        (f"unknown peer: {name}", make(8), Told(ENOENT, "ovpn: cannot find peer with id 8"))
        for name, make in OVPN_COMMANDS.items()
    ),
    ("unknown peer: KEY_NEW (any errno would end OpenVPN)", ovpn(6, keyconf_nest(peer_id=u32(1, 8))), Told(0)),
    ("cipher none", ovpn(6, keyconf_nest(cipher=u32(4, 0))), Told(EINVAL, "ovpn: unsupported cipher")),
    (
        "cipher none, before the peer",
        ovpn(6, keyconf_nest(cipher=u32(4, 0), peer_id=u32(1, 8))),
        Told(EINVAL, "ovpn: unsupported cipher"),
    ),
    (
        "key missing",
        ovpn(6, keyconf_nest(encrypt=nest(5, attribute(2, bytes(8))))),
        Told(EINVAL, "ovpn: CIPHER_KEY is missing", missing=1, missing_in=INNER_AT + 32),
    ),
    (
        "nonce missing",
        ovpn(6, keyconf_nest(encrypt=nest(5, attribute(1, bytes(32))))),
        Told(EINVAL, "ovpn: NONCE_TAIL is missing", missing=2, missing_in=INNER_AT + 32),
    ),
    (
        "key of a wrong length",
        ovpn(6, keyconf_nest(decrypt=nest(6, attribute(1, bytes(31)), attribute(2, bytes(8))))),
        Told(EINVAL, "ovpn: CIPHER_KEYs of 32 and 31 bytes"),
    ),
    ("swap with empty slots", OVPN_COMMANDS["KEY_SWAP"](3), Told(0)),
    ("delete of an empty slot", OVPN_COMMANDS["KEY_DEL"](3), Told(0)),
    ("PEER_GET with more than ID", ovpn(3, nest(2, u32(1, 3), VPN4)), Told(EINVAL, "ovpn: unexpected attribute 8")),
    (
        "KEY_GET with more than PEER_ID and SLOT",
        ovpn(7, nest(3, u32(1, 3), u32(2, 0), u32(3, 1))),
        Told(EINVAL, "ovpn: unexpected attribute 3"),
    ),
    ("KEY_DEL with a SLOT of one byte, as OpenVPN 3 has it", ovpn(10, nest(3, u32(1, 3), u8(2, 0))), Told(0)),
    ("TX_ID of its own", ovpn_peer(REMOTE4, PORT, VPN4, u32(24, 10)), Told(0)),
    ("second peer in P2P replaces", ovpn_peer(REMOTE4, PORT, ifindex=P2P), Told(0)),
]


@pytest.fixture
def program_27(program: Program) -> Program:
    peer = nest(2, u32(1, 3), u32(6, UDP), REMOTE4, PORT, VPN4)
    only = nest(2, u32(1, 3), u32(6, UDP), REMOTE4, PORT)
    program.make_devices(b"ovpn", [ovpn(1, peer), ovpn(1, only, ifindex=P2P)])
    return program


@pytest.mark.parametrize(("request_", "told"), [pytest.param(*row[1:], id=row[0]) for row in OVPN_ROWS])
def test_ovpn_answers_as_the_driver(program_27: Program, request_: bytes, told: Told) -> None:
    assert program_27.ask(request_) == told


# Each item breaks its own rule and every later one that it can; so the first says which comes first.
ORDER: list[tuple[str, bytes, Told]] = [
    (
        "IFINDEX missing",
        generic(OVPN, 1, nest(2)),
        Told(EINVAL, "ovpn: IFINDEX is missing", missing=1),
    ),
    (
        "no device (ENODEV would end OpenVPN)",
        ovpn(1, ifindex=4242),
        Told(EINVAL, "ovpn: interface 4242 is no ovpn device of this session", IFINDEX_AT),
    ),
    ("PEER missing", ovpn(1), Told(EINVAL, "ovpn: PEER is missing", missing=2)),
    (
        "ID missing",
        ovpn(1, nest(2, REMOTE4, REMOTE6)),
        Told(EINVAL, "ovpn: ID is missing", missing=1, missing_in=NEST_AT),
    ),
    *(
        (sentence, ovpn(command, nest(2, u32(1, 3), *attributes), ifindex=ifindex), Told(EINVAL, f"ovpn: {sentence}"))
        for command in (1, 2)
        for sentence, ifindex, attributes in (
            ("cannot specify both remote IPv4 or IPv6 address", P2P, (REMOTE4, REMOTE6, VPN4)),
            ("cannot specify remote port without IP address", P2P, (PORT, LOCAL4, VPN4)),
            ("cannot specify remote IP address without port", P2P, (REMOTE4, LOCAL6, VPN4)),
            ("cannot specify local IPv4 address without remote", P2P, (LOCAL4, LOCAL6, VPN4)),
            ("cannot specify local IPV6 address without remote", P2P, (LOCAL6, u32(4, 1), VPN4)),
            ("mismatching local and remote address families", P2P, (MAPPED6, PORT, LOCAL6, u32(4, 1), VPN4)),
            ("cannot specify scope id without remote IPv6 address", P2P, (MAPPED6, PORT, u32(4, 1), VPN4)),
            ("unexpected VPN IP in P2P mode", P2P, (REMOTE4, PORT, VPN4, u32(13, 1))),
            ("keepalive interval and timeout are required together", P2P, (REMOTE4, PORT, u32(13, 1))),
            ("keepalive interval and timeout are required together", MP, (REMOTE4, PORT, u32(14, 1))),
        )
    ),
    (
        "SOCKET missing",
        ovpn(1, nest(2, u32(1, 9))),
        Told(EINVAL, "ovpn: SOCKET is missing", missing=6, missing_in=NEST_AT),
    ),
    (
        "MP without VPN address",
        ovpn(1, nest(2, u32(1, 9), u32(6, 987654), attribute(8, bytes(4)))),
        Told(EINVAL, "ovpn: at least one VPN IP must be configured in MP mode"),
    ),
    (
        "descriptor is none",
        ovpn(1, nest(2, u32(1, 9), u32(6, 987654), VPN4)),
        Told(ENOTSOCK, "ovpn: descriptor 987654 of OpenVPN: Bad file descriptor"),
    ),
    ("UDP without remote", ovpn_peer(VPN4), Told(EINVAL, "ovpn: missing remote IP address for UDP socket")),
]


@pytest.mark.parametrize(("request_", "told"), [pytest.param(*row[1:], id=row[0]) for row in ORDER])
def test_ovpn_checks_a_peer_in_the_drivers_order(program_27: Program, request_: bytes, told: Told) -> None:
    assert program_27.ask(request_) == told


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("PEER_EXISTS", Told(EEXIST, "ovpn: PEER_EXISTS: why")),
        ("VPN_ADDRESS_IN_USE", Told(EADDRINUSE, "ovpn: VPN_ADDRESS_IN_USE: why")),
    ],
)
def test_ovpn_tells_what_the_data_plane_refuses(
    program_27: Program, dataplane: FakeDataPlane, reason: str, told: Told
) -> None:
    dataplane.fail("create_peer", DataPlaneError("ALREADY_EXISTS", reason, "why"))
    assert program_27.ask(ovpn_peer(REMOTE4, PORT, VPN4)) == told


def test_the_key_of_an_empty_slot_is_not_found(program_27: Program, dataplane: FakeDataPlane) -> None:
    dataplane.fail("get_key", DataPlaneError("NOT_FOUND", "KEY_SLOT_EMPTY", "why"))
    assert program_27.ask(OVPN_COMMANDS["KEY_GET"](3)) == Told(ENOENT, "ovpn: KEY_SLOT_EMPTY: why")


def test_a_key_that_the_data_plane_refuses_is_acknowledged_for_any_errno_ends_openvpn(
    program_27: Program, dataplane: FakeDataPlane
) -> None:
    dataplane.fail("install_key", DataPlaneError("INVALID_ARGUMENT", "FIELD_INVALID", "why"))
    assert program_27.ask(ovpn(6, keyconf_nest())) == Told(0)
    assert program_27.ask(OVPN_COMMANDS["PEER_GET"](3)).errno == ENOENT


def test_a_device_of_one_family_is_none_of_the_other(program_27: Program) -> None:
    assert program_27.ask(dco_peer(REMOTE, VPN)).errno == EINVAL


def test_ipv6_remotes_are_taken_with_their_scope(program_26: Program) -> None:
    assert program_26.ask(dco_peer(attribute(2, sockaddr_in6("fe80::1", 1194, 2)), VPN)).errno == 0


def test_a_socket_that_wants_no_explanation_gets_none(program_27: Program) -> None:
    request = OVPN_COMMANDS["PEER_GET"](8)
    (plain,) = program_27.session.handle(NETLINK_GENERIC, request, PORT_ID, program_27.caller).replies
    assert plain == struct.pack("=IHHIIi", 20 + len(request), 2, 0, 7, PORT_ID, -ENOENT) + request


def test_a_socket_that_wants_short_answers_gets_the_header_of_its_request_only(program_27: Program) -> None:
    request = OVPN_COMMANDS["PEER_GET"](8)
    options = AckOptions(extended=True, capped=True)
    (told,) = program_27.session.handle(NETLINK_GENERIC, request, PORT_ID, program_27.caller, options).replies
    sentence = attribute(1, b"ovpn: cannot find peer with id 8\0")
    body = struct.pack("=i", -ENOENT) + request[:16] + sentence
    assert told == message(2, 0x300, body, port_id=PORT_ID)


def test_the_policy_that_was_broken_is_told(program_27: Program) -> None:
    request = ovpn(10, nest(3, u32(1, 3), u32(2, 2)))
    options = AckOptions(extended=True)
    (told,) = program_27.session.handle(NETLINK_GENERIC, request, PORT_ID, program_27.caller, options).replies
    bounds = attribute(4, struct.pack("=Q", 0)) + attribute(5, struct.pack("=Q", 1)) + u32(1, 4)
    explanation: Any = attribute(1, b"integer out of range\0") + u32(2, INNER_AT + 8) + nest(4, bounds)
    assert told == message(2, 0x200, struct.pack("=i", -ERANGE) + request + explanation, port_id=PORT_ID)
