"""`make bench` in its shortest form measures and shows what it promises; an interrupt leaves nothing of it behind."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import pytest

from bench.contenders import OURS, OURS_PYTHON
from bench.loads import LOADS
from lab.leftovers import left_behind
from lab.processes import Process

pytestmark = [pytest.mark.root, pytest.mark.one_datapath]

LAB_NAME = re.compile(r"ovpn-[0-9a-f]{6}")


@pytest.fixture
def contender(datapath: str) -> str:
    return {"compiled": OURS, "python": OURS_PYTHON}[datapath].name


def start_bench(directory: Path, contender: str) -> Process:
    argv = [sys.executable, "-m", "bench.run", "--only", contender, "--out", str(directory / "out")]
    return Process(argv, directory / "bench.log", {"BENCH_QUICK": "1"})


def test_a_quick_run_of_one_contender_gives_table_page_figures_and_plot(tmp_path: Path, contender: str) -> None:
    bench = start_bench(tmp_path, contender)
    assert bench.wait(60) == 0, bench.output()
    out = tmp_path / "out"
    assert re.search(rf"^{contender} +[\d.]+ +[\d.]+ +[\d.]+$", bench.output(), re.MULTILINE)
    assert f"| {contender} | " in (out / "results.md").read_text()
    samples = json.loads((out / "results.json").read_text())["samples"][contender]
    assert {load.name for load in LOADS} <= samples.keys()
    assert samples["TCP up"][0]["bits_per_second"] > 0
    assert (out / "bench.svg").read_text().endswith("</svg>\n")
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    name = LAB_NAME.search(bench.output())
    assert name
    assert left_behind(name.group()) == []


@pytest.mark.parametrize("moment", [r"ovpn-[0-9a-f]{6}", r"^round0", r"ping: ", r"TCP up: ", r"TCP up, 4 streams: "])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, contender: str, moment: str) -> None:
    bench = start_bench(tmp_path, contender)
    bench.wait_for(moment, timeout_seconds=30)
    bench.signal(signal.SIGINT)
    assert bench.wait(20) == 130, bench.output()
    assert "Traceback" not in bench.output()
    name = LAB_NAME.search(bench.output())
    assert name
    assert left_behind(name.group()) == []
