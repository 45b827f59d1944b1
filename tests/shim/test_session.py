"""The session as the supervisor sees it: netlink datagrams in, netlink datagrams out."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from errno import EINVAL, EIO, ENOENT, EOPNOTSUPP, EPERM
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ovpn.dataplane.v1 import common_pb2
from structlog.testing import LogCapture

from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.selftest import LIVENESS_DEVICE
from controlplane_shim.session import RETEST_SECONDS, Session, open_session
from controlplane_shim.supervisor.handler import Handled, Notice
from controlplane_shim.tun import interface_exists
from controlplane_shim.tuning import Tuning
from tests.shim.conftest import (
    GONE,
    Clock,
    FakeCaller,
    FakeDataPlane,
    FakeHandoff,
    FakeLinux,
    bring_up,
    is_readable,
)
from tests.shim.netlink.conftest import (
    DCO,
    DUMP_ACK,
    REQUEST_ACK,
    attribute,
    generic,
    message,
    nest,
    new_key_nest,
    sockaddr_in,
    u8,
    u32,
)

ROUTE, GENERIC = 0, 16
PORT_ID = 4711
CONTROL = 16
GROUP = 0xD00


def get_family(name: str = "ovpn-dco-v2") -> bytes:
    return generic(CONTROL, 3, attribute(2, name.encode() + b"\0"))


def new_link(name: str = "tun0", mode: int = 1) -> bytes:
    kind = attribute(1, b"ovpn-dco\0") + attribute(2, u8(1, mode))
    body = bytes(16) + attribute(3, name.encode() + b"\0") + attribute(18, kind)
    return message(16, 0x605, body)


def new_peer(ifindex: int, peer_id: int, port: int = 1194) -> bytes:
    remote = attribute(2, sockaddr_in("127.0.0.1", port))
    vpn_ipv4 = attribute(4, bytes([10, 8, 0, 2]))
    return generic(DCO, 1, u32(1, ifindex), nest(2, u32(1, peer_id), u32(3, 7), remote, vpn_ipv4))


def del_peer(ifindex: int, peer_id: int) -> bytes:
    return generic(DCO, 3, u32(1, ifindex), nest(4, u32(2, peer_id)))


def new_key(ifindex: int, peer_id: int) -> bytes:
    return generic(DCO, 4, u32(1, ifindex), new_key_nest(peer_id=u32(1, peer_id)))


def get_peer(ifindex: int, peer_id: int) -> bytes:
    return generic(DCO, 7, u32(1, ifindex), nest(8, u32(1, peer_id)))


def errnos(datagrams: list[bytes]) -> list[int]:
    """0 for an acknowledgement, else the errno; of answers that are neither, nothing."""
    headers = [struct.unpack_from("=IHHIIi", datagram) for datagram in datagrams]
    return [-code for _, type_, _, _, _, code in headers if type_ == 2]


def deletion(ifindex: int, peer_id: int, reason: int) -> bytes:
    return generic(DCO, 3, u32(1, ifindex), nest(4, u8(1, reason), u32(2, peer_id)), flags=0, seq=0, version=1)


class Program:
    """OpenVPN under a Session."""

    def __init__(self, session: Session, caller: FakeCaller, clock: Clock) -> None:
        self.session = session
        self.caller = caller
        self.clock = clock

    def send(self, datagram: bytes, protocol: int = GENERIC) -> Handled:
        return self.session.handle(protocol, datagram, PORT_ID, self.caller)

    def errnos(self, datagram: bytes, protocol: int = GENERIC) -> list[int]:
        return errnos(self.send(datagram, protocol).replies)

    def make_peer(self, peer_id: int) -> None:
        assert self.errnos(get_family()) == [0]
        self.send(new_link(), ROUTE)
        assert self.errnos(new_peer(100, peer_id)) == [0]


@pytest.fixture
def program(shim_session: Session, clock: Clock, udp: socket.socket) -> Program:
    return Program(shim_session, FakeCaller({7: udp.fileno()}), clock)


# Offering the family


def test_nothing_is_connected_before_openvpn_asks(program: Program, dataplane: FakeDataPlane) -> None:
    assert program.send(get_family("nlctrl")).pass_through == [get_family("nlctrl")]
    assert dataplane.diary == []


def test_the_family_is_offered_when_the_self_test_passes(program: Program, dataplane: FakeDataPlane) -> None:
    assert not program.session.offers_offload()
    handled = program.send(get_family())
    assert program.session.offers_offload()
    assert len(handled.replies) == 2
    assert b"ovpn-dco-v2\0" in handled.replies[0]
    assert errnos(handled.replies) == [0]
    program.send(get_family())
    assert len(dataplane.calls("server_info")) == 1


def test_a_failed_self_test_answers_enoent_and_says_once_what_to_do(
    program: Program, dataplane: FakeDataPlane, log_entries: LogCapture
) -> None:
    dataplane.fail("server_info", GONE)
    assert program.errnos(get_family()) == [ENOENT]
    assert program.errnos(get_family()) == [ENOENT]
    assert len(dataplane.calls("server_info")) == 1
    (entry,) = log_entries.entries
    assert (entry["log_level"], entry["check"]) == ("error", "the data plane answers")
    assert "OpenVPN uses its own data channel" in entry["event"]
    assert "ovpn-dataplane" in entry["advice"]


def test_the_self_test_is_repeated_at_the_next_start(program: Program, dataplane: FakeDataPlane) -> None:
    dataplane.fail("server_info", GONE)
    assert program.errnos(get_family()) == [ENOENT]
    program.clock.seconds += RETEST_SECONDS
    assert program.errnos(get_family()) == [0]


def test_without_offload_a_link_is_refused_as_by_a_kernel_that_lacks_the_driver(
    program: Program, dataplane: FakeDataPlane
) -> None:
    dataplane.fail("server_info", GONE)
    assert program.errnos(new_link(), ROUTE) == [EOPNOTSUPP]
    assert program.errnos(get_peer(1, 1)) == [ENOENT]


def test_a_link_may_come_before_any_family_was_asked_for(program: Program, linux: FakeLinux) -> None:
    assert program.send(new_link(), ROUTE).replies == []
    assert "tun0" in linux.interfaces


# Answers


def test_a_new_link_is_acknowledged_by_the_kernel(program: Program) -> None:
    handled = program.send(new_link(), ROUTE)
    assert handled == Handled(kernel_messages=[message(1, REQUEST_ACK, b"")])


def test_a_name_that_is_taken_is_left_to_the_kernel(program: Program, linux: FakeLinux) -> None:
    linux.interfaces["tun0"] = 1
    assert program.send(new_link(), ROUTE) == Handled(pass_through=[new_link()])


def test_a_link_that_is_refused_is_answered_by_us(program: Program, linux: FakeLinux) -> None:
    linux.errors.append(OSError(EPERM, "Operation not permitted"))
    handled = program.send(new_link(), ROUTE)
    assert errnos(handled.replies) == [EPERM]
    assert handled.kernel_messages == []


def test_a_link_that_cannot_be_had_is_refused_by_the_kernel(program: Program, linux: FakeLinux) -> None:
    handled = program.send(new_link(mode=2), ROUTE)
    assert handled.replies == []
    assert [struct.unpack_from("=IHHI", asked)[1:] for asked in handled.kernel_messages] == [(0xFFFF, 0x5, 7)]
    assert linux.interfaces == {}


def test_several_messages_of_one_datagram_are_treated_in_order(program: Program) -> None:
    program.make_peer(1)
    handled = program.send(get_family("nlctrl") + get_peer(100, 1) + get_peer(100, 9))
    assert handled.pass_through == [get_family("nlctrl")]
    assert errnos(handled.replies) == [0, ENOENT]


def test_a_malformed_request_is_refused(program: Program) -> None:
    program.make_peer(1)
    assert program.errnos(generic(DCO, 1, u32(1, 100))) == [EINVAL]


def test_a_dump_ends_by_done(program: Program) -> None:
    program.make_peer(1)
    replies = program.send(generic(DCO, 7, u32(1, 100), flags=DUMP_ACK)).replies
    assert [struct.unpack_from("=IH", datagram)[1] for datagram in replies] == [DCO, 3]


def test_a_refusal_is_logged_with_its_request_and_reason(
    program: Program, dataplane: FakeDataPlane, log_entries: LogCapture
) -> None:
    program.make_peer(1)
    dataplane.fail("create_peer", DataPlaneError("INVALID_ARGUMENT", "FIELD_INVALID", "why"))
    program.errnos(new_peer(100, 2))
    entry = log_entries.entries[-1]
    assert (entry["event"], entry["errno"]) == ("refused", "EINVAL")
    assert "NewPeer(ifindex=100, peer_id=2" in entry["request"]


def test_a_defect_becomes_an_error_and_a_log_line_without_keys(
    program: Program, dataplane: FakeDataPlane, log_entries: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.make_peer(1)
    monkeypatch.setattr(dataplane, "get_peer", None)
    assert program.errnos(get_peer(100, 1)) == [EIO]
    monkeypatch.setattr(dataplane, "install_key", None)
    assert program.errnos(new_key(100, 1)) == [0]
    assert [entry["event"] for entry in log_entries.entries].count("defect in ovpn-shim") == 2
    assert "EEEEEEEE" not in str(log_entries.entries)


# Groups and notices


def test_only_our_groups_are_joined_and_left(program: Program) -> None:
    assert program.session.join_group(PORT_ID, GROUP)
    assert program.session.leave_group(PORT_ID, GROUP)
    assert not program.session.join_group(PORT_ID, GROUP + 2)
    assert not program.session.leave_group(PORT_ID, GROUP + 2)


def test_a_deletion_is_noticed_to_every_member(program: Program) -> None:
    program.make_peer(1)
    for port_id in (1, 2, 3, 4):
        program.session.join_group(port_id, GROUP)
    program.session.leave_group(2, GROUP)
    program.session.member_gone(3)
    assert program.errnos(del_peer(100, 1)) == [0]
    assert is_readable(program.session.notices_fd())
    assert program.session.take_notices() == [Notice(port_id, deletion(100, 1, 1)) for port_id in (1, 4)]
    assert not is_readable(program.session.notices_fd())
    assert program.session.take_notices() == []


def test_a_lost_peer_is_noticed(program: Program, dataplane: FakeDataPlane) -> None:
    program.make_peer(1)
    program.session.join_group(PORT_ID, GROUP)
    device = next(name for name in dataplane.watches if name != LIVENESS_DEVICE)
    dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_EXPIRED)
    assert is_readable(program.session.notices_fd(), 5)
    assert program.session.take_notices() == [Notice(PORT_ID, deletion(100, 1, 2))]


def test_the_end_of_the_data_plane_is_noticed_and_fatal(program: Program, dataplane: FakeDataPlane) -> None:
    program.make_peer(1)
    program.session.join_group(PORT_ID, GROUP)
    program.session.take_notices()
    dataplane.watches[LIVENESS_DEVICE][0].send(GONE)
    assert is_readable(program.session.notices_fd(), 5)
    assert program.session.fatal() == ""
    assert program.session.take_notices() == [Notice(PORT_ID, deletion(100, 1, 3))]
    assert "the data plane is gone" in program.session.fatal()
    assert program.errnos(get_family()) == [ENOENT]


def test_there_are_no_notices_before_there_is_offload(program: Program) -> None:
    assert program.session.take_notices() == []
    assert program.session.fatal() == ""


def test_closing_gives_everything_back(program: Program, dataplane: FakeDataPlane, handoff: FakeHandoff) -> None:
    program.make_peer(1)
    program.session.close()
    assert len(dataplane.calls("delete_device")) == 1
    assert dataplane.closed
    assert handoff.closed


# Against the real data plane


class Daemon(NamedTuple):
    """An ovpn-dataplane, and where it listens."""

    process: subprocess.Popen[str]
    target: str


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    command = [sys.executable, "-m", "dataplane", "--run-dir", str(tmp_path), "--log-format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert any('"ready"' in line for line in process.stdout)
        yield Daemon(process, f"unix:{tmp_path}/control.sock")
        process.terminate()
        process.stdout.read()


def link_rx(replies: list[bytes]) -> tuple[int, int]:
    """LINK_RX_BYTES and LINK_RX_PACKETS of a GET_PEER reply."""
    found, offset = {}, 16 + 4 + 4
    while offset < len(replies[0]):
        length, type_ = struct.unpack_from("=HH", replies[0], offset)
        found[type_] = int.from_bytes(replies[0][offset + 4 : offset + length], sys.byteorder)
        offset += length + -length % 4
    return found[13], found[15]


@pytest.mark.root
def test_the_life_of_a_peer_in_the_real_data_plane(
    daemon: Daemon, log: Any, log_entries: LogCapture, in_namespace: Callable[[Callable[[], Any]], Any]
) -> None:
    openvpn = in_namespace(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    handler = open_session(daemon.target, None, log, Tuning())
    caller = FakeCaller({7: openvpn.fileno()})
    data, control = bytes([0x48, 0, 0, 1]) + bytes(40), bytes([0x38, 1, 2, 3])

    def errnos_of(datagram: bytes) -> list[int]:
        return errnos(handler.handle(GENERIC, datagram, PORT_ID, caller).replies)

    def scenario() -> None:
        bring_up("lo")
        openvpn.bind(("127.0.0.1", 0))
        address = openvpn.getsockname()
        assert errnos_of(get_family()) == [0]
        assert handler.handle(ROUTE, new_link(), PORT_ID, caller).kernel_messages
        ifindex = socket.if_nametoindex("tun0")
        set_peer = generic(DCO, 2, u32(1, ifindex), nest(3, u32(1, 1), u32(2, 10), u32(3, 60)))
        for request in (new_peer(ifindex, 1), set_peer, new_key(ifindex, 1)):
            assert errnos_of(request) == [0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(control, address)
            client.sendto(data, address)
        assert openvpn.recv(100) == control
        # The test's own timeout ends this if the packet never comes.
        while link_rx(handler.handle(GENERIC, get_peer(ifindex, 1), PORT_ID, caller).replies) != (44, 1):
            pass
        assert errnos_of(del_peer(ifindex, 1)) == [0]
        openvpn.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as restarted:
            # Without SO_REUSEPORT: nobody may hold the port any more.
            restarted.bind(address)
        handler.close()
        assert not interface_exists("tun0")

    in_namespace(scenario)
    assert [entry["event"] for entry in log_entries.entries if entry["log_level"] != "info"] == []


@pytest.mark.root
def test_the_end_of_the_real_data_plane_is_fatal(
    daemon: Daemon, log: Any, in_namespace: Callable[[Callable[[], Any]], Any]
) -> None:
    with in_namespace(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as openvpn:
        handler = open_session(daemon.target, None, log, Tuning())
        caller = FakeCaller({7: openvpn.fileno()})

        def scenario() -> int:
            bring_up("lo")
            openvpn.bind(("127.0.0.1", 0))
            handler.join_group(PORT_ID, GROUP)
            handler.handle(ROUTE, new_link(), PORT_ID, caller)
            ifindex = socket.if_nametoindex("tun0")
            assert errnos(handler.handle(GENERIC, new_peer(ifindex, 1), PORT_ID, caller).replies) == [0]
            return ifindex

        ifindex = in_namespace(scenario)
        daemon.process.kill()
        daemon.process.wait()
        notices: list[Notice] = []
        while not handler.fatal():
            assert is_readable(handler.notices_fd(), 30)
            notices += handler.take_notices()
        handler.close()
    assert notices == [Notice(PORT_ID, deletion(ifindex, 1, 3))]


@pytest.mark.root
def test_without_a_daemon_a_session_opens_at_once_and_answers_enoent(tmp_path: Path, log: Any) -> None:
    handler = open_session(f"unix:{tmp_path / 'missing.sock'}", None, log, Tuning())
    assert errnos(handler.handle(GENERIC, get_family(), PORT_ID, FakeCaller()).replies) == [ENOENT]
    handler.close()
