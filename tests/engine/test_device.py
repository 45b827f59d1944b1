"""One device: what it is made of, how it changes and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from dataplane.engine import errors
from dataplane.engine.engine import Engine
from dataplane.engine.types import (
    DeviceChange,
    DeviceDeleted,
    EngineError,
    ErrorKind,
    PeerDeleted,
    WorkerRestarted,
)
from dataplane.messages import Command, Configure, DeviceClosed, SetFloatPolicy, SetTcpMss, Stop
from dataplane.vocabulary import DelReason, FloatPolicy, Mode
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
    peer_spec,
)


async def test_the_worker_is_told_its_device_first(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    assert launcher.worker.commands == [Configure("d", Mode.MP, rows=LIMITS.max_peers_per_device + 1)]


async def test_drops_of_the_device_are_read_from_row_0(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    launcher.worker.device_row()[16 + 3] = 7
    assert engine.get_device("d").drops == {"rx_unknown_peer": 7}


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


async def test_final_counters_are_read_after_the_worker_ended(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    worker = launcher.worker

    def count_then_end() -> None:
        fill_row(worker, 1, 5000)
        worker.end(0)

    def stop_late(_: Command) -> str:
        asyncio.get_running_loop().call_soon(count_then_end)
        return ""

    worker.reactions[Stop] = stop_late
    async with engine.watch() as watch:
        await engine.delete_device("d")
        event = await next_event(watch)
    assert isinstance(event, PeerDeleted)
    assert event.final_counters is not None
    assert event.final_counters.vpn_rx_bytes == 5000


async def test_delete_stops_the_worker(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    await engine.delete_device("d")
    assert (launcher.worker.commands[-1], launcher.worker.returncode) == (Stop(), 0)


async def test_a_worker_that_refuses_to_stop_is_killed(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    launcher.worker.reactions[Stop] = lambda _: "BUSY"
    await engine.delete_device("d")
    assert launcher.worker.returncode == -9


async def test_an_interface_deleted_by_somebody_deletes_the_device(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    async with engine.watch() as watch:
        launcher.worker.say(DeviceClosed(errno=77))
        gone, deleted = await next_events(watch, 2)
    assert isinstance(gone, PeerDeleted)
    assert gone.reason is DelReason.TEARDOWN
    assert isinstance(deleted, DeviceDeleted)
    assert engine.list_devices() == []


async def test_update_changes_what_is_given(engine: Engine, resources: FakeResources) -> None:
    await make_device(engine)
    address = ip_interface("10.8.0.1/24")
    view = await engine.update_device("d", DeviceChange(mtu=1300, addresses=(address,)))
    assert (view.mtu, view.addresses, view.admin_up) == (1300, (address,), False)
    assert resources.changes == [DeviceChange(mtu=1300, addresses=(address,))]
    assert engine.get_device("d") == view


async def test_a_refused_update_changes_nothing(engine: Engine, resources: FakeResources) -> None:
    before = await make_device(engine)
    resources.refusal = errors.permission_denied("change it", OSError(1, "no"))
    with pytest.raises(EngineError) as caught:
        await engine.update_device("d", DeviceChange(mtu=1300))
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert engine.get_device("d") == before


async def test_addresses_are_given_again_when_the_interface_comes_up(engine: Engine, resources: FakeResources) -> None:
    address = ip_interface("fd00::1/64")
    await engine.create_device(replace(device_spec(), addresses=(address,)))
    await engine.update_device("d", DeviceChange(admin_up=True))
    assert resources.changes == [DeviceChange(admin_up=True, addresses=(address,))]


async def test_limits_of_segments_are_told_to_the_worker_and_to_the_next_one(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    await engine.create_device(replace(device_spec(), tcp_mss_ipv4=1300))
    assert launcher.worker.commands[-1] == SetTcpMss(1300, 0)
    view = await engine.update_device("d", DeviceChange(tcp_mss_ipv6=1280))
    assert (view.tcp_mss_ipv4, view.tcp_mss_ipv6) == (1300, 1280)
    assert launcher.worker.commands[-1] == SetTcpMss(1300, 1280)
    assert resources.changes == []
    async with engine.watch() as watch:
        launcher.worker.end(-9)
        assert isinstance(await next_event(watch), WorkerRestarted)
    assert launcher.worker.commands[-1] == SetTcpMss(1300, 1280)


async def test_policy_for_floats_is_told_to_the_worker_and_to_the_next_one(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await engine.create_device(replace(device_spec(), float_policy=FloatPolicy.DENY))
    assert launcher.worker.commands[-1] == SetFloatPolicy(FloatPolicy.DENY)
    view = await engine.update_device("d", DeviceChange(float_policy=FloatPolicy.ASK))
    assert view.float_policy is FloatPolicy.ASK
    assert launcher.worker.commands[-1] == SetFloatPolicy(FloatPolicy.ASK)
    async with engine.watch() as watch:
        launcher.worker.end(-9)
        assert isinstance(await next_event(watch), WorkerRestarted)
    assert launcher.worker.commands[-1] == SetFloatPolicy(FloatPolicy.ASK)


async def test_limits_of_segments_may_change_while_the_worker_dies(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    dying = launcher.worker

    def die(_: Command) -> None:
        dying.end(-9)

    dying.reactions[SetTcpMss] = die
    async with engine.watch() as watch:
        assert (await engine.update_device("d", DeviceChange(tcp_mss_ipv4=1300))).tcp_mss_ipv4 == 1300
        assert isinstance(await next_event(watch), WorkerRestarted)
    assert launcher.worker.commands[-1] == SetTcpMss(1300, 0)


async def test_a_worker_that_refuses_limits_of_segments_is_heard(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    launcher.worker.reactions[SetTcpMss] = lambda _: "INTERNAL"
    with pytest.raises(EngineError) as caught:
        await engine.update_device("d", DeviceChange(tcp_mss_ipv4=1300))
    assert caught.value.reason == "INTERNAL"
    assert engine.get_device("d").tcp_mss_ipv4 == 0
