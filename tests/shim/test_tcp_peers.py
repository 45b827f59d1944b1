"""Peers over TCP: the switch, what goes wrong at it, and how a stream ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from errno import EADDRINUSE, EINVAL, EIO, ENOMEM, ENOTSOCK

import pytest
from ovpn.dataplane.v1 import common_pb2, event_pb2

from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.operations import DelPeer, Done, GetPeer, NewPeer, PeerFound, SetPeer
from tests.descriptors import open_fds
from tests.shim.conftest import GONE, World, errno_of, is_readable, new_key, new_peer

FD = 9
REFUSED = DataPlaneError("ALREADY_EXISTS", "VPN_ADDRESS_IN_USE", "somebody has it")


@dataclass
class Openvpn:
    """OpenVPN's side: its descriptor 9, a TCP socket at first."""

    world: World
    tcp: socket.socket
    remote: socket.socket

    @property
    def fd(self) -> int:
        return self.world.caller.numbers[FD]

    def inode(self) -> int:
        return os.fstat(self.fd).st_ino

    def has_tcp(self) -> bool:
        return self.inode() == os.fstat(self.tcp.fileno()).st_ino

    def close(self) -> None:
        self.world.caller.close(FD)

    def read(self) -> bytes | None:
        """None if nothing has come."""
        try:
            return os.read(self.fd, 100)
        except BlockingIOError:
            return None


@pytest.fixture
def openvpn(world: World) -> Iterator[Openvpn]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as remote:
        tcp, _address = server.accept()
        with tcp:
            tcp.setblocking(False)
            world.caller.numbers[FD] = tcp.fileno()
            yield Openvpn(world, tcp, remote)


def tcp_peer(ifindex: int, peer_id: int) -> NewPeer:
    """As a server asks for it."""
    return replace(new_peer(ifindex, peer_id, FD), remote=None)


# The switch


def test_openvpn_has_a_control_stream_when_the_data_plane_adopts_the_socket(world: World, openvpn: Openvpn) -> None:
    ifindex, device = world.make_device()
    assert world.perform(tcp_peer(ifindex, 1)) == Done()
    name = f"openvpn-{openvpn.inode()}"
    assert world.diary == [
        ("hand_over", "t2"),
        ("hand_over", "t3"),
        ("adopt_socket", device, name, "t2", "t3"),
        ("create_peer", 1),
    ]
    assert world.dataplane.peers[1].socket == name
    assert socket.socket(fileno=os.dup(openvpn.fd)).family == socket.AF_UNIX
    assert not os.get_blocking(openvpn.fd)


def test_the_addresses_of_a_client_are_not_passed_on(world: World, openvpn: Openvpn) -> None:
    ifindex, _ = world.make_device(multipeer=False)
    assert world.perform(new_peer(ifindex, 1, FD)) == Done()
    assert not world.dataplane.peers[1].HasField("remote")
    found = world.perform(GetPeer(ifindex, 1))
    assert isinstance(found, PeerFound)
    assert found.peer.local_port == openvpn.tcp.getsockname()[1]


def test_a_socket_that_is_not_connected_is_refused_without_a_call(world: World) -> None:
    ifindex, _ = world.make_device()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
        world.caller.numbers[FD] = tcp.fileno()
        assert errno_of(world.perform(tcp_peer(ifindex, 1))) == ENOTSOCK
    assert world.diary == []


def test_a_stream_that_the_shim_did_not_make_is_refused(world: World) -> None:
    ifindex, _ = world.make_device()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        world.caller.numbers[FD] = theirs.fileno()
        assert errno_of(world.perform(tcp_peer(ifindex, 1))) == ENOTSOCK
    assert world.diary == []


@pytest.mark.parametrize("errno", [ENOMEM, EIO])
def test_a_descriptor_that_cannot_be_replaced_leaves_openvpn_its_socket(
    world: World, openvpn: Openvpn, errno: int
) -> None:
    ifindex, _ = world.make_device()
    before = open_fds()
    world.caller.errors.append(OSError(errno, os.strerror(errno)))
    assert errno_of(world.perform(tcp_peer(ifindex, 1))) == EIO
    assert world.dataplane.calls("adopt_socket") == []
    assert openvpn.has_tcp()
    assert open_fds() <= before


@pytest.mark.parametrize(
    ("error", "told"), [(DataPlaneError("INVALID_ARGUMENT", "NOT_A_UDP_SOCKET", "too old"), ENOTSOCK), (GONE, EINVAL)]
)
def test_a_socket_that_the_data_plane_refuses_is_put_back(
    world: World, openvpn: Openvpn, error: DataPlaneError, told: int
) -> None:
    ifindex, _ = world.make_device()
    world.dataplane.fail("adopt_socket", error)
    assert errno_of(world.perform(tcp_peer(ifindex, 1))) == told
    assert openvpn.has_tcp()
    openvpn.remote.send(b"unharmed")
    assert is_readable(openvpn.fd, 5)
    assert openvpn.read() == b"unharmed"


def test_openvpn_reads_the_end_if_its_socket_cannot_be_put_back(world: World, openvpn: Openvpn) -> None:
    ifindex, _ = world.make_device()
    world.dataplane.fail("adopt_socket", REFUSED)
    replace_fd = world.caller.replace_fd

    def once(fd: int, source: int) -> None:
        replace_fd(fd, source)
        world.caller.errors.append(OSError(EIO, os.strerror(EIO)))

    world.caller.replace_fd = once  # type: ignore[method-assign]
    assert errno_of(world.perform(tcp_peer(ifindex, 1))) == EADDRINUSE
    assert openvpn.read() == b""


def test_a_refused_peer_leaves_the_stream_for_what_openvpn_has_to_say(world: World, openvpn: Openvpn) -> None:
    ifindex, _ = world.make_device()
    world.dataplane.fail("create_peer", REFUSED)
    assert errno_of(world.perform(tcp_peer(ifindex, 1))) == EADDRINUSE
    assert world.dataplane.calls("delete_socket") == []
    assert os.write(openvpn.fd, b"AUTH_FAILED") == 11
    openvpn.close()
    assert is_readable(world.bell.fileno())
    world.bell.silence()
    assert world.deletions() == []
    assert len(world.dataplane.calls("delete_socket")) == 1


@pytest.mark.usefixtures("openvpn")
def test_a_stream_whose_peer_was_refused_can_have_another(world: World) -> None:
    ifindex, _ = world.make_device()
    world.dataplane.fail("create_peer", REFUSED)
    world.perform(tcp_peer(ifindex, 1))
    world.diary.clear()
    assert world.perform(tcp_peer(ifindex, 2)) == Done()
    assert world.methods() == ["create_peer"]


@pytest.mark.usefixtures("openvpn")
def test_a_stream_has_one_peer(world: World) -> None:
    ifindex, _ = world.make_device()
    world.perform(tcp_peer(ifindex, 1))
    assert errno_of(world.perform(tcp_peer(ifindex, 2))) == ENOTSOCK


# The end


def test_a_stream_stays_after_its_peer_until_openvpn_has_closed_it(world: World, openvpn: Openvpn) -> None:
    ifindex, device = world.make_device()
    before = open_fds()
    world.perform(tcp_peer(ifindex, 1))
    name = world.dataplane.peers[1].socket
    assert world.perform(DelPeer(ifindex, 1)) == Done()
    assert world.deletions() == [(1, "USERSPACE")]
    assert world.dataplane.calls("delete_socket") == []
    openvpn.close()
    assert world.deletions() == []
    assert world.dataplane.calls("delete_socket") == [(device, name)]
    assert open_fds() <= before


def test_a_stream_that_openvpn_closed_first_goes_with_its_peer(world: World, openvpn: Openvpn) -> None:
    ifindex, _ = world.make_device()
    world.perform(tcp_peer(ifindex, 1))
    openvpn.close()
    assert world.deletions() == []
    assert world.dataplane.calls("delete_socket") == []
    assert world.perform(DelPeer(ifindex, 1)) == Done()
    assert world.methods()[-1] == "delete_socket"


@pytest.mark.parametrize("reason", [common_pb2.DEL_REASON_TRANSPORT_DISCONNECT, common_pb2.DEL_REASON_TRANSPORT_ERROR])
def test_a_server_hears_of_a_lost_connection_before_its_stream_ends(
    world: World, openvpn: Openvpn, reason: common_pb2.DelReason
) -> None:
    ifindex, device = world.make_device()
    world.perform(tcp_peer(ifindex, 1))
    world.dataplane.delete_by_itself(device, 1, reason)
    world.bell.silence()
    assert world.deletions() == [(1, common_pb2.DelReason.Name(reason).removeprefix("DEL_REASON_"))]
    assert openvpn.read() is None
    assert is_readable(world.bell.fileno())
    assert world.deletions() == []
    assert openvpn.read() == b""


def test_a_stream_without_a_peer_ends_when_its_connection_does(world: World, openvpn: Openvpn) -> None:
    ifindex, device = world.make_device()
    world.perform(tcp_peer(ifindex, 1))
    name = world.dataplane.peers[1].socket
    world.perform(DelPeer(ifindex, 1))
    for socket_name in ("openvpn-1", name):
        world.bell.silence()
        assert openvpn.read() is None
        closed = event_pb2.SocketClosed(
            device=device, socket=socket_name, reason=common_pb2.DEL_REASON_TRANSPORT_DISCONNECT
        )
        world.dataplane.emit(device, socket_closed=closed)
        world.deletions()
    assert is_readable(world.bell.fileno())
    world.deletions()
    assert openvpn.read() == b""


@pytest.mark.parametrize("timeout_seconds", [0, 60])
def test_a_client_learns_of_a_lost_connection_by_the_end_of_its_stream_alone(
    world: World, openvpn: Openvpn, timeout_seconds: int
) -> None:
    """EXPIRED would make it exit under --ping-exit, and without --keepalive nothing else does."""
    ifindex, device = world.make_device(multipeer=False)
    world.perform(tcp_peer(ifindex, 1))
    world.perform(SetPeer(ifindex, 1, 0, timeout_seconds))
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_TRANSPORT_DISCONNECT)
    assert world.deletions() == [(1, "TRANSPORT_DISCONNECT")]
    assert world.deletions() == []
    assert openvpn.read() == b""
    assert world.offload.fatal == ""


@pytest.mark.parametrize("multipeer", [True, False])
def test_the_stream_of_an_expired_peer_is_left_to_openvpn(world: World, openvpn: Openvpn, multipeer: bool) -> None:
    ifindex, device = world.make_device(multipeer=multipeer)
    world.perform(tcp_peer(ifindex, 1))
    world.perform(SetPeer(ifindex, 1, 10, 60))
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_EXPIRED)
    assert world.deletions() == [(1, "EXPIRED")]
    assert world.deletions() == []
    assert openvpn.read() is None


def test_a_peer_whose_key_is_refused_loses_its_stream_too(world: World, openvpn: Openvpn) -> None:
    ifindex, _ = world.make_device()
    world.perform(tcp_peer(ifindex, 1))
    world.dataplane.fail("install_key", DataPlaneError("INVALID_ARGUMENT", "FIELD_INVALID", "no"))
    assert world.perform(new_key(ifindex, 1)) == Done()
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
    assert world.deletions() == []
    assert openvpn.read() == b""


def test_a_new_connection_replaces_the_first_on_a_p2p_device(world: World, openvpn: Openvpn) -> None:
    ifindex, _ = world.make_device(multipeer=False)
    world.perform(tcp_peer(ifindex, 1))
    openvpn.close()
    with openvpn.tcp.dup() as again:
        world.caller.numbers[FD] = again.fileno()
        world.diary.clear()
        assert world.perform(tcp_peer(ifindex, 2)) == Done()
    assert world.methods() == ["hand_over", "hand_over", "adopt_socket", "create_peer", "delete_socket"]
    assert world.deletions() == [(1, "TEARDOWN")]


def test_when_the_data_plane_is_gone_openvpn_reads_the_end(world: World, openvpn: Openvpn) -> None:
    ifindex, _ = world.make_device()
    world.perform(tcp_peer(ifindex, 1))
    world.dataplane.fail("delete_peer", GONE)
    world.perform(DelPeer(ifindex, 1))
    assert world.offload.fatal
    assert openvpn.read() == b""


def test_what_is_closed_at_the_end_leaves_nothing_open(world: World, openvpn: Openvpn) -> None:
    ifindex, _ = world.make_device()
    before = open_fds()
    world.perform(tcp_peer(ifindex, 1))
    openvpn.close()
    world.offload.close()
    assert open_fds() <= before
