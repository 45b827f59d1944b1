from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane_shim.supervisor import libc, processes
from controlplane_shim.supervisor.program import LauncherDied, MovedToBackground, Program, ProgramEnded

pytestmark = pytest.mark.root

Launch = Callable[..., Program]

IGNORES_SIGTERM = "import signal, os; signal.signal(15, signal.SIG_IGN); os.write(1, b'r'); signal.pause()"
DAEMON = "import os, signal\nif os.fork(): os._exit({0})\nsignal.pause()"


@pytest.fixture
def orphans() -> Iterator[Callable[[], list[int]]]:
    """Tells the children, oldest first, that came since the test began; others have children here, too."""
    before = {child.pid for child in processes.children_of(os.getpid())}
    libc.set_child_subreaper()

    def since_then() -> list[int]:
        return [child.pid for child in processes.children_of(os.getpid()) if child.pid not in before]

    yield since_then
    for pid in since_then():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    libc._prctl(libc.PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture
def launch(orphans: object) -> Iterator[Launch]:  # noqa: ARG001 - it tidies up after this
    """Starts programs, let go at once; kills and reaps them at the end."""
    made: list[Program] = []

    def start(*command: str) -> Program:
        program = Program.launch(command, frozenset())
        made.append(program)
        listener = program.receive_supervision().listener
        assert listener is not None
        os.close(listener)
        program.go()
        return program

    yield start
    for program in made:
        try:
            signal.pidfd_send_signal(program.pidfd, signal.SIGKILL)
            os.waitpid(program.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        program.close()


def next_event(program: Program) -> MovedToBackground | ProgramEnded:
    while (event := program.reap()) is None:
        program.kill_if_overdue()
        os.sched_yield()
    return event


def python(code: str) -> tuple[str, str, str, str]:
    return sys.executable, "-S", "-c", code


@pytest.mark.parametrize(("ending", "expected"), [("exit 7", ProgramEnded(7, 0)), ("kill -9 $$", ProgramEnded(0, 9))])
def test_end_tells_code_or_signal(launch: Launch, ending: str, expected: ProgramEnded) -> None:
    assert next_event(launch("sh", "-c", ending)) == expected


def test_nothing_is_reaped_while_the_program_runs(launch: Launch) -> None:
    assert launch("sleep", "1000").reap() is None


def test_executable_is_known_before_the_program_is_executed() -> None:
    program = Program.launch(["cat"], frozenset())
    assert program.executable() == processes.executable(program.pid)
    program.close()
    assert next_event(program) == ProgramEnded(70, 0)


def test_executable_follows_an_exec(launch: Launch) -> None:
    program = launch("sh", "-c", "exec sleep 1000")
    sleep = processes.find_executable("sleep")
    while program.executable() != sleep:
        os.sched_yield()


def test_executable_of_a_zombie_is_what_it_was(launch: Launch) -> None:
    program = launch("true")
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    assert program.executable() == processes.find_executable("true")


def test_asked_to_end_it_gets_sigterm(launch: Launch) -> None:
    program = launch("sleep", "1000")
    program.end(1000)
    assert next_event(program) == ProgramEnded(0, signal.SIGTERM)


def test_after_the_grace_it_is_killed(launch: Launch, capfd: pytest.CaptureFixture[str]) -> None:
    program = launch(*python(IGNORES_SIGTERM))
    while not capfd.readouterr().out:
        os.sched_yield()
    program.end(1000)
    assert program.kill_after_seconds() == pytest.approx(1000, abs=60)
    program.kill_if_overdue()
    assert program.reap() is None
    program.end(0)
    assert program.kill_after_seconds() == 0
    assert next_event(program) == ProgramEnded(0, signal.SIGKILL)


def test_longer_grace_does_not_put_the_kill_off(launch: Launch) -> None:
    program = launch("sleep", "1000")
    program.end(0)
    program.end(1000)
    assert program.kill_after_seconds() == 0


def test_daemon_that_stays_becomes_the_program(launch: Launch) -> None:
    program = launch(*python(DAEMON.format(0)))
    first = program.pid
    event = next_event(program)
    assert isinstance(event, MovedToBackground)
    assert event.pid == program.pid != first
    os.kill(event.pid, signal.SIGKILL)
    assert next_event(program) == ProgramEnded(0, signal.SIGKILL)


def test_daemon_that_forks_again_and_again_is_followed(launch: Launch, tmp_path: Path) -> None:
    report = tmp_path / "report"
    os.mkfifo(report)
    code = f"""
import os, signal
for _ in range(5):
    if os.fork(): os._exit(0)
open({str(report)!r}, "w").write(str(os.getpid()))
signal.pause()
"""
    program = launch(*python(code))
    last = int(report.read_text())
    while program.pid != last:
        assert isinstance(program.reap(), MovedToBackground | None)


def test_newest_orphan_is_the_daemon(launch: Launch, orphans: Callable[[], list[int]]) -> None:
    """A plugin's helper was forked before the daemon."""
    helper = "if os.fork() == 0: signal.pause()"
    program = launch(*python(f"import os, signal\n{helper}\n{DAEMON.format(0)}"))
    event = next_event(program)
    assert isinstance(event, MovedToBackground)
    helper_pid, daemon_pid = orphans()
    assert processes.executable(helper_pid) == program.executable()
    assert event.pid == daemon_pid


def test_failed_program_leaves_no_daemon(launch: Launch) -> None:
    program = launch(*python(DAEMON.format(3)))
    assert next_event(program) == ProgramEnded(3, 0)


def test_daemon_of_a_program_asked_to_end_is_asked_too(launch: Launch) -> None:
    program = launch(*python("import os, signal\nsignal.signal(15, lambda *_: 0)\n" + DAEMON.format(0)))
    program.end(1000)
    event = next_event(program)
    if isinstance(event, MovedToBackground):  # unless SIGTERM came before the handler
        assert isinstance(next_event(program), ProgramEnded)


def test_launcher_that_dies_is_told() -> None:
    program = Program.launch(["true"], frozenset())
    signal.pidfd_send_signal(program.pidfd, signal.SIGKILL)
    with contextlib.suppress(LauncherDied):
        program.receive_supervision()  # it may have handed over before
    with pytest.raises(LauncherDied):
        program.receive_supervision()
    assert next_event(program) == ProgramEnded(0, signal.SIGKILL)
    program.close()
