"""The engine as a whole: the life of devices, and the rules that hold for every call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from dataplane.engine import errors
from dataplane.engine.engine import Engine
from dataplane.engine.types import (
    DeviceChange,
    DeviceCreated,
    DeviceDeleted,
    DeviceState,
    EngineError,
    ErrorKind,
    PeerChange,
    PeerCreated,
    PeerDeleted,
)
from dataplane.messages import AddPeer, Command, Reply
from dataplane.vocabulary import DelReason, KeySlot, Mode
from tests.descriptors import open_fds
from tests.engine.conftest import (
    LIMITS,
    FakeLauncher,
    FakeResources,
    device_spec,
    key_spec,
    make_device,
    make_ready,
    next_event,
    next_events,
    peer_spec,
    socket_spec,
)


async def test_a_created_device_is_shown_as_it_is(engine: Engine, launcher: FakeLauncher) -> None:
    view = await engine.create_device(device_spec("blue", Mode.P2P))
    assert view == engine.get_device("blue") == engine.list_devices()[0]
    assert (view.name, view.interface_name, view.mode, view.mtu) == ("blue", "tun-blue", Mode.P2P, 1428)
    assert (view.state, view.worker_pid) == (DeviceState.READY, launcher.worker.pid)
    assert (view.peer_count, view.drops) == (0, {})


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


async def test_of_two_deletions_at_once_the_second_finds_nothing(engine: Engine) -> None:
    await make_device(engine)
    outcomes = await asyncio.gather(engine.delete_device("d"), engine.delete_device("d"), return_exceptions=True)
    assert outcomes[0] is None
    assert isinstance(outcomes[1], EngineError)
    assert outcomes[1].reason == "DEVICE_NOT_FOUND"


async def test_a_name_is_free_again_after_deletion(engine: Engine) -> None:
    await make_device(engine)
    await engine.delete_device("d")
    await make_device(engine)
    assert len(engine.list_devices()) == 1


async def test_every_call_names_a_missing_device(engine: Engine) -> None:
    calls: list[Callable[[], object]] = [
        lambda: engine.get_device("x"),
        lambda: engine.update_device("x", DeviceChange(mtu=1300)),
        lambda: engine.delete_device("x"),
        lambda: engine.create_socket(socket_spec(device="x")),
        lambda: engine.get_socket("x", "s"),
        lambda: engine.list_sockets("x"),
        lambda: engine.delete_socket("x", "s"),
        lambda: engine.create_peer(peer_spec(1, device="x")),
        lambda: engine.get_peer("x", 1),
        lambda: engine.list_peers("x"),
        lambda: engine.update_peer("x", 1, PeerChange()),
        lambda: engine.delete_peer("x", 1),
        lambda: engine.install_key(replace(key_spec(1), device="x")),
        lambda: engine.get_key("x", 1, KeySlot.PRIMARY),
        lambda: engine.swap_keys("x", 1),
        lambda: engine.delete_key("x", 1, KeySlot.PRIMARY),
    ]

    async def make(call: Callable[[], object]) -> None:
        answer = call()
        if isinstance(answer, Coroutine):
            await answer

    for call in calls:
        with pytest.raises(EngineError) as caught:
            await make(call)
        assert (caught.value.kind, caught.value.reason) == (ErrorKind.NOT_FOUND, "DEVICE_NOT_FOUND")
        assert caught.value.metadata == {"device": "x"}


async def test_a_socket_given_to_a_missing_device_is_closed(engine: Engine) -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(EngineError):
        await engine.adopt_socket("x", "s", fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_a_change_runs_to_its_end_when_its_caller_goes_away(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    asked = asyncio.Event()

    def ask(_: Command) -> None:
        asked.set()

    launcher.worker.reactions[AddPeer] = ask
    async with engine.watch() as watch:
        call = asyncio.create_task(engine.create_peer(peer_spec(1)))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        launcher.worker.say(Reply(request_id=len(launcher.worker.commands)))
        event = await next_event(watch)
    assert isinstance(event, PeerCreated)
    assert engine.get_peer("d", 1) == event.peer


async def test_revisions_count_the_events_without_a_gap(engine: Engine) -> None:
    async with engine.watch() as watch:
        await make_ready(engine)
        await asyncio.gather(*(engine.create_peer(peer_spec(peer_id)) for peer_id in range(4)))
        await engine.delete_peer("d", 2)
        await engine.delete_device("d")
        events = await next_events(watch, engine.revision)
    assert [event.revision for event in events] == list(range(1, 11))
    assert isinstance(events[0], DeviceCreated)
    created = [event for event in events if isinstance(event, PeerCreated)]
    assert [event.peer.create_revision for event in created] == [event.revision for event in created]


async def test_each_engine_has_an_id_of_its_own(engine: Engine) -> None:
    assert Engine().instance_id != engine.instance_id


async def test_close_deletes_devices_then_ends_watches(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    await make_device(engine, "e")
    async with engine.watch() as watch:
        await engine.close()
        events = [event async for event in watch]
    assert [type(event) for event in events].count(DeviceDeleted) == 2
    (gone,) = [event for event in events if isinstance(event, PeerDeleted)]
    assert gone.reason is DelReason.TEARDOWN
    assert [worker.returncode for worker in launcher.workers] == [0, 0]


async def test_close_deletes_a_device_that_is_being_made(engine: Engine, launcher: FakeLauncher) -> None:
    is_being_made = asyncio.Event()
    launcher.prepare = lambda _: is_being_made.set()
    making = asyncio.create_task(make_device(engine))
    await is_being_made.wait()
    await engine.close()
    await making
    assert engine.list_devices() == []
    assert launcher.worker.returncode == 0


async def test_nothing_is_created_after_close(engine: Engine) -> None:
    await engine.close()
    with pytest.raises(EngineError) as caught:
        await make_device(engine)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.UNAVAILABLE, "SHUTTING_DOWN")


async def test_many_changes_at_once_leave_engine_and_worker_agreed(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    rounds = [
        call
        for peer_id in range(5)
        for _ in range(10)
        for call in (engine.create_peer(peer_spec(peer_id)), engine.delete_peer("d", peer_id))
    ]
    outcomes = await asyncio.gather(*rounds, return_exceptions=True)
    refused = {outcome.reason for outcome in outcomes if isinstance(outcome, EngineError)}
    assert not [
        outcome for outcome in outcomes if isinstance(outcome, Exception) and not isinstance(outcome, EngineError)
    ]
    assert refused <= {"PEER_EXISTS", "PEER_NOT_FOUND"}
    assert [view.spec.peer_id for view in engine.list_peers("d")] == sorted(launcher.worker.peers)


async def test_a_device_deleted_amid_changes_leaves_nothing(engine: Engine) -> None:
    await make_ready(engine)
    outcomes = await asyncio.gather(
        *(engine.create_peer(peer_spec(peer_id)) for peer_id in range(3)),
        engine.delete_device("d"),
        *(engine.create_peer(peer_spec(peer_id)) for peer_id in range(3, 5)),
        return_exceptions=True,
    )
    assert [
        outcome for outcome in outcomes if isinstance(outcome, Exception) and not isinstance(outcome, EngineError)
    ] == []
    assert engine.list_devices() == []


async def test_a_hundred_lives_of_a_device_leave_no_descriptor(engine: Engine) -> None:
    before = open_fds()
    for _ in range(100):
        await make_ready(engine)
        await engine.create_peer(peer_spec(1))
        await engine.adopt_socket("d", "t", os.open("/dev/null", os.O_RDWR))
        await engine.delete_device("d")
    assert open_fds() <= before
