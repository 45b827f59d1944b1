"""The peers of a device: creation, change and deletion."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from dataplane import messages
from dataplane.engine.engine import Engine
from dataplane.engine.types import (
    Endpoint,
    EngineError,
    ErrorKind,
    PeerChange,
    PeerCounters,
    PeerCreated,
    PeerDeleted,
)
from dataplane.messages import AddPeer, RemovePeer, UpdatePeer
from dataplane.vocabulary import Column, DelReason, Mode
from tests.engine.conftest import (
    LIMITS,
    FakeLauncher,
    fill_row,
    make_device,
    make_ready,
    next_event,
    next_events,
    peer_spec,
    socket_spec,
)


def assert_error(caught: pytest.ExceptionInfo[EngineError], kind: ErrorKind, reason: str) -> None:
    assert (caught.value.kind, caught.value.reason) == (kind, reason)


async def test_a_created_peer_is_shown_and_reported(engine: Engine) -> None:
    await make_ready(engine)
    started_ns = time.time_ns()
    async with engine.watch() as watch:
        view = await engine.create_peer(peer_spec(7))
        event = await next_event(watch)
    assert event == PeerCreated(view.create_revision, view)
    assert view == engine.get_peer("d", 7)
    assert (view.spec, view.counters) == (peer_spec(7), PeerCounters())
    assert started_ns <= view.create_time_ns <= time.time_ns()
    assert (view.last_receive_time_ns, view.last_send_time_ns) == (0, 0)


async def test_the_worker_is_told_everything_of_a_peer(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    spec = replace(
        peer_spec(7, remote="fe80::7", local="fe80::1", vpn_ipv4="10.8.0.7", vpn_ipv6="fd00::7"),
        keepalive_interval_s=10,
        keepalive_timeout_s=60,
    )
    assert spec.remote is not None
    await engine.create_peer(replace(spec, remote=replace(spec.remote, scope_id=3)))
    assert launcher.worker.commands[-1] == AddPeer(
        peer_id=7,
        uid=1,
        row=1,
        socket_id=1,
        remote=messages.Endpoint(IPv6Address("fe80::7").packed, 40007, 3),
        local=IPv6Address("fe80::1").packed,
        vpn_ipv4=b"\x0a\x08\x00\x07",
        vpn_ipv6=IPv6Address("fd00::7").packed,
        keepalive_interval_s=10,
        keepalive_timeout_s=60,
    )


async def test_counters_and_times_come_from_the_page(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    fill_row(launcher.worker, 1, 10)
    launcher.worker.count(1, Column.DROPS + 5, 3)
    launcher.worker.count(1, Column.LAST_RX_NS, time.monotonic_ns())
    view = engine.get_peer("d", 1)
    assert view.counters == PeerCounters(10, 11, 12, 13, 14, 15, 16, 17, drops={"rx_decrypt_failed": 3})
    assert abs(view.last_receive_time_ns - time.time_ns()) < 60 * 10**9
    assert view.last_send_time_ns == 0


async def test_an_mp_device_has_a_peer_id_once(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    with pytest.raises(EngineError) as caught:
        await engine.create_peer(peer_spec(1, vpn_ipv4="10.9.0.1"))
    assert_error(caught, ErrorKind.ALREADY_EXISTS, "PEER_EXISTS")
    assert caught.value.metadata == {"device": "d", "peer_id": "1"}
    assert len(launcher.worker.peers) == 1


async def test_no_more_peers_than_the_limit(engine: Engine) -> None:
    await make_ready(engine)
    for peer_id in range(LIMITS.max_peers_per_device):
        await engine.create_peer(peer_spec(peer_id))
    with pytest.raises(EngineError) as caught:
        await engine.create_peer(peer_spec(99))
    assert_error(caught, ErrorKind.RESOURCE_EXHAUSTED, "PEER_LIMIT")
    await engine.delete_peer("d", 2)
    await engine.create_peer(peer_spec(99))


async def test_a_peer_needs_its_socket(engine: Engine) -> None:
    await make_device(engine)
    with pytest.raises(EngineError) as caught:
        await engine.create_peer(peer_spec(1))
    assert_error(caught, ErrorKind.NOT_FOUND, "SOCKET_NOT_FOUND")


@pytest.mark.parametrize(
    "addresses",
    [{"vpn_ipv4": "10.8.0.1"}, {"vpn_ipv6": "fd00::1"}, {"vpn_ipv4": "10.8.0.2", "vpn_ipv6": "fd00::1"}],
)
async def test_an_address_in_the_tunnel_has_one_owner(engine: Engine, addresses: dict[str, str]) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1, vpn_ipv4="10.8.0.1", vpn_ipv6="fd00::1"))
    with pytest.raises(EngineError) as caught:
        await engine.create_peer(peer_spec(2, **addresses))
    assert_error(caught, ErrorKind.ALREADY_EXISTS, "VPN_ADDRESS_IN_USE")
    assert caught.value.metadata["peer_id"] == "1"


async def test_an_address_in_the_tunnel_is_free_after_its_owner_went(engine: Engine) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1, vpn_ipv4="10.8.0.1"))
    await engine.update_peer("d", 1, PeerChange(vpn_ipv4=IPv4Address("10.8.0.9")))
    await engine.create_peer(peer_spec(2, vpn_ipv4="10.8.0.1"))
    await engine.delete_peer("d", 1)
    await engine.create_peer(peer_spec(3, vpn_ipv4="10.8.0.9"))


@pytest.mark.parametrize(
    ("bound", "ipv6_only", "remote", "local", "is_possible"),
    [
        ("0.0.0.0", False, "198.51.100.1", None, True),
        ("0.0.0.0", False, "198.51.100.1", "192.0.2.1", True),
        ("0.0.0.0", False, "198.51.100.1", "2001:db8::1", False),
        ("0.0.0.0", False, "2001:db8::7", None, False),
        ("::", False, "198.51.100.1", None, True),
        ("::", False, "198.51.100.1", "192.0.2.1", True),
        ("::", False, "198.51.100.1", "2001:db8::1", False),
        ("::", False, "2001:db8::7", "2001:db8::1", True),
        ("::", False, "2001:db8::7", "192.0.2.1", False),
        ("::", True, "2001:db8::7", None, True),
        ("::", True, "198.51.100.1", None, False),
        ("2001:db8::1", False, "198.51.100.1", None, False),
    ],
)
async def test_address_families_must_fit(
    engine: Engine, bound: str, ipv6_only: bool, remote: str, local: str | None, is_possible: bool
) -> None:
    await make_device(engine)
    await engine.create_socket(socket_spec(address=bound, ipv6_only=ipv6_only))
    spec = peer_spec(1, remote=remote, local=local)
    if is_possible:
        await engine.create_peer(spec)
        return
    with pytest.raises(EngineError) as caught:
        await engine.create_peer(spec)
    assert_error(caught, ErrorKind.FAILED_PRECONDITION, "ADDRESS_FAMILY_MISMATCH")
    assert engine.list_peers("d") == []


async def test_a_peer_that_the_worker_refuses_is_not_there(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    revision = engine.revision
    launcher.worker.reactions[AddPeer] = lambda _: "ADDRESS_FAMILY_MISMATCH"
    with pytest.raises(EngineError) as caught:
        await engine.create_peer(peer_spec(1))
    assert_error(caught, ErrorKind.FAILED_PRECONDITION, "ADDRESS_FAMILY_MISMATCH")
    assert (engine.list_peers("d"), engine.revision) == ([], revision)
    launcher.worker.reactions.clear()
    await engine.create_peer(peer_spec(1))


async def test_an_unknown_refusal_of_the_worker_is_internal(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    launcher.worker.reactions[AddPeer] = lambda _: "STRANGE"
    with pytest.raises(EngineError) as caught:
        await engine.create_peer(peer_spec(1))
    assert_error(caught, ErrorKind.INTERNAL, "INTERNAL")


async def test_on_a_p2p_device_a_new_peer_replaces_the_old(engine: Engine) -> None:
    await make_ready(engine, Mode.P2P)
    old = await engine.create_peer(peer_spec(1))
    async with engine.watch() as watch:
        new = await engine.create_peer(peer_spec(2))
        first, second = await next_events(watch, 2)
    assert isinstance(first, PeerDeleted)
    assert (first.peer_id, first.reason, first.create_revision) == (1, DelReason.TEARDOWN, old.create_revision)
    assert second == PeerCreated(first.revision + 1, new)
    assert engine.list_peers("d") == [new]


async def test_on_a_p2p_device_the_new_peer_may_be_as_the_old(engine: Engine) -> None:
    await make_ready(engine, Mode.P2P)
    old = await engine.create_peer(peer_spec(1))
    new = await engine.create_peer(peer_spec(1))
    assert engine.list_peers("d") == [new]
    assert new.create_revision > old.create_revision


async def test_a_refused_p2p_peer_leaves_the_old_one(engine: Engine) -> None:
    await make_device(engine, mode=Mode.P2P)
    await engine.create_socket(socket_spec(address="0.0.0.0"))
    old = await engine.create_peer(peer_spec(1))
    with pytest.raises(EngineError):
        await engine.create_peer(peer_spec(2, remote="2001:db8::1"))
    assert engine.list_peers("d") == [old]


async def test_peers_are_listed_by_peer_id_in_pages(engine: Engine) -> None:
    await make_ready(engine)
    for peer_id in (9, 0, 5, 3):
        await engine.create_peer(peer_spec(peer_id))

    def ids(after: int = -1, limit: int | None = None) -> list[int]:
        return [view.spec.peer_id for view in engine.list_peers("d", after=after, limit=limit)]

    assert ids() == [0, 3, 5, 9]
    assert ids(limit=2) == [0, 3]
    assert ids(after=3, limit=2) == [5, 9]
    assert ids(after=4) == [5, 9]
    assert ids(after=9) == []


async def test_update_changes_what_is_set(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    before = await engine.create_peer(peer_spec(1, local="192.0.2.1"))
    remote = Endpoint(IPv4Address("203.0.113.9"), 5000)
    change = PeerChange(remote=remote, local_address=None, keepalive_timeout_s=30, tcp_mss_ipv4=0)
    view = await engine.update_peer("d", 1, change)
    assert view.spec == replace(before.spec, remote=remote, local_address=None, keepalive_timeout_s=30, tcp_mss_ipv4=0)
    assert view.create_revision == before.create_revision
    assert launcher.worker.commands[-1] == UpdatePeer(
        peer_id=1,
        remote=messages.Endpoint(remote.address.packed, 5000),
        local=None,
        keepalive_timeout_s=30,
        tcp_mss_ipv4=0,
    )


async def test_update_moves_a_peer_to_another_socket(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    second = await engine.create_socket(socket_spec("second"))
    before = await engine.create_peer(peer_spec(1, local="192.0.2.1"))
    remote = Endpoint(IPv4Address("203.0.113.9"), 5000)
    view = await engine.update_peer("d", 1, PeerChange(remote=remote, socket=second.name))
    assert view.spec == replace(before.spec, remote=remote, socket=second.name)
    assert [socket.peer_count for socket in engine.list_sockets("d")] == [0, 1]
    assert launcher.worker.commands[-1] == UpdatePeer(
        peer_id=1,
        remote=messages.Endpoint(remote.address.packed, 5000),
        local=IPv4Address("192.0.2.1").packed,
        socket_id=2,
    )


async def test_update_to_a_socket_that_cannot_reach_the_peer_is_refused(engine: Engine) -> None:
    await make_ready(engine)
    await engine.create_socket(socket_spec("second", address="192.0.2.1"))
    before = await engine.create_peer(peer_spec(1))
    there = Endpoint(IPv6Address("2001:db8::1"), 1)
    for socket, reason in (("second", "ADDRESS_FAMILY_MISMATCH"), ("third", "SOCKET_NOT_FOUND")):
        with pytest.raises(EngineError) as caught:
            await engine.update_peer("d", 1, PeerChange(remote=there, socket=socket))
        assert caught.value.reason == reason
    assert engine.get_peer("d", 1) == before


async def test_update_may_keep_the_address_in_the_tunnel(engine: Engine) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1, vpn_ipv4="10.8.0.1"))
    await engine.update_peer("d", 1, PeerChange(vpn_ipv4=IPv4Address("10.8.0.1"), vpn_ipv6=IPv6Address("fd00::1")))
    assert engine.get_peer("d", 1).spec.vpn_ipv6 == IPv6Address("fd00::1")


async def test_update_to_the_address_of_another_is_refused(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1, vpn_ipv4="10.8.0.1"))
    before = await engine.create_peer(peer_spec(2, vpn_ipv4="10.8.0.2"))
    with pytest.raises(EngineError) as caught:
        await engine.update_peer("d", 2, PeerChange(vpn_ipv4=IPv4Address("10.8.0.1")))
    assert_error(caught, ErrorKind.ALREADY_EXISTS, "VPN_ADDRESS_IN_USE")
    assert engine.get_peer("d", 2) == before
    assert isinstance(launcher.worker.commands[-1], AddPeer)


async def test_update_to_another_family_is_refused(engine: Engine) -> None:
    await make_ready(engine)
    before = await engine.create_peer(peer_spec(1, local="192.0.2.1"))
    with pytest.raises(EngineError) as caught:
        await engine.update_peer("d", 1, PeerChange(remote=Endpoint(IPv6Address("2001:db8::1"), 1)))
    assert_error(caught, ErrorKind.FAILED_PRECONDITION, "ADDRESS_FAMILY_MISMATCH")
    assert engine.get_peer("d", 1) == before


async def test_an_update_that_the_worker_refuses_changes_nothing(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    before = await engine.create_peer(peer_spec(1, vpn_ipv4="10.8.0.1"))
    launcher.worker.reactions[UpdatePeer] = lambda _: "INTERNAL"
    with pytest.raises(EngineError):
        await engine.update_peer("d", 1, PeerChange(vpn_ipv4=IPv4Address("10.8.0.2")))
    assert engine.get_peer("d", 1) == before
    await engine.create_peer(peer_spec(2, vpn_ipv4="10.8.0.2"))


async def test_delete_gives_the_final_counters(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    view = await engine.create_peer(peer_spec(1))
    fill_row(launcher.worker, 1, 20)
    async with engine.watch() as watch:
        counters = await engine.delete_peer("d", 1)
        event = await next_event(watch)
    assert counters == PeerCounters(20, 21, 22, 23, 24, 25, 26, 27)
    assert event == PeerDeleted(event.revision, "d", 1, DelReason.USERSPACE, counters, view.create_revision)
    assert engine.list_peers("d") == []


async def test_a_missing_peer_is_named(engine: Engine) -> None:
    await make_ready(engine)
    with pytest.raises(EngineError) as caught:
        engine.get_peer("d", 4)
    assert_error(caught, ErrorKind.NOT_FOUND, "PEER_NOT_FOUND")
    assert caught.value.metadata == {"device": "d", "peer_id": "4"}
    for call in (engine.delete_peer("d", 4), engine.update_peer("d", 4, PeerChange())):
        with pytest.raises(EngineError) as caught:
            await call
        assert caught.value.reason == "PEER_NOT_FOUND"


async def test_a_peer_that_the_worker_keeps_stays(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    view = await engine.create_peer(peer_spec(1))
    launcher.worker.reactions[RemovePeer] = lambda _: "INTERNAL"
    with pytest.raises(EngineError):
        await engine.delete_peer("d", 1)
    assert engine.get_peer("d", 1) == view


async def test_a_reused_row_never_shows_old_counters(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    for _ in range(3 * LIMITS.max_peers_per_device):
        async with engine.watch() as watch:
            view = await engine.create_peer(peer_spec(1))
            event = await next_event(watch)
        assert view.counters == PeerCounters()
        assert isinstance(event, PeerCreated)
        assert event.peer.counters == PeerCounters()
        for column in range(64):
            launcher.worker.count(1, column, 2**64 - 1)
        await engine.delete_peer("d", 1)
