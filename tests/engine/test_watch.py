"""Watching the service: snapshot, changes, and readers that are too slow."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from dataplane.engine.engine import Engine
from dataplane.engine.types import DeviceCreated, DeviceDeleted, DeviceView, Event, PeerCreated, PeerView
from dataplane.engine.watch import BACKLOG_MAX, EventLog, Watch, WatchTooSlow
from tests.engine.conftest import (
    FakeLauncher,
    FakeResources,
    fill_row,
    make_device,
    make_ready,
    next_event,
    next_events,
    peer_spec,
)


async def test_a_watch_begins_with_what_there_is(engine: Engine) -> None:
    await make_ready(engine)
    await make_device(engine, "c")
    peers = [await engine.create_peer(peer_spec(peer_id)) for peer_id in (3, 4)]
    async with engine.watch() as watch:
        assert watch.snapshot_revision == engine.revision
        assert watch.devices == engine.list_devices()
        assert list(watch.peers) == peers


async def test_a_change_is_in_the_snapshot_or_follows_never_both(engine: Engine) -> None:
    await make_ready(engine)
    before = await engine.create_peer(peer_spec(1))
    async with engine.watch() as watch:
        after = await engine.create_peer(peer_spec(2))
        assert list(watch.peers) == [before]
        assert await next_event(watch) == PeerCreated(watch.snapshot_revision + 1, after)


async def test_a_watch_of_one_device_sees_no_other(engine: Engine) -> None:
    await make_device(engine, "a")
    async with engine.watch("d") as watch:
        assert (watch.devices, list(watch.peers)) == ([], [])
        await make_device(engine, "b")
        await make_device(engine, "d")
        await engine.delete_device("a")
        await engine.delete_device("d")
        created, deleted = await next_events(watch, 2)
    assert isinstance(created, DeviceCreated)
    assert created.device.name == "d"
    assert deleted == DeviceDeleted(engine.revision, "d")


async def test_a_peer_that_goes_during_the_snapshot_shows_its_own_counters(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    fill_row(launcher.worker, 1, 50)
    async with engine.watch() as watch:
        await engine.delete_peer("d", 1)
        await engine.create_peer(peer_spec(2))  # takes the row
        fill_row(launcher.worker, 2, 900)
        (shown,) = watch.peers
        assert (shown.spec.peer_id, shown.counters.vpn_rx_bytes) == (1, 50)


async def test_a_snapshot_outlives_its_device(engine: Engine) -> None:
    await make_ready(engine)
    view = await engine.create_peer(peer_spec(1))
    async with engine.watch() as watch:
        await engine.delete_device("d")
        assert list(watch.peers) == [view]


async def test_a_watch_begun_after_the_end_ends_after_its_snapshot(engine: Engine) -> None:
    await engine.close()
    async with engine.watch() as watch:
        assert [event async for event in watch] == []


class NoInventory:
    """Nothing to take a snapshot of."""

    def list_devices(self) -> list[DeviceView]:
        return []

    def peer_views(self, device: str) -> list[PeerView]:
        raise AssertionError(device)


def deleted(device: str, revision: int) -> Event:
    return DeviceDeleted(revision, device)


def publish(log: EventLog, count: int) -> None:
    for _ in range(count):
        log.publish("d", partial(deleted, "d"))


@pytest.fixture
def log() -> EventLog:
    return EventLog()


async def test_a_reader_may_be_ten_thousand_events_behind(log: EventLog) -> None:
    async with Watch("", log, NoInventory()) as watch:
        publish(log, BACKLOG_MAX)
        events = await next_events(watch, BACKLOG_MAX)
    assert [event.revision for event in events] == list(range(1, 10_001))


async def test_a_reader_further_behind_is_ended(log: EventLog) -> None:
    async with Watch("", log, NoInventory()) as watch:
        publish(log, BACKLOG_MAX + 1)
        with pytest.raises(WatchTooSlow):
            await next_event(watch)
        publish(log, 1)
        with pytest.raises(WatchTooSlow):
            await next_event(watch)


async def test_a_slow_reader_does_not_end_a_fast_one(log: EventLog) -> None:
    async with Watch("", log, NoInventory()) as slow, Watch("", log, NoInventory()) as fast:
        publish(log, BACKLOG_MAX)
        await next_events(fast, BACKLOG_MAX)
        publish(log, 1)
        assert (await next_event(fast)).revision == BACKLOG_MAX + 1
        with pytest.raises(WatchTooSlow):
            await next_event(slow)


async def test_events_of_other_devices_do_not_put_a_reader_behind(log: EventLog) -> None:
    async with Watch("e", log, NoInventory()) as watch:
        publish(log, BACKLOG_MAX + 1)
        log.publish("e", partial(deleted, "e"))
        assert await next_event(watch) == DeviceDeleted(BACKLOG_MAX + 2, "e")


async def test_a_waiting_reader_is_woken(log: EventLog) -> None:
    async with Watch("", log, NoInventory()) as watch:
        reader = asyncio.create_task(next_event(watch))
        await asyncio.sleep(0)
        publish(log, 1)
        assert (await reader).revision == 1


async def test_the_end_wakes_a_waiting_reader(log: EventLog) -> None:
    async with Watch("", log, NoInventory()) as watch:
        reader = asyncio.create_task(next_event(watch))
        await asyncio.sleep(0)
        log.close()
        with pytest.raises(StopAsyncIteration):
            await reader


async def test_a_left_watch_keeps_nothing(log: EventLog) -> None:
    async with Watch("", log, NoInventory()) as watch:
        publish(log, 3)
    publish(log, 3)
    assert watch.backlog == 0


async def test_pacing_waits_for_a_reader_that_is_reading(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataplane.engine.watch._PATIENCE_S", 60.0)
    async with Watch("", log, NoInventory()) as watch:
        publish(log, BACKLOG_MAX)

        async def read_all() -> None:
            for _ in range(BACKLOG_MAX):
                await anext(watch)
                await asyncio.sleep(0)

        reader = asyncio.create_task(read_all())
        await log.pace()
        assert watch.backlog <= BACKLOG_MAX // 2
        await reader


async def test_pacing_does_not_wait_for_ever(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataplane.engine.watch._PATIENCE_S", 0.0)
    async with Watch("", log, NoInventory()) as watch:
        publish(log, BACKLOG_MAX)
        await log.pace()
        assert watch.backlog == BACKLOG_MAX


async def test_a_reader_that_keeps_up_misses_nothing_of_a_mass_deletion(
    launcher: FakeLauncher, resources: FakeResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataplane.engine.watch.BACKLOG_MAX", 100)
    monkeypatch.setattr("dataplane.engine.watch._PATIENCE_S", 60.0)
    monkeypatch.setattr("dataplane.engine.peers._EVENTS_BETWEEN_PAUSES", 10)
    engine = Engine(worker_launcher=launcher, resources=resources)
    await make_ready(engine)
    for peer_id in range(300):
        await engine.create_peer(peer_spec(peer_id))

    async def read_all(watch: Watch) -> int:
        count = 0
        async for _ in watch:
            count += 1
            await asyncio.sleep(0)
        return count

    async with engine.watch() as watch:
        reader = asyncio.create_task(read_all(watch))
        await engine.close()
        assert await reader == 301
