from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from controlplane_shim.supervisor import architecture
from controlplane_shim.supervisor.listener import Listener, NotificationGone
from controlplane_shim.supervisor.program import Program, ProgramEnded

pytestmark = pytest.mark.root

MACHINE = architecture.current()

# Opens a netlink socket and ends with the descriptor's number, 255 for an error.
OPENS = "import ctypes; l = ctypes.CDLL(None); import os; os._exit(l.socket(16, 0x80003, 16) & 255)"
FD = 200


class Tracee:
    def __init__(self, code: str) -> None:
        self.program = Program.launch([sys.executable, "-S", "-c", code], frozenset())
        listener = self.program.receive_supervision().listener
        assert listener is not None
        self.listener = Listener(listener)
        self.program.go()

    def outcome(self) -> ProgramEnded:
        while (ended := self.program.reap()) is None:
            os.sched_yield()
        assert isinstance(ended, ProgramEnded)
        return ended


@pytest.fixture
def tracee() -> Iterator[Tracee]:
    made = Tracee(OPENS)
    yield made
    if made.listener.has_users():
        signal.pidfd_send_signal(made.program.pidfd, signal.SIGKILL)
        made.outcome()
    made.program.close()
    made.listener.close()


def test_notification_tells_the_call(tracee: Tracee) -> None:
    notification = tracee.listener.receive()
    assert (notification.tid, notification.number) == (tracee.program.pid, MACHINE.socket)
    assert notification.arguments[:3] == (16, 0x80003, 16)
    assert tracee.listener.is_waiting(notification)


def test_call_let_through_is_executed(tracee: Tracee) -> None:
    notification = tracee.listener.receive()
    tracee.listener.let_through(notification)
    assert 3 <= tracee.outcome().code < FD


def test_value_given_is_returned(tracee: Tracee) -> None:
    tracee.listener.give(tracee.listener.receive(), 77)
    assert tracee.outcome() == ProgramEnded(77, 0)


def test_descriptor_is_injected_and_returned(tracee: Tracee) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as made:
        tracee.listener.inject(tracee.listener.receive(), made.fileno(), FD, close_on_exec=True)
    assert tracee.outcome() == ProgramEnded(FD, 0)


def test_descriptor_above_the_limit_is_refused_and_the_call_waits_on(tracee: Tracee) -> None:
    notification = tracee.listener.receive()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as made, pytest.raises(OSError) as raised:
        tracee.listener.inject(notification, made.fileno(), 1 << 20, close_on_exec=True)
    assert raised.value.errno == errno.EBADF
    assert tracee.listener.is_waiting(notification)
    tracee.listener.give(notification, 0)


def test_killed_caller_is_gone_for_every_answer(tracee: Tracee) -> None:
    notification = tracee.listener.receive()
    signal.pidfd_send_signal(tracee.program.pidfd, signal.SIGKILL)
    assert tracee.outcome() == ProgramEnded(0, signal.SIGKILL)
    assert not tracee.listener.is_waiting(notification)
    with pytest.raises(NotificationGone):
        tracee.listener.let_through(notification)
    with pytest.raises(NotificationGone):
        tracee.listener.give(notification, 0)
    with pytest.raises(NotificationGone):
        tracee.listener.inject(notification, 0, FD, close_on_exec=False)


def test_listener_has_users_until_the_last_process_has_ended(tracee: Tracee) -> None:
    assert tracee.listener.has_users()
    tracee.listener.give(tracee.listener.receive(), 0)
    tracee.outcome()
    assert not tracee.listener.has_users()
