"""Starting worker processes. The program started here is not a worker but Python code of the test."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from dataplane.engine.worker_process import SubprocessLauncher, WorkerProcess
from dataplane.vocabulary import DatapathKind
from tests.descriptors import open_fds


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that is executed in place of Python; gets the same arguments."""
    program = tmp_path / "program"
    monkeypatch.setattr(sys, "executable", str(program))
    return program


INTERPRETER = sys.executable


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!{INTERPRETER} -IS\nimport os, sys, time\n{text}\n")
    path.chmod(0o755)


async def end(process: WorkerProcess, link: socket.socket) -> int:
    process.kill()
    link.close()
    return await process.wait()


@pytest.mark.parametrize("kind", DatapathKind)
async def test_the_worker_is_executed_with_its_end_of_the_link_and_its_datapath(
    stand_in: Path, kind: DatapathKind
) -> None:
    write_program(stand_in, "os.write(int(sys.argv[4]), ' '.join(sys.argv[1:]).encode())")
    process, link = await SubprocessLauncher(kind).launch()
    assert await process.wait() == 0
    *command, fd, option, datapath = link.recv(100).decode().split()
    assert command == ["-m", "dataplane.worker", "--fd"]
    assert int(fd) > 2
    assert (option, datapath) == ("--datapath", kind)
    link.close()


async def test_the_worker_gets_no_other_descriptor(stand_in: Path) -> None:
    write_program(stand_in, "os.write(int(sys.argv[4]), ' '.join(os.listdir('/proc/self/fd')).encode())")
    inheritable = os.dup(2)
    os.set_inheritable(inheritable, True)
    process, link = await SubprocessLauncher().launch()
    assert await process.wait() == 0
    fds = {int(fd) for fd in link.recv(1000).split()}
    os.close(inheritable)
    link.close()
    assert len(fds - {0, 1, 2}) == 2, "the link, and that of the listing"


async def test_the_link_ends_with_the_worker(stand_in: Path) -> None:
    write_program(stand_in, "time.sleep(60)")
    process, link = await SubprocessLauncher().launch()
    assert await end(process, link.dup()) == -9
    assert link.recv(1) == b""
    link.close()


async def test_a_signal_at_the_terminal_is_not_for_the_worker(stand_in: Path) -> None:
    write_program(stand_in, "time.sleep(60)")
    process, link = await SubprocessLauncher().launch()
    assert os.getpgid(process.pid) == process.pid
    await end(process, link)


async def test_killing_an_ended_worker_is_no_error(stand_in: Path) -> None:
    write_program(stand_in, "sys.exit(3)")
    process, link = await SubprocessLauncher().launch()
    assert await process.wait() == 3
    assert await end(process, link) == 3


async def test_a_failed_launch_leaves_no_descriptor(stand_in: Path) -> None:
    del stand_in  # there is no such file
    before = open_fds()
    with pytest.raises(FileNotFoundError):
        await SubprocessLauncher().launch()
    assert open_fds() <= before
