"""The sockets of a device."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from dataplane.engine import errors
from dataplane.engine.engine import Engine
from dataplane.engine.types import EngineError, ErrorKind, PeerDeleted, WorkerRestarted
from dataplane.messages import AddSocket, RemovePeer, RemoveSocket
from dataplane.transport.socket_options import SocketOptions
from dataplane.vocabulary import DelReason
from tests.descriptors import open_fds
from tests.engine.conftest import (
    LIMITS,
    FakeLauncher,
    FakeResources,
    make_device,
    make_ready,
    next_event,
    next_events,
    peer_spec,
    socket_spec,
)


async def test_a_created_socket_is_shown_as_bound(engine: Engine) -> None:
    await make_device(engine)
    view = await engine.create_socket(replace(socket_spec(address="2001:db8::1", ipv6_only=True), port=0))
    assert view == engine.get_socket("d", "s")
    assert (view.device, view.name, view.address, view.port) == ("d", "s", ip_address("2001:db8::1"), 40000)
    assert (view.ipv6_only, view.adopted, view.peer_count) == (True, False, 0)


async def test_an_adopted_socket_is_shown_as_found(engine: Engine) -> None:
    await make_device(engine)
    view = await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR))
    assert (view.address, view.port, view.ipv6_only) == (ip_address("192.0.2.1"), 1194, False)
    assert view.adopted


@pytest.fixture
def outlet_fd() -> Iterator[int]:
    """One end of a pair, for the engine to own."""
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        yield ours.detach()


async def test_the_worker_gets_the_control_outlet_of_an_adopted_socket(
    engine: Engine, launcher: FakeLauncher, outlet_fd: int
) -> None:
    await make_device(engine)
    inode = os.fstat(outlet_fd).st_ino
    view = await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR), outlet_fd)
    assert view.has_control_outlet
    assert [os.fstat(fd).st_ino for fd in launcher.worker.outlets[1]] == [inode]


async def test_a_socket_without_control_outlet_goes_to_the_worker_alone(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    view = await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR))
    assert not view.has_control_outlet
    assert launcher.worker.outlets[1] == []


async def test_a_new_worker_gets_the_control_outlet_too(engine: Engine, launcher: FakeLauncher, outlet_fd: int) -> None:
    await make_device(engine)
    inode = os.fstat(outlet_fd).st_ino
    await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR), outlet_fd)
    async with engine.watch() as watch:
        launcher.worker.kill()
        await next_events(watch, 1)
    assert [os.fstat(fd).st_ino for fd in launcher.worker.outlets[1]] == [inode]


async def test_the_control_outlet_is_closed_with_its_socket(engine: Engine, outlet_fd: int) -> None:
    await make_device(engine)
    before = open_fds()
    await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR), outlet_fd)
    await engine.delete_socket("d", "s")
    assert open_fds() < before  # the fixture's end was counted before


async def test_what_is_no_control_outlet_is_refused_and_closed(engine: Engine) -> None:
    await make_device(engine)
    before = open_fds()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stream, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    lonely = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for fd in (udp.detach(), stream.detach(), lonely.detach(), os.open("/dev/null", os.O_RDWR)):
        with pytest.raises(EngineError) as caught:
            await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR), fd)
        assert (caught.value.kind, caught.value.reason) == (ErrorKind.FAILED_PRECONDITION, "NOT_A_CONTROL_OUTLET")
    other.close()
    assert (engine.list_sockets("d"), open_fds() - before) == ([], set())


async def test_a_control_outlet_is_closed_when_its_device_is_missing(engine: Engine, outlet_fd: int) -> None:
    with pytest.raises(EngineError):
        await engine.adopt_socket("x", "s", os.open("/dev/null", os.O_RDWR), outlet_fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(outlet_fd)


async def test_an_adopted_socket_copies_the_dscp_if_that_is_asked_for(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    view = await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR), copy_dscp=True)
    assert view.options == SocketOptions(copy_dscp=True)
    assert launcher.worker.commands[-1] == AddSocket(1, copy_dscp=True)
    view = await engine.adopt_socket("d", "t", os.open("/dev/null", os.O_RDWR))
    assert view.options == SocketOptions()


async def test_the_worker_and_the_next_one_are_told_to_copy_the_dscp(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    view = await engine.create_socket(replace(socket_spec(), options=SocketOptions(copy_dscp=True)))
    assert view.options == SocketOptions(copy_dscp=True)
    assert launcher.worker.commands[-1] == AddSocket(1, copy_dscp=True)
    async with engine.watch() as watch:
        launcher.worker.end(-9)
        assert isinstance(await next_event(watch), WorkerRestarted)
    assert launcher.worker.commands[-1] == AddSocket(1, copy_dscp=True)


async def test_the_worker_gets_each_socket_under_a_number_of_its_own(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.delete_socket("d", "s")
    await engine.create_socket(socket_spec())
    assert launcher.worker.commands[1:] == [AddSocket(1), RemoveSocket(1), AddSocket(2)]
    assert list(launcher.worker.sockets) == [2]


async def test_sockets_are_listed_by_name(engine: Engine) -> None:
    await make_device(engine)
    for name in ("c", "a", "b"):
        await engine.create_socket(socket_spec(name))
    assert [view.name for view in engine.list_sockets("d")] == ["a", "b", "c"]


async def test_a_socket_counts_its_peers(engine: Engine) -> None:
    await make_ready(engine)
    await engine.create_socket(socket_spec("t"))
    for peer_id, sock in ((1, "s"), (2, "s"), (3, "t")):
        await engine.create_peer(peer_spec(peer_id, sock=sock))
    await engine.delete_peer("d", 1)
    assert [view.peer_count for view in engine.list_sockets("d")] == [1, 1]


async def test_a_name_is_used_once(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    with pytest.raises(EngineError) as caught:
        await engine.create_socket(socket_spec())
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.ALREADY_EXISTS, "SOCKET_EXISTS")
    assert len(launcher.worker.sockets) == 1


async def test_no_more_sockets_than_the_limit(engine: Engine) -> None:
    await make_device(engine)
    for number in range(LIMITS.max_sockets_per_device):
        await engine.create_socket(socket_spec(str(number)))
    with pytest.raises(EngineError) as caught:
        await engine.create_socket(socket_spec())
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.RESOURCE_EXHAUSTED, "SOCKET_LIMIT")
    assert caught.value.metadata == {"device": "d", "limit": "3"}


async def test_a_missing_socket_is_named(engine: Engine) -> None:
    await make_device(engine)
    with pytest.raises(EngineError) as caught:
        engine.get_socket("d", "x")
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.NOT_FOUND, "SOCKET_NOT_FOUND")
    assert caught.value.metadata == {"device": "d", "socket": "x"}
    with pytest.raises(EngineError) as caught:
        await engine.delete_socket("d", "x")
    assert caught.value.reason == "SOCKET_NOT_FOUND"


async def test_a_failed_bind_leaves_nothing(engine: Engine, resources: FakeResources) -> None:
    await make_device(engine)
    resources.refusal = errors.bind_failed(ip_address("::"), 1194, OSError(98, "in use"))
    with pytest.raises(EngineError) as caught:
        await engine.create_socket(socket_spec())
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.FAILED_PRECONDITION, "BIND_FAILED")
    assert caught.value.metadata["errno"] == "EADDRINUSE"
    assert engine.list_sockets("d") == []


async def test_a_socket_that_the_worker_refuses_is_closed(engine: Engine, launcher: FakeLauncher) -> None:
    await make_device(engine)
    before = open_fds()
    launcher.worker.reactions[AddSocket] = lambda _: "SOCKET_EXISTS"
    with pytest.raises(EngineError) as caught:
        await engine.create_socket(socket_spec())
    assert caught.value.reason == "SOCKET_EXISTS"
    with pytest.raises(EngineError):
        await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR))
    assert (engine.list_sockets("d"), open_fds() - before) == ([], set())


async def test_a_given_socket_is_closed_when_it_is_not_adopted(engine: Engine, resources: FakeResources) -> None:
    await make_ready(engine)
    before = open_fds()
    resources.refusal = errors.socket_not_bound("no port")
    with pytest.raises(EngineError) as caught:
        await engine.adopt_socket("d", "t", os.open("/dev/null", os.O_RDWR))
    assert caught.value.reason == "SOCKET_NOT_BOUND"
    with pytest.raises(EngineError) as caught:
        await engine.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR))
    assert caught.value.reason == "SOCKET_EXISTS"
    assert open_fds() <= before


async def test_delete_removes_the_peers_of_the_socket_first(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_socket(socket_spec("t"))
    for peer_id, sock in ((1, "s"), (2, "t"), (3, "s")):
        await engine.create_peer(peer_spec(peer_id, sock=sock))
    async with engine.watch() as watch:
        await engine.delete_socket("d", "s")
        events = await next_events(watch, 2)
    assert launcher.worker.commands[-3:] == [RemovePeer(1), RemovePeer(3), RemoveSocket(1)]
    assert [(event.peer_id, event.reason) for event in events if isinstance(event, PeerDeleted)] == [
        (1, DelReason.TRANSPORT_DISCONNECT),
        (3, DelReason.TRANSPORT_DISCONNECT),
    ]
    assert [view.spec.peer_id for view in engine.list_peers("d")] == [2]


async def test_nobody_holds_a_deleted_socket(engine: Engine) -> None:
    await make_device(engine)
    before = open_fds()
    await engine.create_socket(socket_spec())
    assert len(open_fds() - before) == 2
    await engine.delete_socket("d", "s")
    assert open_fds() <= before


async def test_a_socket_that_the_worker_keeps_stays(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    launcher.worker.reactions[RemoveSocket] = lambda _: "INTERNAL"
    with pytest.raises(EngineError):
        await engine.delete_socket("d", "s")
    assert engine.get_socket("d", "s").name == "s"


async def test_of_two_deletions_at_once_the_second_finds_nothing(engine: Engine) -> None:
    await make_ready(engine)
    outcomes = await asyncio.gather(
        engine.delete_socket("d", "s"), engine.delete_socket("d", "s"), return_exceptions=True
    )
    assert outcomes[0] is None
    assert isinstance(outcomes[1], EngineError)
    assert outcomes[1].reason == "SOCKET_NOT_FOUND"
