"""What driver ovpn refuses, in what order and words, and how the shim refuses it: real bytes through a Session.

Where the driver's errno would end OpenVPN (ADR 6), or the shim does otherwise for another reason (ADR 12), the row says
so.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EADDRINUSE, EEXIST, EINVAL, ENOENT, ENOTSOCK, EOPNOTSUPP, ERANGE
from socket import AF_INET6, inet_pton

import pytest
from ovpn.dataplane.v1 import common_pb2

from controlplane_shim.dataplane_client import DataPlaneError
from tests.shim.bad_requests.conftest import (
    CLOSING,
    CONNECTED,
    FOREIGN,
    MP,
    NO_LINK_SOCKET,
    NO_SOCKET,
    OTHER_UDP,
    P2P,
    TCP,
    UDP,
    Program,
    Told,
)
from tests.shim.conftest import FakeDataPlane
from tests.shim.netlink.conftest import (
    DCO,
    DUMP_ACK,
    OVPN,
    attribute,
    be16,
    generic,
    keyconf_nest,
    nest,
    u8,
    u16,
    u32,
)

Row = tuple[str, bytes, Told]


def ovpn(command: int, *attributes: bytes, ifindex: int = MP, flags: int = 0x5) -> bytes:
    return generic(OVPN, command, u32(1, ifindex), *attributes, flags=flags)


REMOTE4 = attribute(2, bytes([192, 0, 2, 1]))
REMOTE6 = attribute(3, inet_pton(AF_INET6, "2001:db8::1"))
MAPPED6 = attribute(3, inet_pton(AF_INET6, "::ffff:192.0.2.1"))
PORT = be16(5, 1194)
VPN4 = attribute(8, bytes([10, 8, 0, 9]))
LOCAL4 = attribute(10, bytes([192, 0, 2, 2]))
LOCAL6 = attribute(11, inet_pton(AF_INET6, "2001:db8::2"))
IFINDEX_AT, NEST_AT, INNER_AT = 20, 28, 32


def ovpn_peer(*attributes: bytes, command: int = 1, ifindex: int = MP, fd: int = UDP) -> bytes:
    """PEER_NEW of peer 9 on this socket, or PEER_SET of peer 3."""
    begin = (u32(1, 9), u32(6, fd)) if command == 1 else (u32(1, 3),)
    return ovpn(command, nest(2, *begin, *attributes), ifindex=ifindex)


COMMANDS: dict[str, Callable[[int], bytes]] = {
    "PEER_SET": lambda peer_id: ovpn(2, nest(2, u32(1, peer_id), u32(13, 10), u32(14, 60))),
    "PEER_GET": lambda peer_id: ovpn(3, nest(2, u32(1, peer_id))),
    "PEER_DEL": lambda peer_id: ovpn(4, nest(2, u32(1, peer_id))),
    "KEY_GET": lambda peer_id: ovpn(7, nest(3, u32(1, peer_id), u32(2, 0))),
    "KEY_SWAP": lambda peer_id: ovpn(8, nest(3, u32(1, peer_id))),
    "KEY_DEL": lambda peer_id: ovpn(10, nest(3, u32(1, peer_id), u32(2, 1))),
}
OUT_OF_RANGE = "integer out of range"
KEYCONF = ("peer_id", "slot", "key_id", "cipher", "encrypt", "decrypt")
BAD_SIZE = "binary attribute size out of range"
TAKEN: dict[int, set[int]] = {
    1: {*range(1, 7), *range(8, 12), 13, 14, 24},
    2: {*range(1, 6), *range(8, 12), 13, 14, 24},
    4: {1},
    6: {1, 2, 3, 4, 5, 6},
    8: {1},
    10: {1, 2},
}
"""By command, what its policy has of the nest. The GETs take all of it, and then refuse what is not expected."""


def not_taken(command: int, number: int) -> tuple[bytes, Told]:
    """Below the highest number of a policy the kernel says that an attribute is not supported, above it is unknown."""
    sentence = "Unsupported attribute" if number < max(TAKEN[command]) else "Unknown attribute type"
    request = ovpn(command, nest(2 if command < 6 else 3, attribute(number, bytes(4))))
    return request, Told(EINVAL, sentence, INNER_AT)


def missing(name: str, number: int) -> Told:
    return Told(EINVAL, f"ovpn: {name} is missing", missing=number, missing_in=NEST_AT)


ROWS: list[Row] = [
    ("peer-id above 24 bits", COMMANDS["PEER_DEL"](1 << 24), Told(ERANGE, OUT_OF_RANGE, INNER_AT)),
    ("key-id 8", ovpn(6, keyconf_nest(key_id=u32(3, 8))), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 16)),
    ("slot 2", ovpn(10, nest(3, u32(1, 3), u32(2, 2))), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 8)),
    ("cipher 3", ovpn(6, keyconf_nest(cipher=u32(4, 3))), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 24)),
    ("port 0", ovpn_peer(REMOTE4, be16(5, 0), VPN4), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 24)),
    ("peer-id of a key above 24 bits", ovpn(8, nest(3, u32(1, 1 << 24))), Told(ERANGE, OUT_OF_RANGE, INNER_AT)),
    ("TX_ID above 24 bits", ovpn_peer(u32(24, 1 << 24), command=2), Told(ERANGE, OUT_OF_RANGE, INNER_AT + 8)),
    ("DEL_REASON 5", ovpn(3, nest(2, u32(15, 5))), Told(ERANGE, OUT_OF_RANGE, INNER_AT)),
    ("local port 0", ovpn(3, nest(2, be16(12, 0))), Told(ERANGE, OUT_OF_RANGE, INNER_AT)),
    *(
        (
            f"address {number} of 15 bytes",
            ovpn(2, nest(2, attribute(number, bytes(15)))),
            Told(ERANGE, BAD_SIZE, INNER_AT),
        )
        for number in (3, 9, 11)
    ),
    (
        "key above 256 bytes",
        ovpn(6, keyconf_nest(encrypt=nest(5, attribute(1, bytes(257)), attribute(2, bytes(8))))),
        Told(ERANGE, BAD_SIZE, INNER_AT + 36),
    ),
    (
        "nonce of 9 bytes",
        ovpn(6, keyconf_nest(encrypt=nest(5, attribute(2, bytes(9))))),
        Told(ERANGE, BAD_SIZE, INNER_AT + 36),
    ),
    (
        "keepalive above a day (ERANGE in later kernels; taken as a day)",
        ovpn_peer(u32(13, 86401), u32(14, 86401), command=2),
        Told(0),
    ),
    ("integer of a wrong size", ovpn(4, nest(2, u16(1, 3))), Told(EINVAL, "invalid attribute length", INNER_AT)),
    ("attribute unknown", ovpn(4, nest(2, u32(1, 3), u32(2, 1))), Told(EINVAL, "Unknown attribute type", INNER_AT + 8)),
    ("attribute not taken", ovpn_peer(u32(6, UDP), command=2), Told(EINVAL, "Unsupported attribute", INNER_AT + 8)),
    *(
        (f"attribute {number} not taken by command {command}", *not_taken(command, number))
        for command, taken in TAKEN.items()
        for number in range(1, 25 if command < 6 else 7)
        if number not in taken
    ),
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
        for name, make in COMMANDS.items()
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
    *(
        (f"{name} of KEY_NEW missing", ovpn(6, keyconf_nest(**{KEYCONF[number - 1]: b""})), missing(name, number))
        for number, name in enumerate(("PEER_ID", "SLOT", "KEY_ID", "CIPHER_ALG", "ENCRYPT_DIR", "DECRYPT_DIR"), 1)
    ),
    (
        "key of a wrong length",
        ovpn(6, keyconf_nest(decrypt=nest(6, attribute(1, bytes(31)), attribute(2, bytes(8))))),
        Told(EINVAL, "ovpn: CIPHER_KEYs of 32 and 31 bytes"),
    ),
    ("swap with empty slots", COMMANDS["KEY_SWAP"](3), Told(0)),
    ("delete of an empty slot", COMMANDS["KEY_DEL"](3), Told(0)),
    ("PEER_GET with more than ID", ovpn(3, nest(2, u32(1, 3), VPN4)), Told(EINVAL, "ovpn: unexpected attribute 8")),
    (
        "KEY_GET with more than PEER_ID and SLOT",
        ovpn(7, nest(3, u32(1, 3), u32(2, 0), u32(3, 1))),
        Told(EINVAL, "ovpn: unexpected attribute 3"),
    ),
    ("KEY_DEL with a SLOT of one byte, as OpenVPN 3 has it", ovpn(10, nest(3, u32(1, 3), u8(2, 0))), Told(0)),
    (
        "the undefined peer-id (taken by the driver)",
        ovpn(1, nest(2, u32(1, 0xFFFFFF), u32(6, UDP), REMOTE4, PORT, VPN4)),
        Told(EINVAL, "ovpn: ID stands for an undefined peer"),
    ),
    ("TX_ID of its own", ovpn_peer(REMOTE4, PORT, VPN4, u32(24, 10)), Told(0)),
    ("second peer in P2P replaces", ovpn_peer(REMOTE4, PORT, ifindex=P2P, fd=OTHER_UDP), Told(0)),
]


@pytest.fixture
def openvpn(program: Program) -> Program:
    peer = nest(2, u32(1, 3), u32(6, UDP), REMOTE4, PORT, VPN4)
    only = nest(2, u32(1, 3), u32(6, OTHER_UDP), REMOTE4, PORT)
    program.make_devices(b"ovpn", [ovpn(1, peer), ovpn(1, only, ifindex=P2P)])
    return program


@pytest.mark.parametrize(("request_", "told"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_a_request_is_answered_as_by_the_driver(openvpn: Program, request_: bytes, told: Told) -> None:
    assert openvpn.ask(request_) == told


# Each item breaks its own rule and every later one that it can; so the first says which comes first.
ORDER: list[Row] = [
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
    (
        "not an ovpn device",
        ovpn(1, ifindex=FOREIGN),
        Told(EINVAL, f"ovpn: interface {FOREIGN} is no ovpn device of this session", IFINDEX_AT),
    ),
    ("PEER missing", ovpn(1), Told(EINVAL, "ovpn: PEER is missing", missing=2)),
    (
        "the tables, of all before the device (in the driver's core, too)",
        ovpn(1, nest(2, u32(1, 1 << 24)), ifindex=4242),
        Told(ERANGE, OUT_OF_RANGE, INNER_AT),
    ),
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
    ("descriptor is no socket", ovpn_peer(VPN4, fd=NO_SOCKET), Told(ENOTSOCK, "ovpn: the descriptor is not a socket")),
    (
        "descriptor is neither UDP nor TCP",
        ovpn_peer(VPN4, fd=NO_LINK_SOCKET),
        Told(ENOTSOCK, "ovpn: the socket is neither UDP nor TCP"),
    ),
    (
        "TCP, never connected",
        ovpn_peer(VPN4, fd=TCP),
        Told(ENOTSOCK, "ovpn: the TCP socket is in state 7, not established"),
    ),
    (
        "TCP, closed by the other end",
        ovpn_peer(VPN4, fd=CLOSING),
        Told(ENOTSOCK, "ovpn: the TCP socket is in state 8, not established"),
    ),
    ("TCP with remote, as OpenVPN 3 has it", ovpn_peer(REMOTE4, PORT, VPN4, fd=CONNECTED), Told(0)),
    ("UDP without remote", ovpn_peer(VPN4), Told(EINVAL, "ovpn: missing remote IP address for UDP socket")),
]


@pytest.mark.parametrize(("request_", "told"), [pytest.param(*row[1:], id=row[0]) for row in ORDER])
def test_a_peer_is_checked_in_the_drivers_order(openvpn: Program, request_: bytes, told: Told) -> None:
    assert openvpn.ask(request_) == told


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("PEER_EXISTS", Told(EEXIST, "ovpn: PEER_EXISTS: why")),
        ("VPN_ADDRESS_IN_USE", Told(EADDRINUSE, "ovpn: VPN_ADDRESS_IN_USE: why")),
    ],
)
def test_what_the_data_plane_refuses_is_told(
    openvpn: Program, dataplane: FakeDataPlane, reason: str, told: Told
) -> None:
    dataplane.fail("create_peer", DataPlaneError("ALREADY_EXISTS", reason, "why"))
    assert openvpn.ask(ovpn_peer(REMOTE4, PORT, VPN4)) == told


def test_the_key_of_an_empty_slot_is_not_found(openvpn: Program, dataplane: FakeDataPlane) -> None:
    dataplane.fail("get_key", DataPlaneError("NOT_FOUND", "KEY_SLOT_EMPTY", "why"))
    assert openvpn.ask(COMMANDS["KEY_GET"](3)) == Told(ENOENT, "ovpn: KEY_SLOT_EMPTY: why")


def test_a_key_that_the_data_plane_refuses_is_acknowledged_for_any_errno_ends_openvpn(
    openvpn: Program, dataplane: FakeDataPlane
) -> None:
    dataplane.fail("install_key", DataPlaneError("INVALID_ARGUMENT", "FIELD_INVALID", "why"))
    assert openvpn.ask(ovpn(6, keyconf_nest())) == Told(0)
    assert openvpn.ask(COMMANDS["PEER_GET"](3)).errno == ENOENT


def test_a_socket_carries_the_peers_of_one_device(openvpn: Program, dataplane: FakeDataPlane) -> None:
    ((request,), _) = dataplane.calls("create_device")
    told = Told(ENOTSOCK, f"ovpn: the socket is used by device {request.device.name}")
    assert openvpn.ask(ovpn_peer(REMOTE4, PORT, ifindex=P2P)) == told


def test_a_connection_has_one_peer(openvpn: Program) -> None:
    assert openvpn.ask(ovpn_peer(VPN4, fd=CONNECTED)) == Told(0)
    second = ovpn(1, nest(2, u32(1, 10), u32(6, CONNECTED), attribute(8, bytes([10, 8, 0, 10]))))
    assert openvpn.ask(second) == Told(ENOTSOCK, "ovpn: the TCP socket has a peer already")


def test_the_remote_of_a_connection_cannot_be_changed(openvpn: Program) -> None:
    assert openvpn.ask(ovpn_peer(VPN4, fd=CONNECTED)) == Told(0)
    told = Told(EINVAL, "ovpn: unexpected remote IP address with TCP socket")
    assert openvpn.ask(ovpn(2, nest(2, u32(1, 9), REMOTE4, PORT))) == told


@pytest.mark.parametrize("slot", [0, 1])
def test_a_key_for_a_slot_that_is_occupied_or_with_a_key_id_of_the_other_is_taken(
    openvpn: Program, dataplane: FakeDataPlane, slot: int
) -> None:
    for _ in range(2):
        assert openvpn.ask(ovpn(6, keyconf_nest(slot=u32(2, slot)))) == Told(0)
    assert openvpn.ask(ovpn(6, keyconf_nest(slot=u32(2, 1 - slot)))) == Told(0)
    assert dataplane.calls("install_key") == [(3,)] * 3


def test_a_peer_whose_socket_was_closed_is_not_found_for_it_went_with_it(
    openvpn: Program, dataplane: FakeDataPlane
) -> None:
    """The driver says EINVAL of a peer whose socket it has let go, as long as somebody else holds the peer."""
    ((request,), _) = dataplane.calls("create_device")
    assert openvpn.ask(ovpn_peer(REMOTE4, PORT, VPN4)) == Told(0)
    dataplane.delete_by_itself(request.device.name, 9, common_pb2.DEL_REASON_TRANSPORT_DISCONNECT)
    openvpn.session.take_notices()
    assert openvpn.ask(COMMANDS["PEER_GET"](9)) == Told(ENOENT, "ovpn: cannot find peer with id 9")


def test_the_last_vpn_address_cannot_be_taken_away(openvpn: Program, dataplane: FakeDataPlane) -> None:
    dataplane.fail("update_peer", DataPlaneError("INVALID_ARGUMENT", "FIELD_INVALID", "why"))
    told = Told(EINVAL, "ovpn: FIELD_INVALID: why")
    assert openvpn.ask(ovpn_peer(attribute(8, bytes(4)), command=2)) == told


def test_a_device_of_one_family_is_none_of_the_other(openvpn: Program) -> None:
    assert openvpn.ask(generic(DCO, 7, u32(1, MP), nest(8, u32(1, 3)))).errno == EINVAL
