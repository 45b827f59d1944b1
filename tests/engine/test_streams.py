"""TCP sockets: one peer each, and an end of their own."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from dataplane.engine.engine import Engine
from dataplane.engine.resources import LinuxResources
from dataplane.engine.types import (
    Endpoint,
    EngineError,
    ErrorKind,
    PeerDeleted,
    PeerSpec,
    SocketClosed,
    SocketView,
    WorkerRestarted,
)
from dataplane.messages import AddPeer, AddSocket, RemoveSocket, TransportClosed
from dataplane.vocabulary import DelReason, Mode, SocketProtocol
from tests.descriptors import open_fds
from tests.engine.conftest import (
    FakeLauncher,
    FakeResources,
    fill_row,
    make_device,
    next_event,
    next_events,
    peer_spec,
    socket_spec,
)

REMOTE = Endpoint(ip_address("198.51.100.9"), 51194)


@pytest.fixture
async def ready(engine: Engine, resources: FakeResources) -> Engine:
    """With a device "d" and a TCP socket "s" in it."""
    resources.remote = REMOTE
    await make_device(engine)
    return engine


async def adopt(engine: Engine, name: str = "s") -> SocketView:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        return await engine.adopt_socket("d", name, os.open("/dev/null", os.O_RDWR), ours.detach())


def tcp_peer(peer_id: int, sock: str = "s") -> PeerSpec:
    return replace(peer_spec(peer_id, sock=sock), remote=None)


async def test_an_adopted_connection_is_shown_with_both_ends(ready: Engine) -> None:
    view = await adopt(ready)
    assert (view.protocol, view.remote, view.has_control_outlet) == (SocketProtocol.TCP, REMOTE, True)
    assert (view.address, view.port) == (ip_address("192.0.2.1"), 1194)


async def test_a_connection_copies_no_dscp(ready: Engine, launcher: FakeLauncher) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        null = os.open("/dev/null", os.O_RDWR)
        view = await ready.adopt_socket("d", "t", null, ours.detach(), copy_dscp=True)
    assert not view.options.copy_dscp
    assert launcher.worker.commands[-1] == AddSocket(1)


async def test_a_connection_needs_a_control_stream(ready: Engine) -> None:
    before = open_fds()
    packets, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        for outlet_fd in (None, packets.detach(), os.open("/dev/null", os.O_RDWR)):
            with pytest.raises(EngineError) as caught:
                await ready.adopt_socket("d", "s", os.open("/dev/null", os.O_RDWR), outlet_fd)
            assert (caught.value.kind, caught.value.reason) == (ErrorKind.FAILED_PRECONDITION, "NOT_A_CONTROL_OUTLET")
    assert open_fds() <= before


async def test_a_peer_is_where_its_connection_leads(ready: Engine, launcher: FakeLauncher) -> None:
    await adopt(ready)
    view = await ready.create_peer(tcp_peer(1))
    assert view.spec.remote == REMOTE
    added = launcher.worker.commands[-1]
    assert isinstance(added, AddPeer)
    assert (added.remote, added.local) == (None, None)


async def test_a_connection_carries_one_peer(ready: Engine) -> None:
    await adopt(ready)
    await ready.create_peer(tcp_peer(1))
    with pytest.raises(EngineError) as caught:
        await ready.create_peer(tcp_peer(2))
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.FAILED_PRECONDITION, "SOCKET_IN_USE")
    assert caught.value.metadata == {"device": "d", "socket": "s", "peer_id": "1"}
    await ready.delete_peer("d", 1)
    await ready.create_peer(tcp_peer(2))


async def test_a_p2p_device_replaces_the_peer_of_a_connection(engine: Engine, resources: FakeResources) -> None:
    resources.remote = REMOTE
    await make_device(engine, mode=Mode.P2P)
    await adopt(engine)
    for peer_id in (1, 2):
        await engine.create_peer(replace(tcp_peer(peer_id), vpn_ipv4=None))
    assert [peer.spec.peer_id for peer in engine.list_peers("d")] == [2]


@pytest.mark.parametrize("reason", [DelReason.TRANSPORT_DISCONNECT, DelReason.TRANSPORT_ERROR])
async def test_the_peer_goes_with_its_connection(ready: Engine, launcher: FakeLauncher, reason: DelReason) -> None:
    await adopt(ready)
    await adopt(ready, "other")
    await ready.create_peer(tcp_peer(1))
    await ready.create_peer(tcp_peer(2, "other"))
    fill_row(launcher.worker, 1, 100)
    async with ready.watch("d") as watch:
        launcher.worker.say(TransportClosed(1, reason), TransportClosed(1, reason), TransportClosed(77, reason))
        gone, closed = await next_events(watch, 2)
        await ready.delete_peer("d", 2)
        assert isinstance(await next_event(watch), PeerDeleted)  # so nothing was told twice
    assert isinstance(gone, PeerDeleted)
    assert (gone.peer_id, gone.reason) == (1, reason)
    assert gone.final_counters is not None
    assert gone.final_counters.vpn_rx_bytes == 100
    assert closed == SocketClosed(closed.revision, "d", "s", reason)


async def test_an_ended_connection_takes_no_peer_and_is_deleted_as_any_other(
    ready: Engine, launcher: FakeLauncher
) -> None:
    before = open_fds()
    await adopt(ready)
    async with ready.watch("d") as watch:
        launcher.worker.say(TransportClosed(1, DelReason.TRANSPORT_DISCONNECT))
        await next_event(watch)
    with pytest.raises(EngineError) as caught:
        await ready.create_peer(tcp_peer(1))
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.FAILED_PRECONDITION, "SOCKET_CLOSED")
    await ready.delete_socket("d", "s")
    assert launcher.worker.commands[-1] == RemoveSocket(1)
    assert open_fds() <= before


async def test_a_connection_ends_with_its_worker(
    ready: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    """Where in the stream the worker was, nobody knows."""
    await adopt(ready)
    await ready.create_peer(tcp_peer(1))
    resources.remote = None
    await ready.create_socket(socket_spec("udp"))
    async with ready.watch("d") as watch:
        launcher.worker.kill()
        gone, closed, restarted = await next_events(watch, 3)
    assert isinstance(gone, PeerDeleted)
    assert closed == SocketClosed(closed.revision, "d", "s", DelReason.TRANSPORT_ERROR)
    assert isinstance(restarted, WorkerRestarted)
    assert [command for command in launcher.worker.commands if isinstance(command, AddSocket)] == [AddSocket(2)]
    await ready.delete_socket("d", "s")
    assert not any(isinstance(command, RemoveSocket) for command in launcher.worker.commands)


async def test_a_reason_that_is_none_costs_the_worker(ready: Engine, launcher: FakeLauncher) -> None:
    await adopt(ready)
    async with ready.watch("d") as watch:
        launcher.worker.say(TransportClosed(1, 99))
        closed, restarted = await next_events(watch, 2)
    assert isinstance(closed, SocketClosed)
    assert isinstance(restarted, WorkerRestarted)


def test_real_connections_are_adopted_and_other_tcp_sockets_refused() -> None:
    resources = LinuxResources()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(EngineError) as caught:
            resources.adopt_socket(server.fileno())
        assert (caught.value.kind, caught.value.reason) == (ErrorKind.FAILED_PRECONDITION, "SOCKET_NOT_CONNECTED")
        with socket.create_connection(server.getsockname()) as far, server.accept()[0] as near:
            bound = resources.adopt_socket(near.fileno())
            assert (str(bound.address), bound.port) == server.getsockname()
            assert bound.remote == Endpoint(ip_address("127.0.0.1"), far.getsockname()[1])
