"""A real worker process, the daemon's side of it, and peers at the other end of its sockets.

Every test that has a worker runs on both datapaths.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Final

import msgspec
import pytest

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.key_direction import KeyDirection
from dataplane.messages import (
    MAX_MESSAGE,
    AddPeer,
    AddSocket,
    Command,
    Configure,
    Endpoint,
    FromWorker,
    InstallKey,
    Reply,
    Request,
    SwapKeys,
)
from dataplane.statistics_page import StatisticsPage, drops_of
from dataplane.transport.udp_socket import UDP_SEGMENT, bind_udp
from dataplane.tun.link import set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.vocabulary import Cipher, DatapathKind, DropReason, KeySlot, Mode
from tests.tun.conftest import fresh_namespace, ipv4_udp, tun_in, udp_in

ROWS: Final = 8
_DECODER: Final = msgspec.msgpack.Decoder(FromWorker)
HOST: Final = "10.8.0.1"
"""Address of the device."""


class DaemonSide:
    """The daemon's end of a command channel."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        channel.settimeout(30)
        self._events: list[FromWorker] = []
        self._last_request_id = 0

    def ask(self, command: Command, *descriptors: int) -> Reply:
        """Sends a command and waits for its reply; events that come before it are kept."""
        self._last_request_id += 1
        self.send(msgspec.msgpack.encode(Request(self._last_request_id, command)), *descriptors)
        reply = self.reply()
        assert reply.request_id == self._last_request_id
        return reply

    def do(self, command: Command, *descriptors: int) -> None:
        """A command that must succeed."""
        assert self.ask(command, *descriptors).error == ""

    def settle(self) -> None:
        """Returns when everything that reached the worker before was dealt with, for commands come last in a round."""
        assert self.ask(SwapKeys(0xABCDEF)).error != ""

    def event(self) -> FromWorker:
        """The next event."""
        return self._events.pop(0) if self._events else self._receive()

    def reply(self) -> Reply:
        """The next reply."""
        while not isinstance(message := self._receive(), Reply):
            self._events.append(message)
        return message

    def send(self, message: bytes, *descriptors: int) -> None:
        """Sends what may be no request."""
        socket.send_fds(self.channel, [message], descriptors)

    def _receive(self) -> FromWorker:
        message: FromWorker = _DECODER.decode(self.channel.recv(MAX_MESSAGE))
        return message


class Worker(DaemonSide):
    """A worker process that is not configured, and the daemon's side of it."""

    def __init__(self, datapath: DatapathKind, *more_descriptors: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dataplane.worker", "--fd", str(theirs.fileno()), "--datapath", datapath],
                pass_fds=(theirs.fileno(), *more_descriptors),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )

    def held(self) -> list[Path]:
        """Its descriptors, as links in /proc, but for 0, 1 and 2."""
        return [path for path in Path(f"/proc/{self.process.pid}/fd").iterdir() if int(path.name) > 2]

    def ended(self) -> tuple[int, str]:
        """Waits for the end of the process: its return code and what it said."""
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said

    def stop(self) -> None:
        """Ends it, if it has not ended."""
        self.channel.close()
        self.process.kill()
        self.process.communicate()


class FarPeer:
    """The other end of a peer: a UDP socket and the mirrored key."""

    def __init__(self, device: Device, peer_id: int, vpn_ipv4: str, address: str) -> None:
        self.peer_id = peer_id
        self.vpn_ipv4 = vpn_ipv4
        self._device = device
        self._address = address
        self.port = device.port
        """Of the device's socket that it talks to."""
        self.udp = udp_in(device.namespace, address)
        self._key = far_key(peer_id)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(ip_address(self._address).packed, self.udp.getsockname()[1])

    def move(self) -> None:
        """Goes on from another port."""
        self.udp.close()
        self.udp = udp_in(self._device.namespace, self._address)

    def say(self, payload: bytes, source: str | None = None) -> bytes:
        """Sends a UDP datagram through the tunnel to the device's application; the OpenVPN packet that carried it."""
        return self.send(self._device.packet_from(self, payload, source))

    def send(self, payload: bytes) -> bytes:
        """Sends something sealed."""
        sealed = self.seal(payload)
        self.send_raw(sealed)
        return sealed

    def seal(self, payload: bytes) -> bytes:
        """The next OpenVPN packet."""
        sealed = self._key.seal(self.peer_id, payload)
        assert sealed is not None
        return sealed

    def send_raw(self, datagram: bytes) -> None:
        """Sends something as it is."""
        self.udp.sendto(datagram, (self._address, self.port))

    def send_train(self, datagrams: list[bytes]) -> None:
        """Sends datagrams of one size (the last may be shorter) so that they arrive as one."""
        self.udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(datagrams[0]))
        self.send_raw(b"".join(datagrams))
        self.udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)

    def hear(self) -> bytes:
        """The next packet from the worker, opened."""
        opened = self._key.open(self.udp.recv(65535))
        assert opened is not None
        return opened


class Device:
    """A worker that serves the TUN "tun0" (10.8.0.1/24) of a namespace of its own, on UDP socket 1."""

    def __init__(self, namespace: str, worker: Worker, tun_fd: int, page: StatisticsPage, page_fd: int) -> None:
        self.namespace = namespace
        self.worker = worker
        self.page = page
        self.descriptors = (tun_fd, page_fd)
        self.application = udp_in(namespace, HOST)

    def configure(self, mode: Mode = Mode.MP, bound_to: str = "127.0.0.1") -> Device:
        self.worker.do(Configure("device", mode, ROWS), *self.descriptors)
        self.port = self.add_socket(1, bound_to)
        return self

    def add_socket(self, socket_id: int, bound_to: str, *control_fd: int) -> int:
        """Its port."""
        with in_network_namespace(self.namespace, lambda: bind_udp(ip_address(bound_to), 0)) as udp:
            self.worker.do(AddSocket(socket_id), udp.fileno(), *control_fd)
            return int(udp.getsockname()[1])

    def add_peer(
        self,
        peer_id: int,
        *,
        at: str = "127.0.0.1",
        socket_id: int = 1,
        keepalive_interval_s: int = 0,
        keepalive_timeout_s: int = 0,
    ) -> FarPeer:
        """Adds peer N with the VPN address 10.8.0.1N, row N, uid 100 + N and a primary key; its other end."""
        far = FarPeer(self, peer_id, f"10.8.0.1{peer_id}", at)
        self.worker.do(
            AddPeer(
                peer_id,
                uid=100 + peer_id,
                row=peer_id,
                socket_id=socket_id,
                remote=far.endpoint,
                vpn_ipv4=IPv4Address(far.vpn_ipv4).packed,
                keepalive_interval_s=keepalive_interval_s,
                keepalive_timeout_s=keepalive_timeout_s,
            )
        )
        self.worker.do(install_key(peer_id))
        return far

    def say(self, payload: bytes, to: str) -> None:
        """Has the application send a UDP datagram into the TUN."""
        self.application.sendto(payload, (to, 9))

    def packet_from(self, far: FarPeer, payload: bytes, source: str | None = None) -> bytes:
        """A UDP datagram from a peer to the application, as IP packet."""
        return ipv4_udp((source or far.vpn_ipv4, 7), self.application.getsockname(), payload)

    def drops(self, row: int, count: int = 1) -> dict[DropReason, int]:
        """What was dropped, once at least `count` packets were."""
        while True:
            drops = drops_of(self.page.snapshot(row))
            if sum(drops.values()) >= count:
                return drops
            self.worker.settle()


def _secrets(peer_id: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Key and nonce tail to the peer, key and nonce tail from it."""
    to_peer, from_peer = bytes([peer_id]), bytes([0x80 + peer_id])
    return to_peer * 32, to_peer * 8, from_peer * 32, from_peer * 8


def install_key(peer_id: int, slot: KeySlot = KeySlot.PRIMARY) -> InstallKey:
    return InstallKey(peer_id, slot, 0, Cipher.AES_GCM, *_secrets(peer_id))


def near_key(peer_id: int) -> DataKey:
    """The key that install_key gives to the worker."""
    to_peer, tail_to_peer, from_peer, tail_from_peer = _secrets(peer_id)
    return DataKey(0, Cipher.AES_GCM, KeyDirection(to_peer, tail_to_peer), KeyDirection(from_peer, tail_from_peer))


def far_key(peer_id: int) -> DataKey:
    """The peer's key, for which the directions are the other way round."""
    to_peer, tail_to_peer, from_peer, tail_from_peer = _secrets(peer_id)
    return DataKey(0, Cipher.AES_GCM, KeyDirection(from_peer, tail_from_peer), KeyDirection(to_peer, tail_to_peer))


@pytest.fixture(params=list(DatapathKind))
def datapath_kind(request: pytest.FixtureRequest) -> DatapathKind:
    return DatapathKind(request.param)


@pytest.fixture
def worker(datapath_kind: DatapathKind) -> Iterator[Worker]:
    running = Worker(datapath_kind)
    yield running
    running.stop()


@pytest.fixture
def namespace() -> Iterator[str]:
    with fresh_namespace() as path:
        set_link("lo", path, admin_up=True)
        yield path


@pytest.fixture
def unconfigured(worker: Worker, namespace: str) -> Iterator[Device]:
    page_fd = StatisticsPage.create_memfd(ROWS)
    with tun_in(namespace, "tun0", f"{HOST}/24") as tun_fd:
        yield Device(namespace, worker, tun_fd, StatisticsPage(page_fd, ROWS), page_fd)
    os.close(page_fd)


@pytest.fixture
def device(unconfigured: Device) -> Device:
    """In MP mode."""
    return unconfigured.configure()
