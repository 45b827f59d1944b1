"""A goal is met, not met or not measured; the tables say which, and show what is behind it."""

from __future__ import annotations

import pytest

from bench.contenders import OURS, STOCK
from bench.goals import GOALS, MIB, Part
from bench.loads import MEMORY, TCP_UP
from bench.report import page, tables
from bench.results import Results


def part(text: str, what: str) -> Part:
    (found,) = (part for goal in GOALS for part in goal.parts if goal.text.startswith(text) and part.what == what)
    return found


@pytest.mark.parametrize(("ours", "met"), [(8.0, True), (9.0, True), (7.999, False)])
def test_a_goal_that_asks_for_more_is_met_from_its_bound_on(ours: float, met: bool) -> None:
    results = Results()
    results.add(STOCK.name, TCP_UP, {"bits_per_second": 1.0})
    results.add(OURS.name, TCP_UP, {"bits_per_second": ours})
    assert part("ours ↔ ours under the shim, TCP", "OpenVPN").met(results) is met


@pytest.mark.parametrize(("mebibytes", "met"), [(40.0, True), (12.0, True), (40.1, False)])
def test_a_goal_that_asks_for_less_is_met_up_to_its_bound(mebibytes: float, met: bool) -> None:
    results = Results()
    results.add(OURS.name, MEMORY, {"server_bytes": mebibytes * MIB})
    assert part("worker resident memory", "1 peer").met(results) is met


def test_a_goal_without_figures_is_neither() -> None:
    assert {part.met(Results()) for goal in GOALS for part in goal.parts} == {None}


def test_the_terminal_shows_medians_and_ratios_and_the_page_the_spread_too() -> None:
    results = Results(remarks=["something is missing"])
    for rate in (1e9, 3e9, 2e9):
        results.add(STOCK.name, TCP_UP, {"bits_per_second": rate})
        results.add(OURS.name, TCP_UP, {"bits_per_second": rate * 4})
    terminal = "\n".join(table.as_text() for table in tables(results, spread=False))
    assert "8.00 4.00×" in terminal  # noqa: RUF001 - the multiplication sign
    written = page(results, {"kernel": "Linux 6"})
    assert "| ours | 8.00 (4.00 to 12.00) 4.00× |" in written  # noqa: RUF001 - the multiplication sign
    assert "| kernel | Linux 6 |" in written
    assert "* something is missing" in written
    assert written.count("NOT MET") == 1
