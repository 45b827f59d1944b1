"""What pytest-benchmark writes is read: medians of all, ratios where there are some."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.stage_results import read_stages


def test_medians_and_ratios_are_read(tmp_path: Path) -> None:
    report = tmp_path / "stages.json"
    benchmarks = [
        {"name": "test_seal[AES-256-GCM]", "stats": {"median": 25e-6}, "extra_info": {"ratio": 1.01}},
        {"name": "test_split[tcp]", "stats": {"median": 5e-6}, "extra_info": {}},
    ]
    report.write_text(json.dumps({"benchmarks": benchmarks}))
    stages = read_stages(report)
    assert stages["seal[AES-256-GCM]"] == {"median_us": pytest.approx(25), "ratio": 1.01}
    assert stages["split[tcp]"] == {"median_us": pytest.approx(5)}
