"""Work that goes on when the call that started it is cancelled.

Knows tasks only. A change that has begun must end: its caller (an RPC with a deadline) may go away
between the worker's doing and the engine's noting it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

Result = TypeVar("Result")


class Tasks:
    """Running tasks, kept until they end (asyncio itself holds them only weakly)."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` in the background; a failure, which would be a defect, is logged."""
        self._hold(work).add_done_callback(_log_failure)

    async def shield(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs `work` to its end and gives its result, if the caller is still there to take it."""
        return await asyncio.shield(self._hold(work))

    async def join(self) -> None:
        """Waits until nothing runs, except the task that asks."""
        this = asyncio.current_task()
        while others := self._running - {this}:
            await asyncio.wait(others)

    def _hold(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        structlog.get_logger().error("engine_task_failed", exc_info=failure)
