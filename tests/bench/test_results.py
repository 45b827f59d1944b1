"""Medians, spread and ratios; what was not measured is not made up."""

from __future__ import annotations

import json
from pathlib import Path

from bench.results import Results, Summary


def some_results() -> Results:
    results = Results()
    for rate in (30.0, 10.0, 20.0):
        results.add("a", "load", {"rate": rate})
        results.add("b", "load", {"rate": rate / 10})
    results.add("b", "load", {"other": 1.0})
    return results


def test_a_summary_is_the_median_and_the_spread() -> None:
    assert some_results().summary("a", "load", "rate") == Summary(20, 10, 30)


def test_a_round_without_the_figure_does_not_count() -> None:
    assert some_results().summary("b", "load", "rate") == Summary(2, 1, 3)


def test_a_ratio_is_one_of_medians() -> None:
    assert some_results().ratio("a", "b", "load", "rate") == 10


def test_there_is_no_ratio_to_what_was_not_measured_or_is_nothing() -> None:
    results = some_results()
    results.add("zero", "load", {"rate": 0.0})
    assert results.ratio("a", "c", "load", "rate") is None
    assert results.ratio("c", "a", "load", "rate") is None
    assert results.ratio("a", "zero", "load", "rate") is None
    assert list(results.samples) == ["a", "b", "zero"]


def test_all_samples_are_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    some_results().write(path, {"kernel": "Linux"})
    written = json.loads(path.read_text())
    assert written["about"] == {"kernel": "Linux"}
    assert written["samples"]["a"]["load"] == [{"rate": 30}, {"rate": 10}, {"rate": 20}]
