"""OpenVPN 2.7 as the supervisor sees it: family `ovpn` through a Session."""

from __future__ import annotations

import socket
import struct

import pytest
from ovpn.dataplane.v1 import common_pb2, event_pb2
from pyroute2.netlink.generic import ctrlmsg

from controlplane_shim.netlink.message import split
from controlplane_shim.session import Session
from controlplane_shim.supervisor.handler import Notice
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
    message,
    nest,
    u8,
    u16,
    u32,
)

OPENVPN, LISTENER = 4711, 4712
GROUP = 0xD01
IFINDEX = 100
ADDRESS = bytes([192, 0, 2, 1])


def notice(command: int, *attributes: bytes) -> bytes:
    body = struct.pack("=BBH", command, 1, 0) + u32(1, IFINDEX) + b"".join(attributes)
    return message(OVPN, 0, body, seq=0)


def deletion(peer_id: int, reason: int) -> bytes:
    return notice(5, nest(2, u32(15, reason), u32(1, peer_id)))


class Program:
    """OpenVPN 2.7, whose one netlink socket asks and listens, and another process that listens."""

    def __init__(self, session: Session, caller: FakeCaller) -> None:
        self.session = session
        self.caller = caller

    def send(self, request: bytes, protocol: int = NETLINK_GENERIC) -> list[bytes]:
        return self.session.handle(protocol, request, OPENVPN, self.caller).replies

    def start(self, *, multipeer: bool = True) -> None:
        for port_id in (OPENVPN, LISTENER):
            assert self.session.join_group(port_id, GROUP)
        info = attribute(1, b"ovpn\0") + attribute(2, u8(1, multipeer))
        self.send(message(16, 0x605, bytes(16) + attribute(3, b"tun0\0") + attribute(18, info)), NETLINK_ROUTE)
        self.make_peer(3, multipeer=multipeer)

    def make_peer(self, peer_id: int, *, multipeer: bool = True) -> list[bytes]:
        vpn = attribute(8, bytes([10, 8, 0, peer_id])) if multipeer else b""
        peer = nest(2, u32(1, peer_id), u32(6, 7), attribute(2, ADDRESS), be16(5, 1194), vpn)
        return self.send(generic(OVPN, 1, u32(1, IFINDEX), peer))


@pytest.fixture
def program(shim_session: Session, udp: socket.socket) -> Program:
    return Program(shim_session, FakeCaller({7: udp.fileno()}))


@pytest.fixture
def server(program: Program) -> Program:
    program.start()
    program.session.take_notices()
    return program


@pytest.fixture
def device(server: Program, dataplane: FakeDataPlane) -> str:
    """The name that the data plane knows the server's device by."""
    assert server.session.fatal() == ""
    ((request,),) = dataplane.calls("create_device")
    name: str = request.device.name
    return name


# Announcing


@pytest.mark.parametrize(("name", "number"), [("ovpn", OVPN), ("ovpn-dco-v2", DCO)])
def test_both_families_are_announced(program: Program, name: str, number: int) -> None:
    introduction, acknowledged = program.send(generic(16, 3, attribute(2, name.encode() + b"\0")))
    decoded = ctrlmsg(introduction)
    decoded.decode()
    assert decoded.get_attr("CTRL_ATTR_FAMILY_ID") == number
    assert struct.unpack_from("=i", acknowledged, 16) == (0,)


def test_the_policy_of_a_command_is_told(program: Program) -> None:
    *told, done = program.send(generic(16, 10, u16(1, OVPN), u32(10, 10), flags=DUMP_ACK))
    bodies = [one.body[12:] for datagram in told for one in split(datagram)]

    def unsigned(most: int) -> bytes:
        return attribute(4, struct.pack("=Q", 0)) + attribute(5, struct.pack("=Q", most)) + u32(1, 4)

    assert bodies == [
        nest(9, nest(10, u32(1, 0))),
        nest(8, nest(0, nest(1, unsigned(0xFFFFFFFF)))),
        nest(8, nest(0, nest(3, u32(8, 1) + u32(9, 2) + u32(1, 13)))),
        nest(8, nest(1, nest(1, unsigned(0xFFFFFF)))),
        nest(8, nest(1, nest(2, unsigned(1)))),
    ]
    assert done == struct.pack("=IHHIIi", 20, 3, 2, 7, OPENVPN, 0)


def test_do_and_dump_of_a_command_have_policies_of_their_own(program: Program) -> None:
    first = program.send(generic(16, 10, u16(1, OVPN), u32(10, 3), flags=DUMP_ACK))[0]
    assert split(first)[0].body[12:] == nest(9, nest(3, u32(1, 0), u32(2, 2)))


def test_the_policy_of_an_unknown_command_is_not_found(program: Program) -> None:
    (refused,) = program.send(generic(16, 10, u16(1, OVPN), u32(10, 5), flags=DUMP_ACK))
    assert struct.unpack_from("=i", refused, 16) == (-2,)


# Notices


def test_the_notice_of_a_deletion_comes_before_its_acknowledgement(server: Program) -> None:
    first, acknowledged = server.send(generic(OVPN, 4, u32(1, IFINDEX), nest(2, u32(1, 3))))
    assert first == deletion(3, 1)
    assert struct.unpack_from("=i", acknowledged, 16) == (0,)
    assert server.session.take_notices() == [Notice(LISTENER, deletion(3, 1))]


def test_what_was_to_be_told_before_comes_before_the_acknowledgement_too(server: Program) -> None:
    server.make_peer(4)
    unknown = generic(OVPN, 6, u32(1, IFINDEX), *_keyconf(8))
    told = server.send(unknown)
    assert told[0] == deletion(8, 3)
    assert struct.unpack_from("=i", told[1], 16) == (0,)


def _keyconf(peer_id: int) -> list[bytes]:
    direction = attribute(1, bytes(32)), attribute(2, bytes(8))
    rows = (u32(1, peer_id), u32(2, 0), u32(3, 0), u32(4, 1))
    return [nest(3, *rows, nest(5, *direction), nest(6, *direction))]


def test_the_replaced_peer_of_a_client_is_told_before_the_acknowledgement(program: Program) -> None:
    program.start(multipeer=False)
    first, acknowledged = program.make_peer(4, multipeer=False)
    assert first == deletion(3, 0)
    assert struct.unpack_from("=i", acknowledged, 16) == (0,)


def test_a_peer_that_expired_is_told(server: Program, dataplane: FakeDataPlane, device: str) -> None:
    dataplane.delete_by_itself(device, 3, common_pb2.DEL_REASON_EXPIRED)
    assert server.session.take_notices() == [Notice(OPENVPN, deletion(3, 2)), Notice(LISTENER, deletion(3, 2))]


def test_a_float_is_told(server: Program, dataplane: FakeDataPlane, device: str) -> None:
    remote = common_pb2.Endpoint(address="192.0.2.99", port=4000)
    dataplane.emit(device, peer_floated=event_pb2.PeerFloated(device=device, peer_id=3, remote=remote))
    floated = notice(11, nest(2, u32(1, 3), attribute(2, bytes([192, 0, 2, 99])), be16(5, 4000)))
    assert server.session.take_notices() == [Notice(OPENVPN, floated), Notice(LISTENER, floated)]


def test_a_float_of_a_v4_mapped_address_is_told_as_ipv4(server: Program, dataplane: FakeDataPlane, device: str) -> None:
    remote = common_pb2.Endpoint(address="::ffff:192.0.2.99", port=4000)
    dataplane.emit(device, peer_floated=event_pb2.PeerFloated(device=device, peer_id=3, remote=remote))
    floated = notice(11, nest(2, u32(1, 3), attribute(2, bytes([192, 0, 2, 99])), be16(5, 4000)))
    assert Notice(OPENVPN, floated) in server.session.take_notices()


def test_a_float_of_a_peer_that_is_gone_is_not_told(server: Program, dataplane: FakeDataPlane, device: str) -> None:
    remote = common_pb2.Endpoint(address="192.0.2.99", port=4000)
    dataplane.emit(device, peer_floated=event_pb2.PeerFloated(device=device, peer_id=8, remote=remote))
    assert server.session.take_notices() == []


def test_a_question_for_a_float_is_for_others(server: Program, dataplane: FakeDataPlane, device: str) -> None:
    asked = event_pb2.PeerFloatAsked(
        device=device,
        peer_id=3,
        remote=common_pb2.Endpoint(address="192.0.2.9", port=4000),
        asked_remote=common_pb2.Endpoint(address="192.0.2.99", port=4000),
        asked_socket="s",
    )
    dataplane.emit(device, peer_float_asked=asked)
    assert server.session.take_notices() == []
    dataplane.delete_by_itself(device, 3, common_pb2.DEL_REASON_EXPIRED)
    assert Notice(OPENVPN, deletion(3, 2)) in server.session.take_notices()


def test_the_end_of_a_key_is_told(server: Program, dataplane: FakeDataPlane, device: str) -> None:
    dataplane.emit(device, key_swap_needed=event_pb2.KeySwapNeeded(device=device, peer_id=3, key_id=5))
    swap = notice(9, nest(3, u32(1, 3), u16(3, 5)))
    assert server.session.take_notices() == [Notice(OPENVPN, swap), Notice(LISTENER, swap)]


def test_a_key_that_comes_near_to_a_limit_is_told_like_its_end(
    server: Program, dataplane: FakeDataPlane, device: str
) -> None:
    near = event_pb2.KeyLimitNear(device=device, peer_id=3, key_id=5, limit=event_pb2.KEY_LIMIT_AEAD_USAGE)
    dataplane.emit(device, key_limit_near=near)
    swap = notice(9, nest(3, u32(1, 3), u16(3, 5)))
    assert server.session.take_notices() == [Notice(OPENVPN, swap), Notice(LISTENER, swap)]


# Answers


def test_the_key_in_a_slot_is_told(server: Program) -> None:
    told, acknowledged = server.send(generic(OVPN, 7, u32(1, IFINDEX), nest(3, u32(1, 3), u32(2, 1))))
    expected = struct.pack("=BBH", 7, 1, 0) + nest(3, u32(1, 3), u32(2, 1), u32(3, 5), u32(4, 2))
    assert told == message(OVPN, 0, expected, port_id=OPENVPN)
    assert struct.unpack_from("=i", acknowledged, 16) == (0,)


@pytest.mark.parametrize("multipeer", [True, False])
def test_a_dump_tells_the_peers_in_both_modes(program: Program, multipeer: bool) -> None:
    program.start(multipeer=multipeer)
    told, done = program.send(generic(OVPN, 3, u32(1, IFINDEX), flags=DUMP_ACK))
    (peer,) = split(told)
    assert (peer.type, peer.flags, peer.body[:4], peer.body[8:16]) == (OVPN, 2, b"\3\1\0\0", u32(1, 3))
    assert split(done)[0].type == 3


# Changes of a peer


def test_a_peer_set_changes_what_it_names(server: Program, dataplane: FakeDataPlane) -> None:
    rows = (attribute(2, ADDRESS), be16(5, 1195), attribute(8, bytes([10, 8, 0, 77])), u32(13, 10), u32(14, 60))
    server.send(generic(OVPN, 2, u32(1, IFINDEX), nest(2, u32(1, 3), *rows)))
    changed = ["remote", "local_address", "vpn_ipv4", "keepalive_interval", "keepalive_timeout"]
    assert dataplane.calls("update_peer") == [(3, changed)]


def test_a_peer_set_of_nothing_changes_nothing(server: Program, dataplane: FakeDataPlane) -> None:
    (acknowledged,) = server.send(generic(OVPN, 2, u32(1, IFINDEX), nest(2, u32(1, 3))))
    assert struct.unpack_from("=i", acknowledged, 16) == (0,)
    assert dataplane.calls("update_peer") == []
