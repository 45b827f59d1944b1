"""Workers that die, fall silent or talk nonsense, and their replacement."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest

from dataplane.engine.engine import Engine
from dataplane.engine.supervisor import DEATHS_MAX
from dataplane.engine.types import (
    DeviceChange,
    DeviceDeleted,
    DeviceState,
    EngineError,
    ErrorKind,
    Event,
    PeerChange,
    PeerDeleted,
    WorkerRestarted,
)
from dataplane.engine.watch import Watch
from dataplane.messages import AddPeer, AddSocket, Command, Configure, DeviceClosed, RemoveSocket, Reply, Stop
from dataplane.vocabulary import DelReason, KeySlot
from tests.descriptors import open_fds
from tests.engine.conftest import (
    LIMITS,
    FakeLauncher,
    FakeResources,
    FakeWorker,
    fill_row,
    key_spec,
    make_device,
    make_ready,
    next_event,
    next_events,
    peer_spec,
    socket_spec,
)


async def restarted(watch: Watch) -> list[Event]:
    """Reads until the worker was replaced; gives what came before."""
    events: list[Event] = []
    while not isinstance(event := await next_event(watch), WorkerRestarted):
        events.append(event)
    return events


async def test_death_is_reported_peer_by_peer_then_the_new_worker(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    peers = [await engine.create_peer(peer_spec(peer_id)) for peer_id in (1, 2)]
    fill_row(launcher.worker, 2, 60)
    async with engine.watch() as watch:
        launcher.worker.kill()
        first, second, third = await next_events(watch, 3)
    assert isinstance(first, PeerDeleted)
    assert isinstance(second, PeerDeleted)
    assert (first.peer_id, first.reason, first.create_revision) == (
        1,
        DelReason.TRANSPORT_ERROR,
        peers[0].create_revision,
    )
    assert (second.peer_id, second.reason) == (2, DelReason.TRANSPORT_ERROR)
    assert second.final_counters is not None
    assert second.final_counters.vpn_rx_bytes == 60
    assert third == WorkerRestarted(engine.revision, "d", launcher.worker.pid)


async def test_the_new_worker_gets_device_and_sockets_but_no_peers(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.adopt_socket("d", "t", os.open("/dev/null", os.O_RDWR))
    await engine.create_peer(peer_spec(1))
    await engine.install_key(key_spec(1))
    async with engine.watch() as watch:
        launcher.worker.kill()
        await restarted(watch)
    old, new = launcher.workers
    assert old.commands[0] == Configure("d", 1, LIMITS.max_peers_per_device + 1)
    assert new.commands == [old.commands[0], AddSocket(1), AddSocket(2)]
    view = engine.get_device("d")
    assert (view.state, view.worker_pid, view.peer_count) == (DeviceState.READY, new.pid, 0)


async def test_a_restarted_device_works_as_before(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    fill_row(launcher.worker, 1, 99)
    async with engine.watch() as watch:
        launcher.worker.kill()
        await restarted(watch)
    view = await engine.create_peer(peer_spec(1))
    assert view.counters.vpn_rx_bytes == 0
    await engine.install_key(key_spec(1))
    await engine.delete_socket("d", "s")
    assert launcher.worker.sockets == {}


async def test_drops_of_the_device_survive_its_worker(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    launcher.worker.device_row()[16] = 4
    async with engine.watch() as watch:
        launcher.worker.kill()
        await restarted(watch)
    assert engine.get_device("d").drops == {"rx_truncated": 4}


async def test_a_worker_that_hangs_up_is_killed_and_replaced(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    async with engine.watch() as watch:
        launcher.worker.hang_up()
        await restarted(watch)
    assert launcher.workers[0].returncode == -9


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xc1",
        b"x" * 5000,
        msgspec.msgpack.encode({"type": "Reply", "request_id": "one"}),
        msgspec.msgpack.encode({"type": "Stop"}),
    ],
    ids=["no msgpack", "too long", "wrong type", "no message of a worker"],
)
async def test_a_worker_that_talks_nonsense_is_replaced(
    engine: Engine, launcher: FakeLauncher, nonsense: bytes
) -> None:
    await make_device(engine)
    async with engine.watch() as watch:
        launcher.worker.say_bytes(nonsense)
        await restarted(watch)
    assert launcher.workers[0].returncode == -9


async def test_an_answer_to_nothing_is_ignored(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    launcher.worker.say(Reply(999, "PEER_NOT_FOUND"))
    await engine.create_peer(peer_spec(1))


async def test_a_command_under_way_when_the_worker_dies_fails(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    worker = launcher.worker
    worker.reactions[AddPeer] = lambda _: worker.kill()
    async with engine.watch() as watch:
        with pytest.raises(EngineError) as caught:
            await engine.create_peer(peer_spec(1))
        assert await restarted(watch) == []
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.UNAVAILABLE, "WORKER_RESTARTING")
    assert caught.value.metadata == {"device": "d"}
    assert engine.list_peers("d") == []


async def test_a_socket_under_way_when_the_worker_dies_is_closed(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    before = open_fds()
    worker = launcher.worker
    worker.reactions[AddSocket] = lambda _: worker.kill()
    async with engine.watch() as watch:
        with pytest.raises(EngineError):
            await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR))
        await restarted(watch)
    assert engine.list_sockets("d") == []
    assert len(open_fds()) <= len(before)  # the new worker has others


async def test_a_deletion_of_a_socket_cut_short_can_be_repeated(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    worker = launcher.worker
    worker.reactions[RemoveSocket] = lambda _: worker.kill()
    async with engine.watch() as watch:
        with pytest.raises(EngineError):
            await engine.delete_socket("d", "s")
        await restarted(watch)
    await engine.delete_socket("d", "s")
    assert engine.list_sockets("d") == []


def set_patience(engine: Engine, seconds: float) -> None:
    """How long device "d" waits for its worker from now on; with 0 no answer comes in time."""
    engine._devices["d"]._supervisor._command_timeout_s = seconds


async def test_a_worker_that_does_not_answer_is_killed_and_replaced(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    launcher.worker.reactions[AddPeer] = lambda _: None
    launcher.prepare = lambda _: set_patience(engine, 60)
    set_patience(engine, 0)
    async with engine.watch() as watch:
        with pytest.raises(EngineError) as caught:
            await engine.create_peer(peer_spec(1))
        await restarted(watch)
    assert caught.value.reason == "WORKER_RESTARTING"
    assert launcher.workers[0].returncode == -9


async def test_a_worker_that_does_not_answer_at_first_fails_the_creation(
    launcher: FakeLauncher, resources: FakeResources
) -> None:
    engine = Engine(limits=LIMITS, worker_launcher=launcher, resources=resources, command_timeout_s=0)
    with pytest.raises(EngineError) as caught:
        await make_device(engine)
    assert caught.value.reason == "WORKER_FAILED"
    assert launcher.worker.returncode == -9


async def test_a_worker_that_says_it_stops_but_lives_on_is_killed(engine: Engine, launcher: FakeLauncher) -> None:
    def only_say_so(_: Command) -> str:
        set_patience(engine, 0)
        return ""

    await make_device(engine)
    launcher.worker.reactions[Stop] = only_say_so
    await engine.delete_device("d")
    assert launcher.worker.returncode == -9


@pytest.fixture
async def restarting_engine(engine: Engine, launcher: FakeLauncher) -> Engine:
    """An engine whose device "d" has lost its worker; the next one does not answer until `finish_restart`."""
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    is_asked = asyncio.Event()

    def hold(worker: FakeWorker) -> None:
        worker.reactions[Configure] = lambda _: is_asked.set()

    launcher.prepare = hold
    launcher.worker.kill()
    await is_asked.wait()
    return engine


def finish_restart(worker: FakeWorker) -> None:
    worker.say(Reply(1))


async def test_commands_during_a_restart_are_unavailable(restarting_engine: Engine, launcher: FakeLauncher) -> None:
    engine = restarting_engine
    view = engine.get_device("d")
    assert (view.state, view.peer_count) == (DeviceState.RESTARTING, 0)
    for call in (
        engine.create_socket(socket_spec("t")),
        engine.delete_socket("d", "s"),
        engine.create_peer(peer_spec(2)),
        engine.update_peer("d", 1, PeerChange()),
        engine.delete_peer("d", 1),
        engine.install_key(key_spec(1)),
        engine.swap_keys("d", 1),
        engine.delete_key("d", 1, KeySlot.PRIMARY),
        engine.adopt_socket("d", "u", os.open("/dev/null", os.O_RDWR)),
    ):
        with pytest.raises(EngineError) as caught:
            await call
        assert (caught.value.kind, caught.value.reason) == (ErrorKind.UNAVAILABLE, "WORKER_RESTARTING")
    assert [view.name for view in engine.list_sockets("d")] == ["s"]
    finish_restart(launcher.worker)


async def test_the_interface_can_be_changed_across_a_restart(restarting_engine: Engine, launcher: FakeLauncher) -> None:
    change = asyncio.create_task(restarting_engine.update_device("d", DeviceChange(mtu=1300)))
    finish_restart(launcher.worker)
    assert (await change).mtu == 1300


async def test_a_device_can_be_deleted_during_a_restart(restarting_engine: Engine, launcher: FakeLauncher) -> None:
    deletion = asyncio.create_task(restarting_engine.delete_device("d"))
    finish_restart(launcher.worker)
    await deletion
    assert restarting_engine.list_devices() == []


async def test_a_device_deleted_while_its_worker_dies_is_not_restarted(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    launcher.worker.kill()
    await engine.delete_device("d")
    assert len(launcher.workers) == 1


async def test_a_new_worker_that_dies_at_once_is_replaced_too(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    launcher.prepare = lambda worker: worker.end(1) if len(launcher.workers) < DEATHS_MAX else None
    async with engine.watch() as watch:
        launcher.worker.kill()
        await restarted(watch)
    assert len(launcher.workers) == DEATHS_MAX
    assert engine.get_device("d").state is DeviceState.READY


async def test_a_new_worker_that_dies_right_after_it_was_configured_is_replaced(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await make_device(engine)

    def answer_and_die(worker: FakeWorker) -> None:
        def react(_: object) -> None:
            worker.say(Reply(1))
            worker.end(1)

        if len(launcher.workers) == 2:
            worker.reactions[Configure] = react

    launcher.prepare = answer_and_die
    async with engine.watch() as watch:
        launcher.worker.kill()
        await restarted(watch)
    assert len(launcher.workers) == 3


async def test_a_worker_that_cannot_be_launched_counts_as_dead(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    launcher.failures = 2
    async with engine.watch() as watch:
        launcher.worker.kill()
        await restarted(watch)
    assert len(launcher.workers) == 2


async def fail(engine: Engine, launcher: FakeLauncher) -> None:
    """Kills workers of device "d" until it gets no more."""
    async with engine.watch() as watch:
        for _ in range(DEATHS_MAX - 1):
            launcher.worker.kill()
            await restarted(watch)
        await engine.create_peer(peer_spec(1))
        launcher.worker.kill()
        await next_events(watch, 2)  # the peer's creation and its end, which comes with the last death


async def test_after_five_deaths_the_device_has_failed(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await fail(engine, launcher)
    view = engine.get_device("d")
    assert (view.state, view.worker_pid, view.peer_count) == (DeviceState.FAILED, 0, 0)
    assert len(launcher.workers) == DEATHS_MAX
    with pytest.raises(EngineError) as caught:
        await engine.create_peer(peer_spec(1))
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.UNAVAILABLE, "WORKER_FAILED")


async def test_a_failed_device_and_its_sockets_can_be_deleted(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_socket(socket_spec("t"))
    await fail(engine, launcher)
    await engine.delete_socket("d", "s")
    assert [view.name for view in engine.list_sockets("d")] == ["t"]
    await engine.delete_device("d")
    assert engine.list_devices() == []


async def test_deaths_long_ago_do_not_count(
    engine: Engine, launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_device(engine)
    monkeypatch.setattr("dataplane.engine.supervisor.DEATHS_WINDOW_S", -1.0)
    async with engine.watch() as watch:
        for _ in range(2 * DEATHS_MAX):
            launcher.worker.kill()
            await restarted(watch)
    assert engine.get_device("d").state is DeviceState.READY


async def test_the_death_of_one_worker_touches_no_other_device(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    await make_device(engine, "e")
    async with engine.watch() as watch:
        launcher.worker.kill()
        assert await restarted(watch) == []
    assert engine.get_device("d").peer_count == 1


async def test_an_interface_that_is_gone_when_the_worker_dies_deletes_the_device(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await make_device(engine)
    async with engine.watch() as watch:
        launcher.worker.say(DeviceClosed(77))
        launcher.worker.kill()
        while not isinstance(await next_event(watch), DeviceDeleted):
            pass
    assert engine.list_devices() == []
