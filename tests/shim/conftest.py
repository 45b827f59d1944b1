"""A data plane, a hand-off socket, a caller and Linux's interfaces, all ours, that keep a diary in common."""

from __future__ import annotations

import ctypes
import fcntl
import os
import queue
import select
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from errno import ENOENT
from ipaddress import IPv4Address
from typing import Any, TypeVar

import pytest
import structlog
from ovpn.dataplane.v1 import common_pb2, device_pb2, event_pb2, key_pb2, peer_pb2, server_pb2
from structlog.testing import LogCapture

from controlplane_shim import adoption, selftest, session
from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.event_feed import Bell, EventFeed
from controlplane_shim.offload import Offload
from controlplane_shim.operations import DeletionNotice, Done, Failed, Family, NewKey, NewLink, NewPeer, Outcome, Remote
from controlplane_shim.selftest import Link
from controlplane_shim.session import Session
from controlplane_shim.tuning import Tuning

INSTANCE = "0123"
FAMILY = Family.OVPN_DCO_V2
GONE = DataPlaneError("UNAVAILABLE", "", "connection refused")
CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def bring_up(interface: str) -> None:
    """SIOCGIFFLAGS, then SIOCSIFFLAGS with IFF_UP (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = bytearray(struct.pack("16s24x", interface.encode()))
        fcntl.ioctl(any_socket, 0x8913, request)
        request[16] |= 1
        fcntl.ioctl(any_socket, 0x8914, request)


def errno_of(outcome: Outcome) -> int:
    assert isinstance(outcome, Failed)
    return outcome.errno


def is_readable(fd: int, within_seconds: float = 0) -> bool:
    return bool(select.select([fd], [], [], within_seconds)[0])


class Clock:
    """Stands still, unless it is set."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class FakeWatch:
    """A Watch call that yields what send() is given, and raises it if it is an error."""

    def __init__(self) -> None:
        self.cancelled = False
        self._queue: queue.Queue[event_pb2.WatchResponse | DataPlaneError] = queue.Queue()

    def send(self, item: event_pb2.WatchResponse | DataPlaneError) -> None:
        self._queue.put(item)

    def flush(self) -> None:
        """Returns when all that was sent has been dealt with by the reader."""
        self._queue.join()

    def cancel(self) -> None:
        self.cancelled = True
        self.send(DataPlaneError("CANCELLED", "", "cancelled"))

    def __iter__(self) -> Iterator[event_pb2.WatchResponse]:
        while True:
            item = self._queue.get()
            try:
                if isinstance(item, DataPlaneError):
                    raise item
                yield item
            finally:
                self._queue.task_done()


@dataclass
class FakeDataPlane:
    """Answers every call and writes it into the diary. failures: errors to raise, by method, once each."""

    diary: list[tuple[Any, ...]] = field(default_factory=list)
    failures: dict[str, list[DataPlaneError]] = field(default_factory=dict)
    watches: dict[str, list[FakeWatch]] = field(default_factory=dict)
    peers: dict[int, peer_pb2.Peer] = field(default_factory=dict)
    instance_id: str = INSTANCE
    gives_bookmark: bool = True
    revision: int = 0
    closed: bool = False
    knows_outlets: bool = True

    def fail(self, method: str, *errors: DataPlaneError) -> None:
        self.failures.setdefault(method, []).extend(errors)

    def calls(self, method: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self.diary if entry[0] == method]

    def _note(self, method: str, *arguments: Any) -> None:
        self.diary.append((method, *arguments))
        if self.failures.get(method):
            raise self.failures[method].pop(0)

    def server_info(self, timeout_seconds: float) -> server_pb2.GetServerInfoResponse:
        self._note("server_info", timeout_seconds)
        return server_pb2.GetServerInfoResponse(instance_id=self.instance_id, handoff_path="/advertised")

    def create_device(self, request: device_pb2.CreateDeviceRequest) -> None:
        self._note("create_device", request)

    def delete_device(self, name: str, timeout_seconds: float = 5) -> None:
        self._note("delete_device", name, timeout_seconds)

    def adopt_socket(
        self, device: str, name: str, token: str, control_token: str = "", *, copy_dscp: bool = False
    ) -> bool:
        wishes = ["copy_dscp"] if copy_dscp else []
        self._note("adopt_socket", device, name, *filter(None, [token, control_token]), *wishes)
        return self.knows_outlets and control_token != ""

    def delete_socket(self, device: str, name: str) -> None:
        self._note("delete_socket", device, name)

    def create_peer(self, request: peer_pb2.CreatePeerRequest) -> peer_pb2.Peer:
        self._note("create_peer", request.peer.peer_id)
        self.revision += 1
        peer = peer_pb2.Peer()
        peer.CopyFrom(request.peer)
        peer.create_revision = self.revision
        self.peers[peer.peer_id] = peer
        return peer

    def get_peer(self, request: peer_pb2.GetPeerRequest) -> peer_pb2.Peer:
        self._note("get_peer", request.peer_id)
        return self.peers[request.peer_id]

    def list_peers(self, device: str) -> list[peer_pb2.Peer]:
        self._note("list_peers", device)
        return list(self.peers.values())

    def update_peer(self, request: peer_pb2.UpdatePeerRequest) -> None:
        self._note("update_peer", request.peer.peer_id, list(request.update_mask.paths))

    def delete_peer(self, request: peer_pb2.DeletePeerRequest) -> None:
        self._note("delete_peer", request.peer_id)

    def install_key(self, request: key_pb2.InstallKeyRequest) -> None:
        self._note("install_key", request.peer_id)

    def get_key(self, request: key_pb2.GetKeyRequest) -> key_pb2.Key:
        self._note("get_key", request.peer_id, request.slot)
        return key_pb2.Key(slot=request.slot, key_id=5, cipher=common_pb2.CIPHER_CHACHA20_POLY1305)

    def swap_keys(self, request: key_pb2.SwapKeysRequest) -> None:
        self._note("swap_keys", request.peer_id)

    def delete_key(self, request: key_pb2.DeleteKeyRequest) -> None:
        self._note("delete_key", request.peer_id, request.slot, request.linger.seconds)

    def watch(self, device: str) -> FakeWatch:
        self._note("watch", device)
        watch = FakeWatch()
        self.watches.setdefault(device, []).append(watch)
        for peer in self.peers.values():
            watch.send(self.event(peer_snapshot=peer))
        if self.gives_bookmark:
            watch.send(self.event(bookmark=event_pb2.Bookmark()))
        return watch

    def close(self) -> None:
        self.closed = True

    def event(self, **event: Any) -> event_pb2.WatchResponse:
        return event_pb2.WatchResponse(instance_id=self.instance_id, revision=self.revision, **event)

    def emit(self, device: str, **event: Any) -> None:
        """Sends an event to the newest watch of a device and waits until it lies in the session's queue."""
        self.watches[device][-1].send(self.event(**event))
        self.watches[device][-1].flush()

    def delete_by_itself(self, device: str, peer_id: int, reason: common_pb2.DelReason) -> None:
        """A peer ends without a call of ours."""
        gone = self.peers.pop(peer_id)
        deleted = event_pb2.PeerDeleted(
            device=device, peer_id=peer_id, reason=reason, create_revision=gone.create_revision
        )
        self.emit(device, peer_deleted=deleted)


@dataclass
class FakeHandoff:
    """Gives tokens t1, t2, … and writes them into the diary."""

    diary: list[tuple[Any, ...]]
    failures: list[DataPlaneError] = field(default_factory=list)
    closed: bool = False
    tokens: int = 0

    def hand_over(self, fd: int) -> str:
        os.fstat(fd)
        if self.failures:
            raise self.failures.pop(0)
        self.tokens += 1
        self.diary.append(("hand_over", f"t{self.tokens}"))
        return f"t{self.tokens}"

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeConnector:
    """Gives what it has; handoff None: there is no hand-off socket."""

    dataplane: FakeDataPlane
    handoff: FakeHandoff | None
    handoff_paths: list[str] = field(default_factory=list)

    def open_dataplane(self) -> FakeDataPlane:
        return self.dataplane

    def open_handoff(self, advertised_path: str) -> FakeHandoff:
        self.handoff_paths.append(advertised_path)
        if self.handoff is None:
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT))
        return self.handoff


class FakeCaller:
    """This process as the caller; numbers: which of its descriptors OpenVPN's numbers stand for.

    replaced: descriptors that took the place of others; close them by close(). errors: of the next replacements.
    """

    def __init__(self, numbers: dict[int, int] | None = None) -> None:
        self.pid = os.getpid()
        self.numbers = numbers or {}
        self.replaced: list[int] = []
        self.errors: list[OSError] = []
        self.admin = True

    def is_admin(self) -> bool:
        return self.admin

    def replace_fd(self, fd: int, source: int) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.close(fd)
        self.numbers[fd] = os.dup(source)
        self.replaced.append(self.numbers[fd])

    def close(self, fd: int) -> None:
        """OpenVPN closes a number, or ends."""
        if self.numbers.get(fd) in self.replaced:
            self.replaced.remove(self.numbers[fd])
            os.close(self.numbers.pop(fd))

    def fetch_fd(self, fd: int) -> int:
        return os.dup(self.numbers.get(fd, fd))


@dataclass
class FakeLinux:
    """Interfaces by name, numbered from 100. errors: raised by the next attempts to make one."""

    diary: list[tuple[Any, ...]]
    interfaces: dict[str, int] = field(default_factory=dict)
    errors: list[OSError] = field(default_factory=list)

    def open_tun(self, name: str) -> int:
        if self.errors:
            raise self.errors.pop(0)
        self.interfaces[name] = 100 + len(self.interfaces)
        return os.open(os.devnull, os.O_RDWR)

    def delete_interface(self, ifindex: int) -> None:
        self.diary.append(("delete_interface", ifindex))


@dataclass
class World:
    """All of it, and an Offload over it."""

    dataplane: FakeDataPlane
    handoff: FakeHandoff
    linux: FakeLinux
    caller: FakeCaller
    bell: Bell
    offload: Offload
    log: LogCapture
    udp: socket.socket

    @property
    def diary(self) -> list[tuple[Any, ...]]:
        return self.dataplane.diary

    def methods(self) -> list[Any]:
        return [entry[0] for entry in self.diary]

    def perform(self, operation: Any) -> Any:
        return self.offload.perform(operation, FAMILY, self.caller)

    def make_device(self, name: str = "tun0", *, multipeer: bool = True) -> tuple[int, str]:
        """A device; its ifindex, and its name in the data plane. Clears the diary."""
        assert self.perform(NewLink(name, "ovpn-dco", multipeer)) == Done()
        ((request,),) = self.dataplane.calls("create_device")
        self.diary.clear()
        return self.linux.interfaces[name], request.device.name

    def make_peer(self, ifindex: int, peer_id: int, fd: int = 7) -> None:
        assert self.perform(new_peer(ifindex, peer_id, fd)) == Done()

    def deletions(self) -> list[tuple[int, str]]:
        notices = self.offload.take_notices()
        return [(notice.peer_id, notice.reason.name) for notice in notices if isinstance(notice, DeletionNotice)]

    def events(self) -> list[Any]:
        return [entry["event"] for entry in self.log.entries]


def new_peer(ifindex: int, peer_id: int, fd: int = 7) -> NewPeer:
    remote = Remote(IPv4Address("192.0.2.1"), 1194)
    return NewPeer(ifindex, peer_id, fd, remote, None, IPv4Address(f"10.8.0.{peer_id + 2}"), None)


def new_key(ifindex: int, peer_id: int, slot: int = 0) -> NewKey:
    return NewKey(ifindex, peer_id, slot, 0, 1, b"SECRET-1" * 4, b"SECRET-2", b"SECRET-3" * 4, b"SECRET-4")


@pytest.fixture
def dataplane() -> FakeDataPlane:
    return FakeDataPlane()


@pytest.fixture
def handoff(dataplane: FakeDataPlane) -> FakeHandoff:
    return FakeHandoff(dataplane.diary)


@pytest.fixture
def linux(dataplane: FakeDataPlane, monkeypatch: pytest.MonkeyPatch) -> FakeLinux:
    """Interfaces and split ports without privileges."""
    fake = FakeLinux(dataplane.diary)
    monkeypatch.setattr(adoption, "open_tun", fake.open_tun)
    monkeypatch.setattr(adoption, "delete_interface", fake.delete_interface)
    monkeypatch.setattr(socket, "if_nametoindex", fake.interfaces.__getitem__)
    monkeypatch.setattr(adoption, "split", lambda openvpn: openvpn.dup())
    monkeypatch.setattr(adoption, "prepare_gathering", lambda _openvpn, _log: None)
    return fake


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


@pytest.fixture
def log_entries() -> LogCapture:
    return LogCapture()


@pytest.fixture
def log(log_entries: LogCapture) -> Any:
    return structlog.wrap_logger(None, processors=[log_entries])


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    """OpenVPN's socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as openvpn:
        openvpn.bind(("127.0.0.1", 0))
        yield openvpn


@pytest.fixture
def world(
    dataplane: FakeDataPlane,
    handoff: FakeHandoff,
    linux: FakeLinux,
    bell: Bell,
    log: Any,
    log_entries: LogCapture,
    udp: socket.socket,
) -> Iterator[World]:
    """An Offload. OpenVPN's descriptor 7 is `udp`."""
    feed = EventFeed(dataplane, INSTANCE, bell.ring)
    offload = Offload(Link(dataplane, handoff, feed), bell, log, Tuning())
    caller = FakeCaller({7: udp.fileno()})
    yield World(dataplane, handoff, linux, caller, bell, offload, log_entries, udp)
    feed.close()
    for fd in list(caller.numbers):
        caller.close(fd)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shim_session(
    dataplane: FakeDataPlane,
    handoff: FakeHandoff,
    linux: FakeLinux,
    log: Any,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Session]:
    """A Session as the supervisor has it."""
    monkeypatch.setattr(selftest, "TUN_PATH", os.devnull)
    monkeypatch.setattr(session, "interface_exists", linux.interfaces.__contains__)
    tested = Session(FakeConnector(dataplane, handoff), log, Tuning(), clock)
    yield tested
    tested.close()


@pytest.fixture
def in_namespace() -> Iterator[Callable[[Callable[[], T]], T]]:
    """Runs a function in a thread that has a network namespace of its own, which ends with the test."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter() -> None:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")

    with ThreadPoolExecutor(1, initializer=enter) as executor:
        yield lambda function: executor.submit(function).result()
