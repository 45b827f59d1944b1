"""Waiting for a condition with a deadline. Knows the clock; must not know what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

POLL_SECONDS: Final = 0.02


def wait_until(condition: Callable[[], T], what: str, *, timeout_seconds: float = 15) -> T:
    """Calls `condition` until its result is true and returns that. Raises TimeoutError that names `what`."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise TimeoutError(f"after {timeout_seconds} s still not: {what}")
        time.sleep(POLL_SECONDS)
