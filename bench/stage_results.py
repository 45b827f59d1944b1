"""The stage benchmarks of bench/stages, run as part of `make bench`.

Knows pytest-benchmark; must not know the stages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.results import Figures, Results

STAGES: Final = Path(__file__).parent / "stages"
STAGES_SECONDS: Final = 300


def run_stages(results: Results, out: Path) -> None:
    """Runs them, shows what they show, and keeps what they measured."""
    report = out / "stages.json"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", str(STAGES), f"--benchmark-json={report}"]
    done = subprocess.run(argv, check=False, timeout=STAGES_SECONDS)
    if done.returncode != 0 or not report.exists():
        results.remarks.append(f"the stage benchmarks failed (pytest: {done.returncode})")
    if report.exists():
        results.stages.update(read_stages(report))


def read_stages(report: Path) -> dict[str, Figures]:
    """By the name of the benchmark, from pytest-benchmark's JSON; `ratio` is what the benchmark gave as extra_info."""
    stages = {}
    for benchmark in json.loads(report.read_text())["benchmarks"]:
        extra = benchmark["extra_info"]
        ratio = {"ratio": float(extra["ratio"])} if "ratio" in extra else {}
        stages[benchmark["name"].removeprefix("test_")] = {"median_us": benchmark["stats"]["median"] * 1e6, **ratio}
    return stages
