from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane_shim.log import open_log
from controlplane_shim.netlink.message import PLAIN_ACKS, AckOptions
from controlplane_shim.supervisor.handler import Caller, Handled, Notice
from controlplane_shim.supervisor.notices import Notices
from controlplane_shim.supervisor.unicast import Unicaster

pytestmark = pytest.mark.root

GENERIC = 16


class FakeHandler:
    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.reason = ""
        self.gone: list[int] = []

    def handle(
        self, protocol: int, datagram: bytes, port_id: int, caller: Caller, options: AckOptions = PLAIN_ACKS
    ) -> Handled:
        raise AssertionError(protocol, datagram, port_id, caller, options)

    def join_group(self, port_id: int, group: int) -> bool:
        raise AssertionError(port_id, group)

    def leave_group(self, port_id: int, group: int) -> bool:
        raise AssertionError(port_id, group)

    def member_gone(self, port_id: int) -> None:
        self.gone.append(port_id)

    def offers_offload(self) -> bool:
        raise AssertionError

    def notices_fd(self) -> int:
        return 42

    def take_notices(self) -> list[Notice]:
        taken, self.notices = self.notices, []
        return taken

    def fatal(self) -> str:
        return self.reason

    def close(self) -> None:
        raise AssertionError


@pytest.fixture
def handler() -> FakeHandler:
    return FakeHandler()


@pytest.fixture
def notices(handler: FakeHandler, tmp_path: Path) -> Iterator[Notices]:
    unicaster = Unicaster((GENERIC,))
    yield Notices(handler, unicaster, open_log("debug", tmp_path / "log"))
    unicaster.close()


@pytest.fixture
def member() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, GENERIC) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.bind((0, 0))
        made.setblocking(False)
        yield made


def test_descriptor_is_the_handlers(notices: Notices) -> None:
    assert notices.fileno() == 42


def test_notices_are_sent_in_order(notices: Notices, handler: FakeHandler, member: socket.socket) -> None:
    handler.notices = [Notice(member.getsockname()[0], word) for word in (b"first", b"second")]
    assert notices.forward() == ""
    assert [member.recv(100), member.recv(100)] == [b"first", b"second"]


def test_fatal_reason_is_told_after_the_notices(notices: Notices, handler: FakeHandler, member: socket.socket) -> None:
    handler.notices = [Notice(member.getsockname()[0], b"last")]
    handler.reason = "gone"
    assert notices.forward() == "gone"
    assert member.recv(100) == b"last"


def test_closed_member_is_reported_and_delays_no_other(
    notices: Notices, handler: FakeHandler, member: socket.socket
) -> None:
    unused = 4_000_000_000
    handler.notices = [Notice(unused, b"lost"), Notice(member.getsockname()[0], b"kept")]
    notices.forward()
    assert handler.gone == [unused]
    assert member.recv(100) == b"kept"


def test_member_that_closes_while_notices_wait_is_reported(
    notices: Notices, handler: FakeHandler, member: socket.socket
) -> None:
    port_id = member.getsockname()[0]
    handler.notices = [Notice(port_id, bytes(1000))] * 100
    notices.forward()
    assert notices.retry_after_seconds() is not None
    member.close()
    notices.retry()
    assert handler.gone == [port_id]
    assert notices.retry_after_seconds() is None


def test_notice_that_cannot_be_sent_is_logged(
    notices: Notices, handler: FakeHandler, member: socket.socket, tmp_path: Path
) -> None:
    handler.notices = [Notice(member.getsockname()[0], bytes(16 << 20)), Notice(member.getsockname()[0], b"kept")]
    notices.forward()
    assert "notice could not be sent" in (tmp_path / "log").read_text()
    assert member.recv(100) == b"kept"
    assert os.strerror(90) in (tmp_path / "log").read_text()  # EMSGSIZE
