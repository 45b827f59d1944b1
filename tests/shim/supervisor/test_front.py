from __future__ import annotations

import fcntl
import os
import pty
import resource
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from controlplane_shim.supervisor import architecture, processes
from tests.shim.supervisor.conftest import WAIT_SECONDS, Shim, Watch, supervisor_of

pytestmark = pytest.mark.root

REPORT_SIGNALS = """
import time
def report(number, _frame):
    say(number)
for number in (1, 2, 3, 10, 12, 15):
    signal.signal(number, report)
say("ready")
while True: signal.pause()
"""

# Says its own pid and the supervisor's, then waits for a signal that ends it.
WAITING = """
say(os.getpid(), os.getppid())
signal.pause()
"""

# As daemon(3): the parent ends with 0 as soon as the child is there. Says the daemon's pid.
DAEMON = """
if os.fork(): os._exit(0)
os.setsid()
say(os.getpid())
null = os.open("/dev/null", os.O_RDWR)
for fd in range(3): os.dup2(null, fd)
signal.pause()
"""


def words(process: subprocess.Popen[str]) -> list[str]:
    """The next line of the program, which says so that it is ready."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def numbers(process: subprocess.Popen[str]) -> list[int]:
    return [int(word) for word in words(process)]


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code_is_the_programs(shim: Shim, code: int) -> None:
    assert shim.run("sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP])
def test_front_dies_of_the_signal_the_program_died_of(shim: Shim, number: int, tmp_path: Path) -> None:
    done = shim.run("sh", "-c", f"kill -{int(number)} $$", cwd=tmp_path)
    assert done.returncode == -number


def test_front_leaves_no_core(shim: Shim, tmp_path: Path) -> None:
    def allow_cores() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    process = shim.start("sh", "-c", "kill -6 $$", cwd=tmp_path, preexec_fn=allow_cores)
    _pid, status = os.waitpid(process.pid, 0)
    assert (os.WTERMSIG(status), os.WCOREDUMP(status)) == (signal.SIGABRT, False)


def test_standard_streams_are_the_users(shim: Shim) -> None:
    done = shim.run("sh", "-c", "cat; echo complaint >&2", text="from the user\n")
    assert done.stdout == "from the user\n"
    assert "complaint\n" in done.stderr


def test_closed_standard_streams_do_no_harm(shim: Shim) -> None:
    def close_all() -> None:
        os.closerange(0, 3)

    assert shim.run("sh", "-c", "exit 7", preexec_fn=close_all).returncode == 7


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signal_is_forwarded_to_the_program(shim: Shim, number: int) -> None:
    process = shim.start(*shim.python(REPORT_SIGNALS))
    assert words(process) == ["ready"]
    process.send_signal(number)
    assert numbers(process) == [number]


def test_signal_that_comes_before_the_program_is_not_lost(shim: Shim) -> None:
    process = shim.start("sleep", "1000")
    while not _ignores_or_blocks(process.pid, signal.SIGTERM):
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == -signal.SIGTERM


def _ignores_or_blocks(pid: int, number: int) -> bool:
    mask = Path(f"/proc/{pid}/status").read_text().partition("SigBlk:")[2].split()[0]
    return bool(int(mask, 16) & 1 << (number - 1))


def test_interrupt_from_the_terminal_reaches_the_program_once(shim: Shim) -> None:
    controller, terminal = pty.openpty()

    def lead_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    process = shim.start(*shim.python(REPORT_SIGNALS), stdin=terminal, preexec_fn=lead_the_terminal)
    assert words(process) == ["ready"]
    os.write(controller, b"\x03")
    assert numbers(process) == [signal.SIGINT]
    process.send_signal(signal.SIGUSR1)  # after all that the front had to forward
    assert numbers(process) == [signal.SIGUSR1]
    os.close(controller)
    os.close(terminal)


class TestDeathOfTheSupervisor:
    def test_program_is_killed_and_the_front_says_so(self, shim: Shim, watch: type[Watch]) -> None:
        process = shim.start(*shim.python(WAITING))
        program, supervisor = numbers(process)
        watched = watch(program)
        assert supervisor == supervisor_of(process.pid)
        os.kill(supervisor, signal.SIGKILL)
        assert watched.is_dead()
        _out, err = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 70
        assert err.splitlines()[-1] == "ovpn-shim: the supervisor died, so the program was killed"

    def test_program_that_waits_for_an_answer_is_killed(self, shim: Shim, watch: type[Watch]) -> None:
        process = shim.start(
            *shim.python("client = netlink(); say(os.getpid(), os.getppid()); input(); client.send(b'x' * 20)")
        )
        program, supervisor = numbers(process)
        watched = watch(program)
        os.kill(supervisor, signal.SIGSTOP)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        waits_in = f"{architecture.current().sendto} "
        while not Path(f"/proc/{program}/syscall").read_text().startswith(waits_in):
            os.sched_yield()
        os.kill(supervisor, signal.SIGKILL)
        assert watched.is_dead()

    def test_no_process_is_left(self, shim: Shim, watch: type[Watch]) -> None:
        code = "child = os.fork()\nif child: say(os.getpid(), os.getppid(), child)\nsignal.pause()"
        process = shim.start(*shim.python(code))
        watched = [watch(pid) for pid in numbers(process)]
        os.kill(watched[1].pid, signal.SIGKILL)
        assert all(one.is_dead() for one in watched)
        process.communicate(timeout=WAIT_SECONDS)
        assert shim.processes() == []

    @pytest.mark.parametrize("target", ["dies", "broken"])
    def test_before_the_program_started_is_told(self, shim: Shim, target: str) -> None:
        done = shim.run("echo", "ran", env={"FAKE_TARGET": target})
        assert (done.returncode, done.stdout) == (70, "")
        assert done.stderr.splitlines()[-1] == "ovpn-shim: the supervisor died before it could start the program"


class TestDeathOfTheFront:
    def test_program_and_supervisor_end(self, shim: Shim, watch: type[Watch]) -> None:
        process = shim.start(*shim.python(WAITING))
        watched = [watch(pid) for pid in numbers(process)]
        process.kill()
        assert all(one.is_dead() for one in watched)

    def test_program_is_asked_to_end_and_served_meanwhile(self, shim: Shim) -> None:
        process = shim.start(
            *shim.python("""
client = netlink()
def end(*_):
    say(ask(client, request(ECHO, b"abcd"))[1])
    os._exit(0)
signal.signal(signal.SIGTERM, end)
say("ready")
while True: signal.pause()
""")
        )
        assert words(process) == ["ready"]
        process.kill()
        assert words(process) == ["0"]


class TestBackground:
    def test_front_returns_to_the_shell_and_the_daemon_lives(self, shim: Shim) -> None:
        process = shim.start(*shim.python(DAEMON))
        (daemon,) = numbers(process)
        assert process.wait(WAIT_SECONDS) == 0
        assert processes.executable(daemon)

    def test_nobody_holds_the_users_streams(self, shim: Shim) -> None:
        process = shim.start(*shim.python(DAEMON))
        process.communicate(timeout=WAIT_SECONDS)  # ends only at the end of both streams
        assert len(shim.processes()) == 3

    def test_nobody_stays_in_the_users_session(self, shim: Shim) -> None:
        process = shim.start(*shim.python(DAEMON), start_new_session=True)
        process.communicate(timeout=WAIT_SECONDS)
        assert process.pid not in {os.getsid(pid) for pid in shim.processes()}

    def test_end_of_the_daemon_ends_everything(self, shim: Shim, watch: type[Watch]) -> None:
        process = shim.start(*shim.python(DAEMON))
        (daemon,) = numbers(process)
        process.communicate(timeout=WAIT_SECONDS)
        watched = [watch(pid) for pid in shim.processes()]
        assert len(watched) == 3
        os.kill(daemon, signal.SIGTERM)
        assert all(one.is_dead() for one in watched)

    def test_daemon_is_served(self, shim: Shim, tmp_path: Path) -> None:
        report = tmp_path / "report"
        os.mkfifo(report)
        process = shim.start(
            *shim.python(f"""
client = netlink()
if os.fork(): os._exit(0)
if os.fork(): os._exit(0)
outcome = ask(client, request(ECHO, b"abcd"))[1], ask(netlink(), request(ECHO, b"abcd"))[1]
open({str(report)!r}, "w").write(str(outcome))
""")
        )
        assert report.read_text() == "(0, 0)"
        assert process.wait(WAIT_SECONDS) == 0

    def test_death_of_the_supervisor_kills_the_daemon(self, shim: Shim, watch: type[Watch]) -> None:
        process = shim.start(*shim.python(DAEMON))
        (daemon,) = numbers(process)
        process.communicate(timeout=WAIT_SECONDS)
        watched = [watch(pid) for pid in shim.processes()]
        os.kill(_parent(daemon), signal.SIGKILL)
        assert all(one.is_dead() for one in watched)

    def test_death_of_the_guardian_ends_the_daemon(self, shim: Shim, watch: type[Watch]) -> None:
        process = shim.start(*shim.python(DAEMON))
        (daemon,) = numbers(process)
        process.communicate(timeout=WAIT_SECONDS)
        watched = [watch(pid) for pid in shim.processes()]
        (guardian,) = [one.pid for one in watched if one.pid not in {daemon, _parent(daemon)}]
        os.kill(guardian, signal.SIGKILL)
        assert all(one.is_dead() for one in watched)

    def test_openvpn_daemon_obeys_its_own_pid_file(self, shim: Shim, watch: type[Watch], tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        os.mkfifo(pid_file)
        options = ["--dev", "null", "--nobind", "--remote", "127.0.0.1", "9", "--log", str(tmp_path / "log")]
        process = shim.start("/usr/sbin/openvpn", *options, "--daemon", "--writepid", str(pid_file))
        daemon = int(pid_file.read_text())
        process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0
        watched = [watch(pid) for pid in shim.processes()]
        assert daemon in {one.pid for one in watched}
        os.kill(daemon, signal.SIGTERM)
        assert all(one.is_dead() for one in watched)

    def test_program_that_fails_is_not_taken_for_a_daemon(self, shim: Shim) -> None:
        done = shim.run(
            *shim.python("if os.fork(): os._exit(3)\nos.close(0); os.close(1); os.close(2); signal.pause()")
        )
        assert done.returncode == 3

    def test_other_executable_in_the_background_is_not_taken_for_a_daemon(self, shim: Shim) -> None:
        done = shim.run("sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 & exit 0")
        assert done.returncode == 0
        assert "went to the background" not in done.stderr


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_target_that_cannot_be_is_ex_config_and_the_program_is_not_run(shim: Shim) -> None:
    done = shim.run("echo", "ran", env={"FAKE_TARGET": "refused"})
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "ovpn-shim: this target cannot be\n"


def test_front_imports_nothing_heavy() -> None:
    heavy = "{'grpc', 'google', 'pyroute2', 'structlog', 'msgspec', 'asyncio', 'cryptography', 'subprocess'}"
    code = f"import sys; from controlplane_shim import __main__; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
