"""The highest rate that is still carried, by halving.

Knows that a failure may be chance; must not know what is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import TypeVar

T = TypeVar("T")


def highest(attempt: Callable[[float], T | None], low: float, high: float, steps: int) -> T | None:
    """What `attempt` returned for the highest rate between low and high (both above 0) at which it did not fail (None).

    Each step halves the ratio of the bounds, so `steps` of them leave it at (high / low) ** (1 / 2 ** steps). A rate
    counts as too high when it has failed twice: a machine with something else to do for a moment fails once.
    """
    best = None
    for _ in range(steps):
        rate = sqrt(low * high)
        result = attempt(rate) or attempt(rate)
        if result is None:
            high = rate
        else:
            best, low = result, rate
    return best
