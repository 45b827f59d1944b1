"""An engine whose workers and system resources are ours.

The fake worker lives in the test's process but speaks the real messages over a real SEQPACKET pair, and
keeps books as a real one does, so that what it was told can be compared with what the engine believes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import chain
from select import select
from typing import Final

import msgspec
import pytest

from dataplane.engine.engine import Engine
from dataplane.engine.limits import Limits
from dataplane.engine.resources import BoundSocket, Tun
from dataplane.engine.types import (
    DeviceChange,
    DeviceSpec,
    DeviceView,
    Endpoint,
    EngineError,
    Event,
    IPNetwork,
    KeySpec,
    PeerSpec,
    SocketSpec,
)
from dataplane.engine.watch import Watch
from dataplane.engine.worker_process import WorkerProcess
from dataplane.messages import (
    MAX_MESSAGE,
    AddPeer,
    AddSocket,
    Command,
    Configure,
    InstallKey,
    PeerExpired,
    RemovePeer,
    RemoveSocket,
    Reply,
    Request,
    SetRoutes,
    Stop,
)
from dataplane.statistics_page import StatisticsPage
from dataplane.tun.routes import Hop, NextHop
from dataplane.vocabulary import Cipher, Column, KeySlot, Mode, RouteTarget
from tests.descriptors import open_fds

LIMITS: Final = Limits(max_devices=3, max_sockets_per_device=3, max_peers_per_device=5)

Reaction = Callable[[Command], str | None]
"""Answers a command: the error of the reply ("" for none), or None for no reply at all."""


class FakeWorker:
    """A worker. reactions: what it does with a command, by class of command, in place of its own doing."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        sock.setblocking(False)
        self.pid = pid
        self.commands: list[Command] = []
        self.reactions: dict[type[msgspec.Struct], Reaction] = {}
        self.peers: dict[int, AddPeer] = {}
        self.keys: dict[tuple[int, int], InstallKey] = {}
        self.routes: dict[str, int] = {}
        self.sockets: dict[int, int] = {}
        self.outlets: dict[int, list[int]] = {}
        self.returncode: int | None = None
        self._fds: list[int] = []
        self._page: StatisticsPage | None = None
        self._sock = sock
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def kill(self) -> None:
        self.end(-9)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, returncode: int) -> None:
        if self.returncode is not None:
            return
        self.returncode = returncode
        self.hang_up()
        for fd in (*self.sockets.values(), *chain(*self.outlets.values()), *self._fds):
            os.close(fd)
        if self._page is not None:
            self._page.close()
        self._ended.set()

    def hang_up(self) -> None:
        """Closes the link, but lives on."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def say(self, *messages: msgspec.Struct) -> None:
        for message in messages:
            self.say_bytes(msgspec.msgpack.encode(message))

    def say_bytes(self, datagram: bytes) -> None:
        self._sock.send(datagram)

    def count(self, peer_id: int, column: int, value: int) -> None:
        """Writes into the peer's row of the statistics page."""
        self.row(peer_id)[column] = value

    def row(self, peer_id: int) -> memoryview:
        assert self._page is not None
        return self._page.row(self.peers[peer_id].row)

    def device_row(self) -> memoryview:
        assert self._page is not None
        return self._page.row(0)

    def _readable(self) -> None:
        try:
            datagram, fds, _, _ = socket.recv_fds(self._sock, MAX_MESSAGE, 8)
        except BlockingIOError:
            return
        except OSError:
            datagram, fds = b"", []
        if not datagram:
            self.end(0)
            return
        request = msgspec.msgpack.decode(datagram, type=Request)
        self.commands.append(request.command)
        reaction = self.reactions.get(type(request.command))
        if reaction is not None:
            for fd in fds:
                os.close(fd)
        error = self._carry_out(request.command, fds) if reaction is None else reaction(request.command)
        if error is not None and self.returncode is None:
            self.say(Reply(request.request_id, error))
        if isinstance(request.command, Stop) and reaction is None:
            self.end(0)

    def _carry_out(self, command: Command, fds: list[int]) -> str:
        match command:
            case Configure(rows=rows):
                self._fds = fds
                self._page = StatisticsPage(fds[1], rows)
            case AddSocket(socket_id=socket_id):
                self.sockets[socket_id] = fds[0]
                self.outlets[socket_id] = fds[1:]
            case RemoveSocket(socket_id=socket_id):
                for fd in (self.sockets.pop(socket_id), *self.outlets.pop(socket_id)):
                    os.close(fd)
            case SetRoutes(routes=routes):
                for route in routes:
                    network = f"{ip_address(route.address)}/{route.length}"
                    self.routes.pop(network, None)
                    if route.target != RouteTarget.NOBODY:
                        assert route.target < 0 or route.target in self.peers
                        self.routes[network] = route.target
            case AddPeer(peer_id=peer_id):
                assert peer_id not in self.peers
                assert command.socket_id in self.sockets
                self.peers[peer_id] = command
            case RemovePeer(peer_id=peer_id):
                if self.peers.pop(peer_id, None) is None:
                    return "PEER_NOT_FOUND"
                self.routes = {network: target for network, target in self.routes.items() if target != peer_id}
            case InstallKey(peer_id=peer_id, slot=slot):
                self.keys[peer_id, slot] = command
            case _:
                pass
        return ""


class FakeLauncher:
    """Makes fake workers. failures: so many of the next launches fail; prepare: is shown each new worker."""

    def __init__(self) -> None:
        self.workers: list[FakeWorker] = []
        self.failures = 0
        self.prepare: Callable[[FakeWorker], None] = lambda _: None

    @property
    def worker(self) -> FakeWorker:
        """The newest."""
        return self.workers[-1]

    async def launch(self) -> tuple[WorkerProcess, socket.socket]:
        if self.failures:
            self.failures -= 1
            raise BlockingIOError("no more processes")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = FakeWorker(theirs, pid=1000 + len(self.workers))
        self.workers.append(worker)
        self.prepare(worker)
        return worker, ours


class FakeFeed:
    """The kernel's routes of a device, as a test tells them. error: what the next reading raises."""

    def __init__(self, hops: dict[IPNetwork, tuple[NextHop, ...]]) -> None:
        self._waiting = hops
        self._ours, self._theirs = socket.socketpair()
        self.error: OSError | None = None
        self.is_closed = False

    @property
    def fd(self) -> int:
        return self._ours.fileno()

    def tell(self, network: str, *hops: str | Hop) -> None:
        """The kernel has other next hops for a network."""
        self._waiting[ip_network(network)] = tuple(hop if isinstance(hop, Hop) else ip_address(hop) for hop in hops)
        self._theirs.send(b"!")

    def read(self) -> dict[IPNetwork, tuple[NextHop, ...]]:
        if self.error is not None:
            raise self.error
        if self._waiting and select([self._ours], [], [], 0)[0]:
            self._ours.recv(1000)
        changes, self._waiting = self._waiting, {}
        return changes

    def close(self) -> None:
        self.is_closed = True
        self._ours.close()
        self._theirs.close()


class FakeResources:
    """Descriptors of /dev/null as TUNs and sockets. refusal: what the next call raises.

    feeds: of the kernel's routes, the newest last; routes: what the next feed begins with. carriers: what each call of
    set_carrier asked for; carrier_refusal: what they raise.
    """

    def __init__(self) -> None:
        self.feeds: list[FakeFeed] = []
        self.routes: dict[IPNetwork, tuple[NextHop, ...]] = {}
        self.refusal: EngineError | None = None
        self.changes: list[DeviceChange] = []
        self.carriers: list[bool] = []
        self.carrier_refusal: EngineError | None = None
        self.bound = ("192.0.2.1", 1194, False)
        self.remote: Endpoint | None = None

    def make_tun(self, spec: DeviceSpec) -> Tun:
        self._refuse()
        return Tun(os.open("/dev/null", os.O_RDWR), spec.interface_name, spec.mtu)

    def adopt_tun(self, fd: int, mtu: int) -> Tun:
        self._refuse()
        return Tun(fd, "adopted0", mtu or 1300)

    def change_link(self, fd: int, change: DeviceChange) -> None:
        self._refuse()
        os.fstat(fd)
        self.changes.append(change)

    def set_carrier(self, fd: int, *, on: bool) -> None:
        os.fstat(fd)
        self.carriers.append(on)
        if self.carrier_refusal is not None:
            raise self.carrier_refusal

    def watch_routes(self, fd: int) -> FakeFeed:
        self._refuse()
        os.fstat(fd)
        self.feeds.append(FakeFeed(dict(self.routes)))
        return self.feeds[-1]

    def bind_udp(self, spec: SocketSpec) -> BoundSocket:
        self._refuse()
        fd = os.open("/dev/null", os.O_RDWR)
        return BoundSocket(fd, spec.address, spec.port or 40000, spec.ipv6_only, options=spec.options)

    def adopt_socket(self, fd: int) -> BoundSocket:
        self._refuse()
        address, port, ipv6_only = self.bound
        return BoundSocket(fd, ip_address(address), port, ipv6_only, self.remote)

    def _refuse(self) -> None:
        refusal, self.refusal = self.refusal, None
        if refusal is not None:
            raise refusal


@pytest.fixture(scope="module", autouse=True)
def _collected() -> None:
    """What earlier tests left to the collector must not go while these count descriptors."""
    gc.collect()


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def resources() -> FakeResources:
    return FakeResources()


@pytest.fixture
async def engine(launcher: FakeLauncher, resources: FakeResources) -> AsyncIterator[Engine]:
    """An engine that must leave no descriptor behind."""
    before = open_fds()
    engine = Engine(limits=LIMITS, worker_launcher=launcher, resources=resources)
    yield engine
    await engine.close()
    for worker in launcher.workers:
        worker.kill()  # what the engine must have done; else the descriptors show it
        assert worker.returncode is not None
    assert open_fds() <= before


async def next_event(watch: Watch) -> Event:
    async with asyncio.timeout(10):
        return await anext(watch)


async def next_events(watch: Watch, count: int) -> list[Event]:
    return [await next_event(watch) for _ in range(count)]


async def make_device(engine: Engine, name: str = "d", mode: Mode = Mode.MP) -> DeviceView:
    return await engine.create_device(device_spec(name, mode))


async def make_ready(engine: Engine, mode: Mode = Mode.MP) -> None:
    """A device "d" with a dual-stack socket "s"."""
    await make_device(engine, mode=mode)
    await engine.create_socket(socket_spec())


def device_spec(name: str = "d", mode: Mode = Mode.MP) -> DeviceSpec:
    return DeviceSpec(name=name, interface_name=f"tun-{name}", mode=mode, mtu=1428)


def socket_spec(name: str = "s", address: str = "::", *, ipv6_only: bool = False, device: str = "d") -> SocketSpec:
    return SocketSpec(device=device, name=name, address=ip_address(address), port=1194, ipv6_only=ipv6_only)


def peer_spec(
    peer_id: int,
    *,
    device: str = "d",
    sock: str = "s",
    remote: str = "198.51.100.7",
    local: str | None = None,
    vpn_ipv4: str | None = None,
    vpn_ipv6: str | None = None,
    routes: str = "",
) -> PeerSpec:
    """A peer; without addresses inside the tunnel it gets 10.8.x.y after its peer_id. routes: separated by blanks."""
    if vpn_ipv4 is None and vpn_ipv6 is None:
        vpn_ipv4 = str(IPv4Address("10.8.0.0") + peer_id)
    return PeerSpec(
        device=device,
        peer_id=peer_id,
        socket=sock,
        remote=Endpoint(ip_address(remote), 40000 + peer_id),
        local_address=None if local is None else ip_address(local),
        vpn_ipv4=None if vpn_ipv4 is None else IPv4Address(vpn_ipv4),
        vpn_ipv6=None if vpn_ipv6 is None else IPv6Address(vpn_ipv6),
        routes=tuple(map(ip_network, routes.split())),
    )


def key_spec(peer_id: int, slot: KeySlot = KeySlot.PRIMARY, key_id: int = 0, *, bits: int = 256) -> KeySpec:
    """A key that was never used."""
    return KeySpec(
        device="d",
        peer_id=peer_id,
        slot=slot,
        key_id=key_id,
        cipher=Cipher.AES_GCM,
        encrypt_key=secrets.token_bytes(bits // 8),
        encrypt_nonce_tail=secrets.token_bytes(8),
        decrypt_key=secrets.token_bytes(bits // 8),
        decrypt_nonce_tail=secrets.token_bytes(8),
        key_length=bits // 8,
    )


def fill_row(worker: FakeWorker, peer_id: int, start: int) -> None:
    """Counts start, start + 1, … in the traffic columns of a peer."""
    for offset, column in enumerate(range(Column.VPN_RX_BYTES, Column.LINK_TX_PACKETS + 1)):
        worker.count(peer_id, column, start + offset)


def expire_before_removal(launcher: FakeLauncher) -> None:
    """The next RemovePeer comes when the worker has just removed the peer itself."""
    worker = launcher.worker

    def expire(command: Command) -> str:
        assert isinstance(command, RemovePeer)
        del worker.reactions[RemovePeer]
        worker.say(PeerExpired(command.peer_id, worker.peers.pop(command.peer_id).uid))
        return "PEER_NOT_FOUND"

    worker.reactions[RemovePeer] = expire
