"""SIGINT, SIGTERM and SIGHUP in a program that must tidy up. Knows signals; must not know what is tidied."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def raise_on_ending_signals() -> None:
    """Makes every ending signal unwind the stack: SIGINT as KeyboardInterrupt, others as SystemExit(128 + number).

    Main thread only. SIGINT is set too, for a shell starts programs in the background with it ignored.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds the ending signals back until the block is done; then the first of them is delivered.

    Python runs handlers in the main thread only, so elsewhere there is nothing to hold back. A handler is used rather
    than a blocked mask because programs started in the block would inherit the mask.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: held.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
