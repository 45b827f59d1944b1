from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.shim.supervisor.conftest import WAIT_SECONDS, Shim, Watch, supervisor_of

pytestmark = pytest.mark.root

MEMBER = """
client, member = netlink(), netlink()
member.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, FAKE_GROUP)
"""


def test_fatal_end_of_the_session_ends_the_program_after_its_last_notices(shim: Shim) -> None:
    done = shim.run(
        *shim.python(
            MEMBER
            + """
def end(*_):
    say("last notice" if receive(member)[0][2] == b"last" else "")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
client.send(request(FATAL))
while True: signal.pause()
"""
        )
    )
    assert (done.stdout, done.returncode) == ("last notice\n", 75)
    assert done.stderr.splitlines()[-1] == "ovpn-shim: the data plane is gone"


def test_fault_in_the_sessions_notices_ends_the_program(shim: Shim) -> None:
    done = shim.run(*shim.python("netlink().send(request(RAISE_IN_NOTICES)); signal.pause()"))
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1] == "ovpn-shim: internal error of ovpn-shim"


def test_supervisor_that_is_told_to_end_ends_the_program(shim: Shim) -> None:
    process = shim.start(
        "sh", "-c", "trap 'echo ended; exit 9' TERM; echo ready; while true; do sleep 1000 & wait; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(supervisor_of(process.pid), signal.SIGTERM)
    assert process.stdout.readline() == "ended\n"
    assert process.wait(WAIT_SECONDS) == 9


def test_supervisor_heeds_no_signal_of_the_terminal(shim: Shim) -> None:
    process = shim.start("cat")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("once\n")
    process.stdin.flush()
    assert process.stdout.readline() == "once\n"
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        os.kill(supervisor_of(process.pid), number)
    out, _err = process.communicate("twice\n", timeout=WAIT_SECONDS)
    assert (out, process.returncode) == ("twice\n", 0)


def test_nothing_is_left_when_the_program_has_ended(shim: Shim) -> None:
    assert shim.run("true").returncode == 0
    assert shim.processes() == []


def test_daemon_that_a_script_left_keeps_its_netlink(shim: Shim, watch: type[Watch]) -> None:
    """The program is over; without an answer the call of the one left would fail with ENOSYS."""
    script = "read word; exec ip -o link show lo"
    process = shim.start(*shim.python(f"import subprocess; subprocess.Popen(['sh', '-c', {script!r}])"))
    assert process.wait(WAIT_SECONDS) == 0
    left = [watch(pid) for pid in shim.processes()]
    out, _err = process.communicate("go on\n", timeout=WAIT_SECONDS)
    assert " lo: " in out
    assert len(left) == 2
    assert all(one.is_dead() for one in left)


def test_zombies_of_the_programs_orphans_are_reaped(shim: Shim) -> None:
    process = shim.start(
        *shim.python("""
if os.fork() == 0:
    if os.fork() == 0:
        os._exit(0)
    os._exit(0)
os.wait()
say(os.getppid())
input()
""")
    )
    assert process.stdout is not None
    supervisor = int(process.stdout.readline())
    children = f"/proc/{supervisor}/task/{supervisor}/children"
    while len(subprocess.run(["cat", children], capture_output=True, check=True).stdout.split()) != 1:
        os.sched_yield()
    process.communicate("\n", timeout=WAIT_SECONDS)
