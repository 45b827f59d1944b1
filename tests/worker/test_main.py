from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from dataplane.messages import Stop
from dataplane.vocabulary import DatapathKind
from tests.worker.conftest import DaemonSide, Worker

FORBIDDEN = {"grpc", "google", "asyncio", "structlog", "pyroute2"}
READABLE = {
    "cryptography",
    "dataplane.datachannel.aead",
    "dataplane.datachannel.channel",
    "dataplane.worker.packet_path",
}

PARENT = """
import os, socket, subprocess, sys
carrier = socket.socket(fileno=int(sys.argv[1]))
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
command = [sys.executable, "-m", "dataplane.worker", "--fd", str(theirs.fileno())]
subprocess.Popen(command, pass_fds=[theirs.fileno()])
socket.send_fds(carrier, [b"channel"], [ours.fileno()])
os.read(0, 1)
"""


def modules_of_a_worker(datapath: DatapathKind) -> set[str]:
    """What it has imported when it is about to wait for commands."""
    program = """
import sys
from dataplane.vocabulary import DatapathKind
from dataplane.worker import __main__
__main__.load_datapath(DatapathKind(sys.argv[1]))
print(*sys.modules)
"""
    command = [sys.executable, "-c", program, datapath]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_worker_imports_nothing_of_the_control_side(datapath_kind: DatapathKind) -> None:
    modules = modules_of_a_worker(datapath_kind)
    assert FORBIDDEN & {module.split(".")[0] for module in modules} == set()


def test_worker_imports_the_data_channel_of_its_datapath_alone() -> None:
    readable, compiled = map(modules_of_a_worker, (DatapathKind.PYTHON, DatapathKind.COMPILED))
    assert (READABLE & readable, READABLE & compiled) == (READABLE, set())
    assert not any(name.startswith("dataplane.fastpath") for name in readable)


def test_datapath_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, "-m", "dataplane.worker", "--fd", "0", "--datapath", "no-such-thing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "no-such-thing" in done.stderr) == (2, True)


def test_stop_is_answered_before_the_worker_ends(worker: Worker) -> None:
    worker.do(Stop())
    assert worker.ended() == (0, "")


def test_worker_ends_when_the_daemon_closes_the_channel(worker: Worker) -> None:
    worker.settle()
    worker.channel.close()
    assert worker.ended() == (0, "")


def test_worker_dies_with_its_parent_although_the_channel_is_still_open() -> None:
    carrier, theirs = socket.socketpair()
    with carrier, theirs:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.PIPE
        )
        _, (fd,), _, _ = socket.recv_fds(carrier, 100, 1)
    with socket.socket(fileno=fd) as channel:
        DaemonSide(channel).settle()
        parent.kill()
        parent.communicate()
        assert channel.recv(100) == b""


def test_worker_that_is_not_the_daemons_child_does_not_run() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        shell = '"$0" -m dataplane.worker --fd "$1"; exit $?'
        done = subprocess.run(
            ["sh", "-c", shell, sys.executable, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, "ParentGone" in done.stderr) == (1, True)


def test_interrupt_from_the_terminal_is_for_the_daemon_alone(worker: Worker) -> None:
    worker.settle()
    worker.process.send_signal(signal.SIGINT)
    worker.settle()


def test_sigterm_ends_the_worker(worker: Worker) -> None:
    worker.settle()
    worker.process.terminate()
    assert worker.ended() == (-signal.SIGTERM, "")


def test_fault_is_told_in_one_line() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    command = [sys.executable, "-m", "dataplane.worker", "--fd", str(fd)]
    done = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, check=False)
    os.close(fd)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("dataplane.worker: OSError: ")
