"""A real gRPC server and hand-off socket on Unix sockets, over a real engine with fake workers and resources."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from ovpn.dataplane.v1 import (
    common_pb2,
    device_pb2,
    device_pb2_grpc,
    event_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
    peer_pb2,
    peer_pb2_grpc,
    server_pb2_grpc,
    socket_pb2,
    socket_pb2_grpc,
)

from dataplane.api.handoff_server import HandoffServer
from dataplane.api.handoff_vault import HandoffVault
from dataplane.api.leases import Leases
from dataplane.api.server import ApiServer
from dataplane.api.server_service import DaemonFacts
from dataplane.engine.engine import Engine
from dataplane.vocabulary import DatapathKind
from tests.engine.conftest import FakeLauncher, FakeResources

PATIENCE_S: Final = 10
DATAPATH: Final = DatapathKind.COMPILED


class Api:
    """Everything that the daemon consists of, and a client of it."""

    def __init__(self, directory: Path) -> None:
        self.control_path = directory / "control.sock"
        self.handoff_path = directory / "handoff.sock"
        self.launcher = FakeLauncher()
        self.resources = FakeResources()
        self.engine = Engine(worker_launcher=self.launcher, resources=self.resources)
        self.vault = HandoffVault()
        self.leases = Leases(self.engine, self.vault)
        self.handoff = HandoffServer(self.handoff_path, self.vault, self.leases.connection_closed)
        self.server = ApiServer(self.engine, self.vault, self.leases, DaemonFacts("1.2.3", self.handoff_path, DATAPATH))
        self.channel = grpc.aio.insecure_channel(f"unix:{self.control_path}")
        self.devices = device_pb2_grpc.DeviceServiceStub(self.channel)
        self.sockets = socket_pb2_grpc.SocketServiceStub(self.channel)
        self.peers = peer_pb2_grpc.PeerServiceStub(self.channel)
        self.keys = key_pb2_grpc.KeyServiceStub(self.channel)
        self.events = event_pb2_grpc.EventServiceStub(self.channel)
        self.info = server_pb2_grpc.ServerServiceStub(self.channel)

    async def start(self) -> None:
        await self.server.start(self.control_path)

    async def stop(self) -> None:
        await self.channel.close()
        hurry = asyncio.Event()
        hurry.set()
        await self.server.stop(0, hurry)
        self.handoff.close()
        await self.leases.join()
        await self.engine.close()

    async def make_device(self, name: str = "d", mode: common_pb2.DeviceMode = common_pb2.DEVICE_MODE_MP) -> None:
        await self.devices.CreateDevice(device_pb2.CreateDeviceRequest(device=device_message(name=name, mode=mode)))

    async def make_ready(self, mode: common_pb2.DeviceMode = common_pb2.DEVICE_MODE_MP) -> None:
        """A device "d" with a dual-stack socket "s"."""
        await self.make_device(mode=mode)
        await self.sockets.CreateSocket(socket_pb2.CreateSocketRequest(socket=socket_message()))

    async def make_peer(self, peer_id: int = 1) -> peer_pb2.Peer:
        request = peer_pb2.CreatePeerRequest(
            peer=peer_message(peer_id=peer_id, vpn_ipv4=f"10.8.{peer_id >> 8}.{peer_id & 255}")
        )
        return (await self.peers.CreatePeer(request)).peer

    async def everything(self) -> list[str]:
        """All resources as text, to see whether a refused call changed something."""
        devices = (await self.devices.ListDevices(device_pb2.ListDevicesRequest())).devices
        texts = []
        for device in devices:
            sockets = await self.sockets.ListSockets(socket_pb2.ListSocketsRequest(device=device.name))
            peers = await self.peers.ListPeers(peer_pb2.ListPeersRequest(device=device.name))
            texts += [str(device), str(sockets), str(peers)]
        return [*texts, str(self.engine.revision)]

    async def hand_over(self, fd: int) -> tuple[socket.socket, str]:
        """A hand-off connection and the token that it got for a descriptor."""
        client = self.connect()
        reply = await exchange(client, b"adopt", fd)
        assert reply.startswith(b"token ")
        return client, reply.removeprefix(b"token ").decode()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.setblocking(False)
        client.connect(str(self.handoff_path))
        return client


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused. violations: description by field."""

    code: grpc.StatusCode
    reason: str
    domain: str
    message: str
    metadata: dict[str, str]
    violations: dict[str, str]
    trailers_bytes: int


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="ovpn-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def api(directory: Path) -> AsyncIterator[Api]:
    """Served; must leave no descriptor of a device or socket behind."""
    before = device_fds()
    api = Api(directory)
    await api.start()
    yield api
    await api.stop()
    assert device_fds() == before


async def refusal_of(call: Awaitable[Any]) -> Refusal:
    """The refusal of a call, which must not succeed."""
    try:
        reply = await asyncio.wait_for(call, PATIENCE_S)
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    pytest.fail(f"accepted: {reply}")


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    if len(status.details) > 1:
        assert status.details[1].Unpack(bad_request)
    return Refusal(
        code=error.code(),
        reason=info.reason,
        domain=info.domain,
        message=status.message,
        metadata=dict(info.metadata),
        violations={violation.field: violation.description for violation in bad_request.field_violations},
        trailers_bytes=status.ByteSize(),
    )


async def exchange(client: socket.socket, data: bytes, *fds: int) -> bytes:
    """Sends a datagram over the hand-off socket and gives the reply."""
    socket.send_fds(client, [data], fds)
    return await receive(client)


async def receive(client: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 4096), PATIENCE_S)


async def closed(client: socket.socket) -> None:
    """Waits until the server has closed its end."""
    assert await receive(client) == b""


def changed(message: Message, **fields: Any) -> Any:
    """A copy of a message with other fields; "a__b" is field b of message a, None clears."""
    copy = type(message)()
    copy.CopyFrom(message)
    for path, value in fields.items():
        *parents, name = path.split("__")
        target: Any = copy
        for parent in parents:
            target = getattr(target, parent)
        target.ClearField(name)
        if isinstance(value, Message):
            getattr(target, name).CopyFrom(value)
        elif isinstance(value, list):
            getattr(target, name).extend(value)
        elif value is not None:
            setattr(target, name, value)
    return copy


def device_message(**fields: Any) -> device_pb2.Device:
    return changed(device_pb2.Device(name="d", mode=common_pb2.DEVICE_MODE_MP), **fields)  # type: ignore[no-any-return]


_SOCKET: Final = socket_pb2.Socket(
    device="d", name="s", address="::", port=1194, fragmentation=socket_pb2.FRAGMENTATION_POLICY_MAY_FRAGMENT
)


def socket_message(**fields: Any) -> socket_pb2.Socket:
    return changed(_SOCKET, **fields)  # type: ignore[no-any-return]


def peer_message(**fields: Any) -> peer_pb2.Peer:
    peer = peer_pb2.Peer(device="d", peer_id=1, socket="s", vpn_ipv4="10.8.0.2")
    peer.remote.address, peer.remote.port = "198.51.100.7", 40001
    return changed(peer, **fields)  # type: ignore[no-any-return]


ENCRYPT_KEY: Final = bytes(range(0x21, 0x41))
DECRYPT_KEY: Final = bytes(range(0x41, 0x61))
ENCRYPT_TAIL: Final = b"QqZz9876"
DECRYPT_TAIL: Final = b"WwXx5432"
SECRETS: Final = (ENCRYPT_KEY, DECRYPT_KEY, ENCRYPT_TAIL, DECRYPT_TAIL)


def key_message(**fields: Any) -> key_pb2.InstallKeyRequest:
    request = key_pb2.InstallKeyRequest(
        device="d", peer_id=1, slot=common_pb2.KEY_SLOT_PRIMARY, key_id=3, cipher=common_pb2.CIPHER_AES_GCM
    )
    request.encrypt.cipher_key, request.encrypt.nonce_tail = ENCRYPT_KEY, ENCRYPT_TAIL
    request.decrypt.cipher_key, request.decrypt.nonce_tail = DECRYPT_KEY, DECRYPT_TAIL
    return changed(request, **fields)  # type: ignore[no-any-return]


def shows_secrets(text: str | bytes) -> bool:
    """Whether key material is in a text, raw, in hexadecimal, escaped or as a list of numbers."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    for secret in SECRETS:
        half = secret[: len(secret) // 2]
        forms = (half, half.hex().encode(), repr(half)[2:-1].encode(), str(list(half))[1:-1].encode())
        if any(form in data for form in forms):
            return True
    return False


def device_fd() -> int:
    """A descriptor that stands for a TUN or a socket; the fake resources do not look at it."""
    return os.open("/dev/null", os.O_RDWR)


def device_fds() -> int:
    """How many such descriptors this process has, the server's among them."""
    return descriptors()["/dev/null"]


def descriptors() -> Counter[str]:
    """What the descriptors of this process lead to ("socket:[4711]"), and how many to each."""
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[str(link.readlink())] += 1
    return found
