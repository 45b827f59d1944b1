"""The highest rate is found, and one unlucky attempt does not change it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bench.search import highest

LOW, HIGH, STEPS = 10.0, 1000.0, 12
RESOLUTION = (HIGH / LOW) ** (1 / 2**STEPS)


@given(st.floats(LOW * RESOLUTION**2, HIGH))
def test_the_highest_rate_that_does_not_fail_is_found(limit: float) -> None:
    found = highest(lambda rate: rate if rate <= limit else None, LOW, HIGH, STEPS)
    assert found is not None
    assert found <= limit <= found * RESOLUTION * 1.0001


def test_a_rate_that_fails_once_counts_all_the_same() -> None:
    tried: Counter[float] = Counter()

    def attempt(rate: float) -> float | None:
        tried[rate] += 1
        return rate if rate <= 300 and tried[rate] == 2 else None

    found = highest(attempt, LOW, HIGH, STEPS)
    assert found is not None
    assert 300 / RESOLUTION / 1.0001 <= found <= 300


def test_nothing_is_found_where_every_rate_fails() -> None:
    assert highest(lambda _rate: None, LOW, HIGH, STEPS) is None
