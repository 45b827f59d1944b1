"""The engine as a whole: the life of devices, and the rules that hold for every call."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from dataplane.engine import errors
from dataplane.engine.engine import Engine
from dataplane.engine.types import (
    DeviceCreated,
    DeviceDeleted,
    DeviceState,
    EngineError,
    ErrorKind,
    PeerDeleted,
)
from dataplane.messages import AddPeer, Configure, DeviceClosed
from dataplane.vocabulary import DelReason, KeySlot, Mode
from tests.engine.conftest import (
    LIMITS,
    FakeLauncher,
    FakeResources,
    device_spec,
    fill_row,
    make_device,
    make_ready,
    next_event,
    next_events,
    open_fds,
    peer_spec,
    socket_spec,
)


async def test_a_created_device_is_shown_as_it_is(engine: Engine, launcher: FakeLauncher) -> None:
    view = await engine.create_device(device_spec("blue", Mode.P2P))
    assert view == engine.get_device("blue") == engine.list_devices()[0]
    assert (view.name, view.interface_name, view.mode, view.mtu) == ("blue", "tun-blue", Mode.P2P, 1428)
    assert (view.state, view.worker_pid) == (DeviceState.READY, launcher.worker.pid)
    assert (view.peer_count, view.drops) == (0, {})


async def test_the_worker_is_told_its_device_first(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    assert launcher.worker.commands == [Configure("d", Mode.MP, rows=LIMITS.max_peers_per_device + 1)]


async def test_drops_of_the_device_are_read_from_row_0(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    launcher.worker.device_row()[16 + 3] = 7
    assert engine.get_device("d").drops == {"rx_unknown_peer": 7}


async def test_devices_are_listed_by_name(engine: Engine) -> None:
    for name in ("c", "a", "b"):
        await make_device(engine, name)
    assert [view.name for view in engine.list_devices()] == ["a", "b", "c"]


async def test_a_name_is_used_once(engine: Engine) -> None:
    await make_device(engine)
    with pytest.raises(EngineError) as caught:
        await make_device(engine)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.ALREADY_EXISTS, "DEVICE_EXISTS")


async def test_of_two_creations_at_once_one_wins(engine: Engine) -> None:
    outcomes = await asyncio.gather(make_device(engine), make_device(engine), return_exceptions=True)
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, EngineError)]
    assert failure.reason == "DEVICE_EXISTS"
    assert len(engine.list_devices()) == 1


async def test_devices_being_made_count_towards_the_limit(engine: Engine) -> None:
    names = ("a", "b", "c", "d", "e")
    outcomes = await asyncio.gather(*(make_device(engine, name) for name in names), return_exceptions=True)
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, EngineError)]
    assert reasons == ["DEVICE_LIMIT", "DEVICE_LIMIT"]
    assert len(engine.list_devices()) == LIMITS.max_devices


async def test_a_refused_tun_leaves_nothing(engine: Engine, resources: FakeResources, launcher: FakeLauncher) -> None:
    resources.refusal = errors.interface_exists("tun-d")
    with pytest.raises(EngineError) as caught:
        await make_device(engine)
    assert caught.value.reason == "INTERFACE_EXISTS"
    assert (engine.list_devices(), launcher.workers) == ([], [])
    await make_device(engine)


async def test_a_worker_that_cannot_be_launched_fails_the_creation(engine: Engine, launcher: FakeLauncher) -> None:
    launcher.failures = 1
    with pytest.raises(EngineError) as caught:
        await make_device(engine)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.UNAVAILABLE, "WORKER_FAILED")
    assert (engine.list_devices(), engine.revision) == ([], 0)


async def test_a_worker_that_dies_at_once_fails_the_creation(engine: Engine, launcher: FakeLauncher) -> None:
    launcher.prepare = lambda worker: worker.end(1)
    with pytest.raises(EngineError) as caught:
        await make_device(engine)
    assert caught.value.reason == "WORKER_FAILED"
    assert (engine.list_devices(), len(launcher.workers)) == ([], 1)


async def test_an_adopted_tun_tells_name_and_mtu(engine: Engine) -> None:
    view = await engine.create_device(replace(device_spec(), mtu=0), tun_fd=os.open("/dev/null", os.O_RDWR))
    assert (view.interface_name, view.mtu) == ("adopted0", 1300)


async def test_a_given_tun_is_closed_when_the_creation_fails(engine: Engine, resources: FakeResources) -> None:
    await make_device(engine)
    refused, doubled = os.open("/dev/null", os.O_RDWR), os.open("/dev/null", os.O_RDWR)
    resources.refusal = errors.not_a_tun("a file")
    with pytest.raises(EngineError) as caught:
        await engine.create_device(device_spec("other"), tun_fd=refused)
    assert caught.value.reason == "NOT_A_TUN"
    with pytest.raises(EngineError):
        await engine.create_device(device_spec(), tun_fd=doubled)
    for fd in (refused, doubled):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


async def test_delete_reports_the_peers_then_the_device(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    peers = [await engine.create_peer(peer_spec(peer_id)) for peer_id in (2, 1)]
    async with engine.watch() as watch:
        fill_row(launcher.worker, 1, 100)
        await engine.delete_device("d")
        first, second, third = await next_events(watch, 3)
    assert isinstance(first, PeerDeleted)
    assert (first.peer_id, first.reason, first.create_revision) == (1, DelReason.TEARDOWN, peers[1].create_revision)
    assert first.final_counters is not None
    assert first.final_counters.vpn_rx_bytes == 100
    assert isinstance(second, PeerDeleted)
    assert second.peer_id == 2
    assert third == DeviceDeleted(second.revision + 1, "d")
    assert engine.list_devices() == []


async def test_final_counters_are_read_after_the_worker_stopped(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    worker = launcher.worker

    def count_then_end() -> None:
        fill_row(worker, 1, 5000)
        worker.end(0)

    def stop_late(_: object) -> str:
        asyncio.get_running_loop().call_soon(count_then_end)
        return ""

    worker.reactions[type(worker.commands[0]).__mro__[0]] = lambda _: ""
    from dataplane.messages import Stop

    worker.reactions[Stop] = stop_late
    async with engine.watch() as watch:
        await engine.delete_device("d")
        event = await next_event(watch)
    assert isinstance(event, PeerDeleted)
    assert event.final_counters is not None
    assert event.final_counters.vpn_rx_bytes == 5000
