"""The engine with real workers, TUNs and sockets, in a network namespace of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from dataplane.engine.engine import Engine
from dataplane.engine.types import (
    DeviceDeleted,
    DeviceState,
    EngineError,
    Event,
    PeerDeleted,
    SocketView,
    WorkerRestarted,
)
from dataplane.engine.watch import Watch
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.vocabulary import DelReason, KeySlot, Mode
from tests.descriptors import open_fds
from tests.engine.conftest import device_spec, key_spec, peer_spec, socket_spec
from tests.tun.conftest import LinkNotices

pytestmark = pytest.mark.root


@pytest.fixture
def namespace() -> Iterator[str]:
    """Path of a new network namespace whose loopback is up."""
    name = f"engine-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield f"/run/netns/{name}"
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
async def engine(namespace: str) -> AsyncIterator[Engine]:
    """An engine with a device "d" and a socket "s" on 127.0.0.1."""
    before = open_fds()
    engine = Engine()
    await engine.create_device(replace(device_spec(), network_namespace=namespace, admin_up=True))
    await create_socket(engine, namespace)
    yield engine
    await engine.close()
    assert open_fds() <= before


async def create_socket(engine: Engine, namespace: str, port: int = 0) -> SocketView:
    spec = replace(socket_spec(address="127.0.0.1"), port=port, network_namespace=namespace)
    return await engine.create_socket(spec)


def has_interface(namespace: str) -> bool:
    shown = subprocess.run(
        ["ip", "-n", Path(namespace).name, "link", "show", "tun-d"], capture_output=True, check=False
    )
    return shown.returncode == 0


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def read_until(watch: Watch, kind: type[Event]) -> list[Event]:
    """Events up to and with the first of this kind."""
    events: list[Event] = []
    async with asyncio.timeout(60):
        while not events or not isinstance(events[-1], kind):
            events.append(await anext(watch))
    return events


async def test_a_device_lives_and_ends_with_its_interface_and_worker(engine: Engine, namespace: str) -> None:
    view = engine.get_device("d")
    assert view.state is DeviceState.READY
    assert has_interface(namespace)
    assert is_running(view.worker_pid)
    await engine.delete_device("d")
    assert not has_interface(namespace)
    assert not is_running(view.worker_pid)


async def test_peers_and_keys_reach_the_worker(engine: Engine) -> None:
    spec = peer_spec(1, remote="127.0.0.1")
    assert (await engine.create_peer(spec)).spec == spec
    await engine.install_key(key_spec(1, KeySlot.SECONDARY, key_id=3))
    await engine.swap_keys("d", 1)
    assert engine.get_key("d", 1, KeySlot.PRIMARY).key_id == 3
    await engine.delete_key("d", 1, KeySlot.PRIMARY)
    await engine.delete_peer("d", 1)
    assert engine.get_device("d").peer_count == 0


async def test_a_killed_worker_costs_its_peers_and_is_replaced(engine: Engine, namespace: str) -> None:
    await engine.create_peer(peer_spec(1, remote="127.0.0.1"))
    await engine.install_key(key_spec(1))
    killed = engine.get_device("d").worker_pid
    async with engine.watch() as watch:
        os.kill(killed, signal.SIGKILL)
        gone, restarted = await read_until(watch, WorkerRestarted)
    assert isinstance(gone, PeerDeleted)
    assert (gone.peer_id, gone.reason) == (1, DelReason.TRANSPORT_ERROR)
    assert gone.final_counters is not None
    assert isinstance(restarted, WorkerRestarted)
    assert restarted.worker_pid == engine.get_device("d").worker_pid != killed
    assert has_interface(namespace)
    with pytest.raises(EngineError, match="no peer 1"):
        engine.get_peer("d", 1)
    await engine.create_peer(peer_spec(1, remote="127.0.0.1"))
    await engine.install_key(key_spec(1))


async def test_a_restarted_worker_serves_the_sockets(engine: Engine, namespace: str) -> None:
    async with engine.watch() as watch:
        os.kill(engine.get_device("d").worker_pid, signal.SIGKILL)
        await read_until(watch, WorkerRestarted)
        await assert_served(engine, namespace, watch)


async def test_counters_and_expiry_come_from_the_worker(engine: Engine, namespace: str) -> None:
    async with engine.watch() as watch:
        await assert_served(engine, namespace, watch)


async def assert_served(engine: Engine, namespace: str, watch: Watch) -> None:
    """A packet to a peer without keys is counted; then the peer expires."""
    await engine.create_peer(replace(peer_spec(5, remote="127.0.0.1"), keepalive_timeout_s=1))
    packet = bytes.fromhex("48000005") + bytes(60)  # DATA_V2, key-id 0, peer-id 5

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(packet, ("127.0.0.1", engine.get_socket("d", "s").port))

    await asyncio.to_thread(in_network_namespace, namespace, send)
    *_, gone = await read_until(watch, PeerDeleted)
    assert isinstance(gone, PeerDeleted)
    assert gone.reason is DelReason.EXPIRED
    assert gone.final_counters is not None
    assert (gone.final_counters.link_rx_packets, gone.final_counters.link_rx_bytes) == (1, len(packet))
    assert gone.final_counters.drops == {"rx_unknown_key_id": 1}


async def test_a_deleted_socket_leaves_its_port_free_at_once(engine: Engine, namespace: str) -> None:
    port = engine.get_socket("d", "s").port
    for _ in range(20):
        await engine.delete_socket("d", "s")
        assert (await create_socket(engine, namespace, port)).port == port


async def test_a_port_is_taken_while_its_socket_lives(engine: Engine, namespace: str) -> None:
    spec = replace(socket_spec("t", "127.0.0.1"), port=engine.get_socket("d", "s").port, network_namespace=namespace)
    with pytest.raises(EngineError) as caught:
        await engine.create_socket(spec)
    assert (caught.value.reason, caught.value.metadata["errno"]) == ("BIND_FAILED", "EADDRINUSE")


async def test_an_adopted_socket_is_served(engine: Engine, namespace: str) -> None:
    def bind() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            return os.dup(udp.fileno())

    view = await engine.adopt_socket("d", "adopted", await asyncio.to_thread(in_network_namespace, namespace, bind))
    assert (view.address, view.adopted) == (ip_address("127.0.0.1"), True)
    await engine.create_peer(peer_spec(1, sock="adopted", remote="127.0.0.1"))
    assert engine.get_socket("d", "adopted").peer_count == 1


async def test_the_carrier_of_a_p2p_device_follows_its_peer_and_is_told(engine: Engine, namespace: str) -> None:
    with closing(LinkNotices(namespace, "tun-p2p")) as notices:

        async def told(*, on: bool) -> None:
            await asyncio.to_thread(notices.wait_for_carrier, on=on)

        spec = replace(device_spec("p2p", Mode.P2P), network_namespace=namespace, admin_up=True)
        await engine.create_device(spec)
        await told(on=False)
        udp = replace(socket_spec(address="127.0.0.1", device="p2p"), port=0, network_namespace=namespace)
        await engine.create_socket(udp)
        peer = peer_spec(1, device="p2p", remote="127.0.0.1")
        await engine.create_peer(peer)
        await told(on=True)
        await engine.delete_peer("p2p", 1)
        await told(on=False)
        await engine.create_peer(peer)
        await told(on=True)
        await kill_worker(engine, "p2p")
        await told(on=False)


async def kill_worker(engine: Engine, device: str) -> None:
    """Returns when there is another."""
    async with engine.watch(device) as watch:
        os.kill(engine.get_device(device).worker_pid, signal.SIGKILL)
        await read_until(watch, WorkerRestarted)


async def test_deleting_the_interface_deletes_the_device(engine: Engine, namespace: str) -> None:
    await engine.create_peer(peer_spec(1, remote="127.0.0.1"))
    pid = engine.get_device("d").worker_pid
    async with engine.watch() as watch:
        command = ["ip", "-n", Path(namespace).name, "link", "del", "tun-d"]
        await asyncio.to_thread(subprocess.run, command, check=True)
        gone, deleted = await read_until(watch, DeviceDeleted)
    assert isinstance(gone, PeerDeleted)
    assert gone.reason is DelReason.TEARDOWN
    assert deleted == DeviceDeleted(engine.revision, "d")
    assert engine.list_devices() == []
    assert not is_running(pid)
