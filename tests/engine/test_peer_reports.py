"""What a worker reports of peers: expiry and floats, in time, too late, and amid other changes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from dataplane import messages
from dataplane.engine.engine import Engine
from dataplane.engine.types import (
    Endpoint,
    PeerChange,
    PeerCounters,
    PeerCreated,
    PeerDeleted,
    PeerFloatAsked,
    PeerFloated,
    WorkerRestarted,
)
from dataplane.messages import AddPeer, Command, PeerExpired, UpdatePeer
from dataplane.vocabulary import DelReason, KeySlot, Mode
from tests.engine.conftest import (
    FakeLauncher,
    expire_before_removal,
    fill_row,
    make_ready,
    next_event,
    next_events,
    peer_spec,
    socket_spec,
)


async def test_a_p2p_peer_that_expires_while_it_is_replaced_is_no_obstacle(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await make_ready(engine, Mode.P2P)
    await engine.create_peer(peer_spec(1))
    expire_before_removal(launcher)
    async with engine.watch() as watch:
        await engine.create_peer(peer_spec(2))
        gone, created = await next_events(watch, 2)
    assert isinstance(gone, PeerDeleted)
    assert gone.reason is DelReason.EXPIRED
    assert isinstance(created, PeerCreated)


async def test_a_float_during_an_update_is_kept(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))

    def float_first(_: Command) -> str:
        launcher.worker.say(messages.PeerFloated(1, 1, messages.Endpoint(b"\xcb\x00\x71\x01", 9), 1))
        return ""

    launcher.worker.reactions[UpdatePeer] = float_first
    view = await engine.update_peer("d", 1, PeerChange(keepalive_interval_s=10))
    assert view.spec.remote == Endpoint(IPv4Address("203.0.113.1"), 9)
    assert view.spec.keepalive_interval_s == 10


async def test_deleting_a_peer_that_expires_just_then_is_no_error(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    fill_row(launcher.worker, 1, 30)
    expire_before_removal(launcher)
    async with engine.watch() as watch:
        counters = await engine.delete_peer("d", 1)
        event = await next_event(watch)
    assert counters.vpn_rx_bytes == 30
    assert isinstance(event, PeerDeleted)
    assert (event.reason, event.final_counters) == (DelReason.EXPIRED, counters)


async def test_an_expiry_told_after_the_removal_is_ignored(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    worker = launcher.worker
    uid = worker.peers.pop(1).uid  # so that the worker knows no such peer
    async with engine.watch() as watch:
        await engine.delete_peer("d", 1)
        worker.say(PeerExpired(1, uid))
        await engine.create_peer(peer_spec(1))
        gone, created = await next_events(watch, 2)
    assert isinstance(gone, PeerDeleted)
    assert gone.reason is DelReason.USERSPACE
    assert isinstance(created, PeerCreated)
    assert engine.get_peer("d", 1) == created.peer


async def test_an_expired_peer_is_reported_with_final_counters(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    view = await engine.create_peer(peer_spec(1))
    fill_row(launcher.worker, 1, 40)
    async with engine.watch() as watch:
        launcher.worker.say(PeerExpired(1, launcher.worker.peers[1].uid))
        event = await next_event(watch)
    counters = PeerCounters(40, 41, 42, 43, 44, 45, 46, 47)
    assert event == PeerDeleted(event.revision, "d", 1, DelReason.EXPIRED, counters, view.create_revision)
    assert engine.list_peers("d") == []


async def test_a_peer_that_expires_right_after_its_creation_is_reported_after_it(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await make_ready(engine)
    worker = launcher.worker

    def answer_and_expire(command: Command) -> None:
        assert isinstance(command, AddPeer)
        worker.say(messages.Reply(len(worker.commands)), PeerExpired(command.peer_id, command.uid))

    worker.reactions[AddPeer] = answer_and_expire
    async with engine.watch() as watch:
        await engine.create_peer(peer_spec(1))
        created, expired = await next_events(watch, 2)
    assert isinstance(created, PeerCreated)
    assert isinstance(expired, PeerDeleted)
    assert expired.create_revision == created.revision


async def test_events_of_an_earlier_peer_with_the_same_id_are_ignored(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    stale = launcher.worker.peers[1].uid
    await engine.delete_peer("d", 1)
    view = await engine.create_peer(peer_spec(1))
    revision = engine.revision
    launcher.worker.say(
        PeerExpired(1, stale),
        messages.PeerFloated(1, stale, messages.Endpoint(b"\x01\x02\x03\x04", 5), 1),
        messages.PeerFloatAsked(1, stale, messages.Endpoint(b"\x01\x02\x03\x04", 5), 1),
        messages.KeyExhausted(1, stale, 0),
    )
    await engine.delete_key("d", 1, KeySlot.PRIMARY)  # its answer comes after them
    assert (engine.get_peer("d", 1), engine.revision) == (view, revision)


async def test_a_floated_peer_is_shown_and_reported_at_its_new_address(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    remote = Endpoint(IPv6Address("fe80::9"), 1234, 2)
    async with engine.watch() as watch:
        launcher.worker.say(messages.PeerFloated(1, 1, messages.Endpoint(remote.address.packed, 1234, 2), 1))
        event = await next_event(watch)
    assert event == PeerFloated(engine.revision, "d", 1, remote)
    assert engine.get_peer("d", 1).spec.remote == remote


async def test_a_v4_mapped_address_is_shown_as_ipv4(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    mapped = IPv6Address("::ffff:203.0.113.5").packed
    async with engine.watch() as watch:
        launcher.worker.say(messages.PeerFloated(1, 1, messages.Endpoint(mapped, 1234), 1))
        await next_event(watch)
    assert engine.get_peer("d", 1).spec.remote == Endpoint(IPv4Address("203.0.113.5"), 1234)


async def test_a_float_to_another_family_forgets_the_local_address(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1, local="192.0.2.1"))
    async with engine.watch() as watch:
        launcher.worker.say(messages.PeerFloated(1, 1, messages.Endpoint(IPv6Address("2001:db8::9").packed, 1), 1))
        await next_event(watch)
    assert engine.get_peer("d", 1).spec.local_address is None


async def test_a_peer_that_asks_to_float_is_told_of_and_stays(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    second = await engine.create_socket(socket_spec("second"))
    before = await engine.create_peer(peer_spec(1))
    assert before.spec.remote is not None
    async with engine.watch() as watch:
        launcher.worker.say(messages.PeerFloatAsked(1, 1, messages.Endpoint(b"\xcb\x00\x71\x01", 9), 2))
        event = await next_event(watch)
    asked = Endpoint(IPv4Address("203.0.113.1"), 9)
    assert event == PeerFloatAsked(engine.revision, "d", 1, before.spec.remote, asked, second.name)
    assert engine.get_peer("d", 1).spec == before.spec


async def test_a_question_that_came_on_a_socket_that_is_gone_is_not_told(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    revision = engine.revision
    launcher.worker.say(messages.PeerFloatAsked(1, 1, messages.Endpoint(b"\xcb\x00\x71\x01", 9), 9))
    await engine.delete_key("d", 1, KeySlot.PRIMARY)  # its answer comes after that
    assert engine.revision == revision


async def test_a_worker_that_names_no_address_is_replaced(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    async with engine.watch() as watch:
        launcher.worker.say(messages.PeerFloated(1, 1, messages.Endpoint(b"12345", 1), 1))
        gone, restarted = await next_events(watch, 2)
    assert isinstance(gone, PeerDeleted)
    assert isinstance(restarted, WorkerRestarted)


async def test_a_peer_that_floats_to_another_socket_belongs_to_it(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    second = await engine.create_socket(socket_spec("second"))
    await engine.create_peer(peer_spec(1))
    async with engine.watch() as watch:
        launcher.worker.say(messages.PeerFloated(1, 1, messages.Endpoint(b"\xcb\x00\x71\x01", 9), 2))
        assert isinstance(await next_event(watch), PeerFloated)
        assert engine.get_peer("d", 1).spec.socket == second.name
        assert [view.peer_count for view in engine.list_sockets("d")] == [0, 1]
        await engine.delete_socket("d", second.name)
        event = await next_event(watch)
    assert isinstance(event, PeerDeleted)
    assert event.reason is DelReason.TRANSPORT_DISCONNECT
