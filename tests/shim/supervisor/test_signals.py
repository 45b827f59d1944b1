from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.supervisor import signals

# raise_signal() is for the calling thread. A signal for the process may meet a thread of another test's gRPC, which
# does not block it and would end the process.


@pytest.fixture
def reader() -> Iterator[signals.SignalReader]:
    before = signals.block({signal.SIGUSR1, signal.SIGUSR2})
    made = signals.SignalReader({signal.SIGUSR1, signal.SIGUSR2})
    yield made
    made.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@given(st.sets(st.integers(1, 64)))
def test_mask_survives_a_command_line(mask: set[int]) -> None:
    assert signals.decode_mask(signals.encode_mask(mask)) == mask


def test_signal_of_a_process_is_read(reader: signals.SignalReader) -> None:
    signal.raise_signal(signal.SIGUSR1)
    assert reader.read() == [signals.Received(signal.SIGUSR1, from_kernel=False)]


def test_several_signals_are_read_at_once(reader: signals.SignalReader) -> None:
    signal.raise_signal(signal.SIGUSR2)
    signal.raise_signal(signal.SIGUSR1)
    assert {received.number for received in reader.read()} == {signal.SIGUSR1, signal.SIGUSR2}


def test_nothing_is_read_when_nothing_is_pending(reader: signals.SignalReader) -> None:
    assert reader.read() == []


@pytest.mark.usefixtures("reader")
def test_block_tells_the_mask_from_before() -> None:
    assert {signal.SIGUSR1, signal.SIGUSR2} <= signals.block({signal.SIGURG})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})


def test_exec_finds_what_python_changed_restored() -> None:
    """Whatever else is ignored was so before: make(1), for one, starts programs with signal 32 ignored."""
    code = """
import os, signal
from controlplane_shim.supervisor import signals
signals.restore_for_exec({signal.SIGUSR1})
os.execv("/bin/grep", ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = re.search(r"^SigIgn:\t(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert own is not None
    inherited = int(own[1], 16) & ~sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT))
    assert found == ["SigBlk:", "0000000000000200", "SigIgn:", f"{inherited:016x}"]


def test_signal_that_waited_ends_the_process_at_the_restoration() -> None:
    code = """
import os, signal
from controlplane_shim.supervisor import signals
signals.block({signal.SIGINT})
os.kill(os.getpid(), signal.SIGINT)
signals.restore_for_exec(set())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
