from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.supervisor import launcher
from tests.shim.supervisor.conftest import HERE, Shim

pytestmark = pytest.mark.root


class TestRange:
    @given(st.integers(16, 1 << 20))
    def test_it_lies_below_the_limit_and_leaves_most_to_the_program(self, limit: int) -> None:
        injected = launcher.injected_range(limit)
        assert injected.stop == min(limit, launcher.MAX_DESCRIPTORS)
        assert 0 < len(injected) <= launcher.INJECTED_DESCRIPTORS
        assert len(injected) * 4 <= limit

    def test_it_is_at_the_top_of_the_usual_hard_limit(self) -> None:
        assert launcher.injected_range(524288) == range(64512, 65536)


def test_soft_limit_is_raised_for_the_injected_descriptors(shim: Shim) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))

    done = shim.run("sh", "-c", "ulimit -Sn; ulimit -Hn", preexec_fn=lower)
    assert done.stdout.split() == ["4096", "4096"]


def test_program_is_served_under_a_low_hard_limit(shim: Shim) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    done = shim.run(
        *shim.python("client = netlink(); say(client.fileno(), ask(client, request(ECHO))[1])"), preexec_fn=lower
    )
    assert done.stdout.split() == ["48", "0"]


def test_no_descriptor_leaks_into_the_program(shim: Shim) -> None:
    done = shim.run("sh", "-c", "ls /proc/$$/fd")
    assert done.stdout.split() == ["0", "1", "2"]


def test_descriptors_that_the_user_hands_over_arrive(shim: Shim) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"from a <(command)")
    os.close(writer)
    done = shim.run("cat", f"/proc/self/fd/{reader}", pass_fds=[reader])
    os.close(reader)
    assert done.stdout == "from a <(command)"


def test_environment_is_the_users(shim: Shim) -> None:
    command = [sys.executable, str(HERE / "fake_shim.py"), "/usr/bin/env"]
    environment = {"PATH": os.environ["PATH"], "EMPTY": "", **dict([shim.mark.split("=")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert dict(line.split("=", 1) for line in done.stdout.splitlines()) == environment


def test_directory_is_the_users(shim: Shim, tmp_path: Path) -> None:
    assert shim.run("pwd", cwd=tmp_path).stdout.strip() == str(tmp_path)


def test_nothing_is_imported_from_the_users_directory(shim: Shim, tmp_path: Path) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "controlplane_shim").mkdir()
    assert shim.run("true", cwd=tmp_path).returncode == 0


SIGNAL_STATE = ("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")


def test_signal_dispositions_and_mask_are_as_without_the_shim(shim: Shim) -> None:
    native = subprocess.run(SIGNAL_STATE, capture_output=True, text=True, check=True)
    assert shim.run(*SIGNAL_STATE).stdout == native.stdout


def test_signals_that_the_user_ignores_or_blocks_stay_so(shim: Shim) -> None:
    def as_nohup_does() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGWINCH})

    native = subprocess.run(SIGNAL_STATE, capture_output=True, text=True, check=True, preexec_fn=as_nohup_does)
    assert shim.run(*SIGNAL_STATE, preexec_fn=as_nohup_does).stdout == native.stdout


def test_privileges_are_left_as_they_are_for_root(shim: Shim) -> None:
    done = shim.run("grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status")
    assert done.stdout.split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]


def test_with_net_admin_alone_the_program_is_served_and_new_privileges_are_given_up(shim: Shim) -> None:
    code = """
say(ask(netlink(), request(INODE, struct.pack("=I", 0)))[1])
say(open("/proc/self/status").read().partition("NoNewPrivs:")[2].split()[0])
"""
    only_net_admin = ["setpriv", "--bounding-set", "-all,+net_admin", "--inh-caps", "-all"]
    fake = [*only_net_admin, sys.executable, str(HERE / "fake_shim.py"), *shim.python(code)]
    done = subprocess.run(fake, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]


@pytest.mark.parametrize(
    ("program", "code", "complaint"),
    [
        ("no-such-program", 127, "ovpn-shim: no-such-program: command not found"),
        ("/no/such/program", 127, "ovpn-shim: /no/such/program: No such file or directory"),
        ("/etc/passwd", 126, "ovpn-shim: /etc/passwd: Permission denied"),
        ("/etc", 126, "ovpn-shim: /etc: Permission denied"),
    ],
)
def test_program_that_cannot_be_executed_is_reported_as_by_a_shell(
    shim: Shim, program: str, code: int, complaint: str
) -> None:
    done = shim.run(program)
    assert done.returncode == code
    assert complaint in done.stderr.splitlines()


def test_under_a_filter_with_a_listener_the_program_runs_unsupervised(shim: Shim) -> None:
    done = shim.run(sys.executable, str(HERE / "fake_shim.py"), "sh", "-c", "echo ran; exit 5")
    assert (done.stdout, done.returncode) == ("ran\n", 5)
    assert (
        'event="program runs unsupervised, with its own data channel" reason="Device or resource busy"' in done.stderr
    )


def test_supervisor_that_dies_before_its_word_ends_the_launcher() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", launcher.__name__, str(theirs.fileno()), "", "echo", "ran"]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    theirs.close()
    ours.close()
    assert process.communicate() == (b"", b"")
    assert process.returncode == launcher.EXIT_SUPERVISOR_GONE
