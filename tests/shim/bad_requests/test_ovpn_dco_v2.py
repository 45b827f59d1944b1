"""What driver ovpn-dco-v2 refuses, and how the shim refuses it: real bytes through a Session.

Where the driver's errno would end OpenVPN (ADR 6), or the shim does otherwise for another reason (ADR 12), the row says
so. Rows that the tables alone decide are in tests/shim/netlink/ovpn_dco_v2, for each command.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, EINVAL, ENOENT, ENOTSOCK, ERANGE

import pytest

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
    PORT_ID,
    TCP,
    UDP,
    Program,
)
from tests.shim.conftest import FakeDataPlane
from tests.shim.netlink.conftest import (
    DCO,
    attribute,
    generic,
    message,
    nest,
    new_key_nest,
    only,
    sockaddr_in,
    sockaddr_in6,
    u8,
    u16,
    u32,
)

Row = tuple[str, bytes, int]

REMOTE = attribute(2, sockaddr_in("127.0.0.1", 1194))
VPN = attribute(4, bytes([10, 8, 0, 9]))


def dco(command: int, *attributes: bytes, ifindex: int = MP, flags: int = 0x5) -> bytes:
    return generic(DCO, command, u32(1, ifindex), *attributes, flags=flags)


def dco_peer(*attributes: bytes, peer_id: int = 9, fd: int = UDP, ifindex: int = MP) -> bytes:
    return dco(1, nest(2, u32(1, peer_id), u32(3, fd), *attributes), ifindex=ifindex)


COMMANDS: dict[str, Callable[[int], bytes]] = {
    "SET_PEER": lambda peer_id: dco(2, nest(3, u32(1, peer_id), u32(2, 10), u32(3, 60))),
    "DEL_PEER": lambda peer_id: dco(3, nest(4, u32(2, peer_id))),
    "SWAP_KEYS": lambda peer_id: dco(5, nest(6, u32(1, peer_id))),
    "DEL_KEY": lambda peer_id: dco(6, nest(7, u32(1, peer_id), u8(2, 1))),
    "GET_PEER": lambda peer_id: dco(7, nest(8, u32(1, peer_id))),
}
NESTS = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8}
"""By command."""
KEY = nest(5, attribute(1, b"E" * 32), attribute(2, bytes(8)))

ROWS: list[Row] = [
    ("no IFINDEX", generic(DCO, 1, nest(2, u32(1, 9), u32(3, UDP), REMOTE, VPN)), EINVAL),
    ("no such ifindex (ENODEV would end OpenVPN)", dco_peer(REMOTE, VPN, ifindex=4242), EINVAL),
    ("interface is no ovpn-dco", dco_peer(REMOTE, VPN, ifindex=FOREIGN), EINVAL),
    *((f"nest of command {command} missing", dco(command), EINVAL) for command in NESTS),
    *((f"nest {number} empty", dco(command, nest(number)), EINVAL) for command, number in NESTS.items()),
    *(
        (f"nest {number} without flag", dco(command, attribute(number, u32(1, 3))), EINVAL)
        for command, number in NESTS.items()
    ),
    ("SOCKET missing", dco(1, nest(2, u32(1, 9), REMOTE, VPN)), EINVAL),
    ("KEY_SLOT of DEL_KEY missing", dco(6, nest(7, u32(1, 3))), EINVAL),
    *(
        (f"{name} of NEW_KEY missing", dco(4, new_key_nest(**{name: b""})), EINVAL)
        for name in ("peer_id", "slot", "key_id", "cipher", "encrypt", "decrypt")
    ),
    ("CIPHER_KEY missing", dco(4, new_key_nest(encrypt=nest(5, attribute(2, bytes(8))))), EINVAL),
    ("NONCE_TAIL missing", dco(4, new_key_nest(decrypt=nest(6, attribute(1, b"D" * 32)))), EINVAL),
    ("MP without VPN address", dco_peer(REMOTE), EINVAL),
    ("descriptor is none", dco_peer(REMOTE, VPN, fd=987654), ENOTSOCK),
    ("descriptor is no socket", dco_peer(REMOTE, VPN, fd=NO_SOCKET), ENOTSOCK),
    ("descriptor is neither UDP nor TCP", dco_peer(REMOTE, VPN, fd=NO_LINK_SOCKET), ENOTSOCK),
    ("socket of another device", dco_peer(REMOTE, VPN, fd=OTHER_UDP), ENOTSOCK),
    ("TCP, never connected", dco_peer(VPN, fd=TCP), ENOTSOCK),
    ("TCP, closed by the other end", dco_peer(VPN, fd=CLOSING), ENOTSOCK),
    ("TCP", dco_peer(VPN, fd=CONNECTED), 0),
    ("TCP with remote", dco_peer(REMOTE, VPN, fd=CONNECTED), 0),
    ("UDP without remote", dco_peer(VPN), EINVAL),
    ("remote of a wrong size", dco_peer(attribute(2, sockaddr_in("127.0.0.1", 1) + bytes(4)), VPN), EINVAL),
    ("remote of a wrong family", dco_peer(attribute(2, b"\1\0" + bytes(14)), VPN), EINVAL),
    ("local of a wrong length", dco_peer(REMOTE, VPN, attribute(6, bytes(6))), EINVAL),
    ("local of another family", dco_peer(REMOTE, VPN, attribute(6, bytes(15) + b"\1")), EINVAL),
    *((f"unknown peer: {name}", make(8), ENOENT) for name, make in COMMANDS.items()),
    ("unknown peer: NEW_KEY (any errno would end OpenVPN)", dco(4, new_key_nest(peer_id=u32(1, 8))), 0),
    ("cipher none", dco(4, new_key_nest(cipher=u16(4, 0))), EINVAL),
    ("cipher unknown", dco(4, new_key_nest(cipher=u16(4, 3))), EINVAL),
    (
        "key of a bad length",
        dco(4, new_key_nest(encrypt=nest(5, attribute(1, b"E" * 9), attribute(2, bytes(8))))),
        EINVAL,
    ),
    (
        "key of another length than the other",
        dco(4, new_key_nest(encrypt=nest(5, attribute(1, b"E" * 16), attribute(2, bytes(8))))),
        EINVAL,
    ),
    ("swap with empty slots", COMMANDS["SWAP_KEYS"](3), 0),
    ("delete of an empty slot", COMMANDS["DEL_KEY"](3), 0),
    ("only the interval", dco(2, nest(3, u32(1, 3), u32(2, 10))), 0),
    ("only the timeout", dco(2, nest(3, u32(1, 3), u32(3, 10))), 0),
    ("peer-id above 24 bits", dco_peer(REMOTE, VPN, peer_id=0x1000009), 0),
    ("the undefined peer-id (taken by the driver)", dco_peer(REMOTE, VPN, peer_id=0xFFFFFF), EINVAL),
    ("KEY_ID that no packet can have (taken by the driver)", dco(4, new_key_nest(key_id=u8(3, 8))), EINVAL),
    ("KEY_SLOT 2", dco(6, nest(7, u32(1, 3), u8(2, 2))), ERANGE),
    ("REASON 5", dco(3, nest(4, u8(1, 5), u32(2, 3))), ERANGE),
    ("REASON is ignored", dco(3, nest(4, u8(1, 4), u32(2, 3))), 0),
    ("LOCAL_IP above 16 bytes", dco_peer(REMOTE, VPN, attribute(6, bytes(17))), ERANGE),
    (
        "CIPHER_KEY above 255 bytes",
        dco(4, new_key_nest(encrypt=nest(5, attribute(1, bytes(256)), attribute(2, bytes(8))))),
        ERANGE,
    ),
    (
        "NONCE_TAIL of 9 bytes",
        dco(4, new_key_nest(encrypt=nest(5, attribute(1, bytes(32)), attribute(2, bytes(9))))),
        ERANGE,
    ),
]


@pytest.fixture
def openvpn(program: Program) -> Program:
    peers = [dco_peer(REMOTE, VPN, peer_id=3), dco_peer(REMOTE, peer_id=3, fd=OTHER_UDP, ifindex=P2P)]
    program.make_devices(b"ovpn-dco", peers)
    return program


@pytest.mark.parametrize(("request_", "errno"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_a_request_is_answered_as_by_the_driver(openvpn: Program, request_: bytes, errno: int) -> None:
    assert openvpn.ask(request_).errno == errno


@pytest.mark.parametrize(("reason", "errno"), [("PEER_EXISTS", EEXIST), ("NOT_A_UDP_SOCKET", ENOTSOCK)])
def test_what_the_data_plane_refuses_is_told(
    openvpn: Program, dataplane: FakeDataPlane, reason: str, errno: int
) -> None:
    dataplane.fail("create_peer", DataPlaneError("FAILED_PRECONDITION", reason, "why"))
    assert openvpn.ask(dco_peer(REMOTE, VPN)).errno == errno


def test_a_second_p2p_peer_replaces_the_first_which_is_told_as_torn_down(openvpn: Program) -> None:
    openvpn.session.join_group(PORT_ID, DCO)
    openvpn.session.take_notices()
    assert openvpn.ask(dco_peer(REMOTE, peer_id=4, fd=OTHER_UDP, ifindex=P2P)).errno == 0
    (notice,) = openvpn.session.take_notices()
    teardown = nest(4, u8(1, 0), u32(2, 3))
    assert notice.datagram == message(DCO, 0, b"\3\1\0\0" + u32(1, P2P) + teardown, seq=0)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_key_for_a_slot_that_is_occupied_or_with_a_key_id_of_the_other_is_taken(
    openvpn: Program, dataplane: FakeDataPlane, slot: int
) -> None:
    for _ in range(2):
        assert openvpn.ask(dco(4, new_key_nest(slot=u8(2, slot)))).errno == 0
    assert openvpn.ask(dco(4, new_key_nest(slot=u8(2, 1 - slot)))).errno == 0
    assert dataplane.calls("install_key") == [(3,)] * 3


def test_ipv6_remotes_are_taken_with_their_scope(openvpn: Program) -> None:
    assert openvpn.ask(dco_peer(attribute(2, sockaddr_in6("fe80::1", 1194, 2)), VPN)).errno == 0


def test_a_dump_of_a_p2p_device_tells_nothing(openvpn: Program) -> None:
    request = dco(7, ifindex=P2P, flags=0x305)
    (reply,) = openvpn.session.handle(16, request, PORT_ID, openvpn.caller).replies
    assert only(reply).type == 3  # NLMSG_DONE
