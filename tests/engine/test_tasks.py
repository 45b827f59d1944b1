"""Work that goes on without its caller."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from dataplane.engine.tasks import Tasks


async def test_shielded_work_gives_its_result() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await Tasks().shield(work()) == 7


async def test_shielded_work_raises_to_its_caller() -> None:
    async def work() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await Tasks().shield(work())


async def test_shielded_work_ends_although_its_caller_is_cancelled() -> None:
    tasks = Tasks()
    may_end, has_ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await may_end.wait()
        has_ended.set()

    caller = asyncio.create_task(tasks.shield(work()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_end.set()
    await tasks.join()
    assert has_ended.is_set()


async def test_join_waits_for_work_that_work_started() -> None:
    tasks = Tasks()
    done: list[str] = []

    async def inner() -> None:
        await asyncio.sleep(0)
        done.append("inner")

    async def outer() -> None:
        tasks.start(inner())
        done.append("outer")

    tasks.start(outer())
    await tasks.join()
    assert done == ["outer", "inner"]


async def test_a_failure_in_the_background_is_logged() -> None:
    async def work() -> None:
        raise KeyError("lost")

    tasks = Tasks()
    with capture_logs() as logs:
        tasks.start(work())
        await tasks.join()
    assert [entry["event"] for entry in logs] == ["engine_task_failed"]
