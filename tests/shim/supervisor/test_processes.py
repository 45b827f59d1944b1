from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane_shim.supervisor import processes


def identity(path: str) -> processes.FileIdentity:
    status = Path(path).stat()
    return status.st_dev, status.st_ino


def test_executable_is_the_file_that_runs() -> None:
    assert processes.executable(os.getpid()) == identity(sys.executable)


def test_zombie_executes_nothing() -> None:
    child = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(FileNotFoundError):
        processes.executable(child.pid)
    child.wait()


def test_children_are_told_oldest_first_and_zombies_too() -> None:
    first = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    second = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, second.pid, os.WEXITED | os.WNOWAIT)
    pids = [child.pid for child in processes.children_of(os.getpid())]
    assert [pid for pid in pids if pid in {first.pid, second.pid}] == [first.pid, second.pid]
    first.communicate()
    second.wait()


def test_child_with_a_hostile_name_is_understood(tmp_path: Path) -> None:
    copy = tmp_path / "a) R 1 (b"
    copy.symlink_to("/bin/cat")
    child = subprocess.Popen([copy], stdin=subprocess.PIPE)
    assert child.pid in [found.pid for found in processes.children_of(os.getpid())]
    child.communicate()


@pytest.mark.parametrize("name", ["cat", "/bin/cat"])
def test_executable_is_found_as_exec_would(name: str) -> None:
    assert processes.find_executable(name) == identity("/bin/cat")


@pytest.mark.parametrize("name", ["no-such-program", "/etc/passwd", "/etc", "./no-such-program"])
def test_what_cannot_be_executed_is_not_found(name: str) -> None:
    assert processes.find_executable(name) is None


def test_environment_is_the_one_that_was_given_and_not_what_python_made_of_it() -> None:
    code = "from controlplane_shim.supervisor import processes; print(processes.original_environment())"
    given = {"B": "2", "A": "x=y"}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert done.stdout == "{b'B': b'2', b'A': b'x=y'}\n"


def test_closed_standard_descriptors_are_opened_and_others_left() -> None:
    code = """
import os
from controlplane_shim.supervisor import processes
os.close(0)
os.close(2)
processes.open_standard_descriptors()
print([os.fstat(fd).st_rdev == os.stat("/dev/null").st_rdev and os.get_inheritable(fd) for fd in range(3)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, stdin=subprocess.PIPE
    )
    assert done.stdout == "[True, False, True]\n"


def test_detached_process_leads_a_session_and_holds_nothing_of_the_users() -> None:
    code = """
import os, sys
from controlplane_shim.supervisor import processes
report = os.dup(1)
if os.fork() == 0:
    processes.detach_from_terminal()
    processes.detach_from_terminal()
    null = os.stat("/dev/null").st_rdev
    os.write(report, repr((os.getsid(0) == os.getpid(), [os.fstat(fd).st_rdev == null for fd in range(3)])).encode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(True, [True, True, True])"
