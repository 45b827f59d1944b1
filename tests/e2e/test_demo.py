"""`make demo` shows what it promises, and an interrupt at any moment leaves nothing of it behind."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path

import pytest

from lab.leftovers import left_behind
from lab.processes import Process

pytestmark = [pytest.mark.root, pytest.mark.one_datapath]

LAB_NAME = re.compile(r"ovpn-[0-9a-f]{6}")


def start_demo(directory: Path) -> Process:
    return Process([sys.executable, "-m", "demo.run", "--seconds", "1"], directory / "demo.log")


def test_the_demo_shows_three_arrangements_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    assert demo.wait(60) == 0, demo.output()
    output = demo.output()
    assert output.count("DCO device tun0 opened") == 3
    assert len(re.findall(r"gRPC: device \S+, worker \d+, 1 peer", output)) == 3
    assert (
        len(re.findall(r"^\w+ server, \w+ client +[\d,]+ Mbit/s +[\d,]+ Mbit/s +[\d.]+ ms", output, re.MULTILINE)) == 3
    )
    name = LAB_NAME.search(output)
    assert name
    assert left_behind(name.group()) == []


@pytest.mark.parametrize(
    ("delay_seconds", "number"),
    [
        (0.0, signal.SIGINT),
        (0.4, signal.SIGTERM),
        (1.1, signal.SIGINT),
        (1.9, signal.SIGINT),
        (3.7, signal.SIGHUP),
        (6.1, signal.SIGINT),
    ],
)
def test_an_interrupt_at_any_moment_leaves_nothing_behind(
    tmp_path: Path, delay_seconds: float, number: signal.Signals
) -> None:
    """The delay only chooses the moment; whatever runs then, the outcome is the same."""
    demo = start_demo(tmp_path)
    name = demo.wait_for(LAB_NAME.pattern).group()
    time.sleep(delay_seconds)
    demo.signal(number)
    assert demo.wait(20) == 128 + number, demo.output()
    assert "Traceback" not in demo.output()
    assert left_behind(name) == []
