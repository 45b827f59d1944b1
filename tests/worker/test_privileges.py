from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dataplane.vocabulary import DatapathKind
from tests.worker.conftest import Worker

CAPABILITY_SETS = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]

AS_NOBODY = """
import ctypes, os
from dataplane.worker.privileges import give_up_privileges
os.setgroups([]); os.setgid(65534); os.setuid(65534)
give_up_privileges()
"""

DUMPABLE = """
import ctypes
from dataplane.worker.privileges import give_up_privileges
give_up_privileges()
PR_GET_DUMPABLE = 3
print(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
"""


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.root
def test_running_worker_has_no_capability_in_any_set(worker: Worker) -> None:
    worker.settle()
    status = status_of(worker.process.pid)
    assert {name: int(status[name], 16) for name in CAPABILITY_SETS} == dict.fromkeys(CAPABILITY_SETS, 0)


def test_running_worker_cannot_gain_privileges(worker: Worker) -> None:
    worker.settle()
    assert status_of(worker.process.pid)["NoNewPrivs"] == "1"


def test_running_worker_is_one_thread_for_which_capset_speaks(worker: Worker) -> None:
    worker.settle()
    assert status_of(worker.process.pid)["Threads"] == "1"


@pytest.mark.root
def test_running_worker_holds_no_descriptor_that_it_was_not_meant_to_have(datapath_kind: DatapathKind) -> None:
    with Path("/dev/null").open() as stray:
        worker = Worker(datapath_kind, stray.fileno())
    try:
        worker.settle()
        kinds = sorted(str(path.readlink()).partition(":")[0] for path in worker.held())
        assert kinds == ["anon_inode", "socket"]  # epoll and the command channel
    finally:
        worker.stop()


@pytest.mark.root
def test_unprivileged_process_gives_up_what_it_has() -> None:
    subprocess.run([sys.executable, "-c", AS_NOBODY], check=True)


def test_process_leaves_no_core_and_cannot_be_attached_to() -> None:
    dumpable = subprocess.run([sys.executable, "-c", DUMPABLE], check=True, capture_output=True, text=True).stdout
    assert dumpable.strip() == "0"
