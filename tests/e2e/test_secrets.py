"""Key bytes go into the service and come out nowhere: not in a log, a reply, an event or a command line."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from ovpn.dataplane.v1 import (
    common_pb2,
    device_pb2,
    device_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
    peer_pb2,
    peer_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
    socket_pb2,
    socket_pb2_grpc,
)

from lab.dataplane import DataPlane, shim
from lab.key_recorder import recording
from lab.lab import Lab, OpenLab
from lab.openvpn import SERVER_VPN_IPV4, Settings, start_client, start_server
from lab.pki import Authority
from lab.traffic import wait_reachable
from lab.waiting import wait_until

pytestmark = pytest.mark.root

RPC_SECONDS = 10
FRAGMENT_BYTES = 8
"""A nonce tail has 8 bytes; 8 bytes of a key are not there by chance either."""


@dataclass(frozen=True, slots=True)
class Used:
    """A tunnel between two ends under the shim, rekeyed twice, and the keys it was given."""

    lab: Lab
    data_plane: DataPlane
    secrets: list[bytes] = field(repr=False)


@pytest.fixture(scope="module")
def used(open_lab: OpenLab, authority: Authority) -> Iterator[Used]:
    settings = Settings(reneg_seconds=2, verb=4)
    with open_lab() as lab:
        data_plane = DataPlane(lab)
        server_namespace, client_namespace = lab.namespace("server"), lab.namespace("client")
        link = lab.link(server_namespace, client_namespace)
        with recording(data_plane.target, lab.sockets) as (target, recorder):
            front = shim(target, lab.directory / "server-shim.log")
            server = start_server(lab, server_namespace, authority.server(), settings, front=front)
            server.wait_initialized()
            front = shim(target, lab.directory / "client-shim.log")
            client = start_client(lab, client_namespace, authority.client(), settings, link.ipv4(1), front=front)
            client.wait_initialized()
            wait_reachable(lab, client_namespace, SERVER_VPN_IPV4)
            wait_until(lambda: len(recorder.keys) >= 6, "three keys on both ends")
            directions = [direction for key in recorder.keys for direction in (key.encrypt, key.decrypt)]
            secrets = [secret for direction in directions for secret in (direction.cipher_key, direction.nonce_tail)]
            yield Used(lab, data_plane, secrets)


def spellings(secret: bytes) -> list[bytes]:
    """The first bytes of a secret as they would look in a log, a message or a dump."""
    fragment = secret[:FRAGMENT_BYTES]
    # 6 bytes make 8 whole characters of base64, wherever what follows them ends.
    return [
        fragment,
        fragment.hex().encode(),
        fragment.hex().upper().encode(),
        fragment.hex(" ").encode(),
        fragment.hex(":").encode(),
        base64.b64encode(fragment[:6]),
        repr(fragment)[2:-1].encode(),
        "".join(f"\\\\{byte:03o}" for byte in fragment).encode(),
    ]


def places_with_a_secret(places: dict[str, bytes], secrets: list[bytes]) -> list[str]:
    """Names of the places (never what stands there) that show one of the secrets in any spelling."""
    sought = [spelling for secret in secrets for spelling in spellings(secret)]
    return sorted(name for name, content in places.items() if any(spelling in content for spelling in sought))


@pytest.mark.parametrize("spelling", range(len(spellings(bytes(FRAGMENT_BYTES)))))
def test_the_search_finds_a_secret_in_any_spelling(spelling: int) -> None:
    secret = bytes(range(200, 232))
    content = b"key=" + spellings(secret)[spelling] + b";"
    assert places_with_a_secret({"log": content, "other": b"nothing"}, [secret]) == ["log"]


def test_no_log_shows_a_key(used: Used) -> None:
    logs = {path.name: path.read_bytes() for path in used.lab.directory.glob("*.log")}
    assert {"daemon.log", "server.log", "client.log", "server-shim.log", "client-shim.log"} <= set(logs)
    assert places_with_a_secret(logs, used.secrets) == []


def test_no_command_line_and_no_environment_shows_a_key(used: Used) -> None:
    places = {}
    for pid in used.lab.pids():
        for name in ("cmdline", "environ"):
            places[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    assert len(places) >= 2 * 8  # a daemon, two workers, two fronts, two supervisors and two OpenVPNs, save one
    assert places_with_a_secret(places, used.secrets) == []


def test_no_reply_and_no_event_shows_a_key(used: Used) -> None:
    messages = list(replies(used.data_plane.channel))
    assert any(isinstance(message, key_pb2.GetKeyResponse) for message in messages)
    places = {
        f"{number} {type(message).__name__}": message.SerializeToString() for number, message in enumerate(messages)
    }
    assert places_with_a_secret(places, used.secrets) == []


def replies(channel: grpc.Channel) -> Iterator[Message]:
    """A reply of every call that only reads, and the snapshot of Watch."""
    devices, sockets = device_pb2_grpc.DeviceServiceStub(channel), socket_pb2_grpc.SocketServiceStub(channel)
    peers, keys = peer_pb2_grpc.PeerServiceStub(channel), key_pb2_grpc.KeyServiceStub(channel)
    server = server_pb2_grpc.ServerServiceStub(channel)
    yield server.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=RPC_SECONDS)
    listed = devices.ListDevices(device_pb2.ListDevicesRequest(), timeout=RPC_SECONDS)
    yield listed
    for device in (device.name for device in listed.devices):
        yield devices.GetDevice(device_pb2.GetDeviceRequest(name=device), timeout=RPC_SECONDS)
        yield sockets.ListSockets(socket_pb2.ListSocketsRequest(device=device), timeout=RPC_SECONDS)
        yield from peers.StreamPeers(peer_pb2.StreamPeersRequest(device=device), timeout=RPC_SECONDS)
        listed_peers = peers.ListPeers(peer_pb2.ListPeersRequest(device=device), timeout=RPC_SECONDS)
        yield listed_peers
        for peer in listed_peers.peers:
            one = peer_pb2.GetPeerRequest(device=device, peer_id=peer.peer_id)
            yield peers.GetPeer(one, timeout=RPC_SECONDS)
            slot = common_pb2.KEY_SLOT_PRIMARY
            primary = key_pb2.GetKeyRequest(device=device, peer_id=peer.peer_id, slot=slot)
            yield keys.GetKey(primary, timeout=RPC_SECONDS)
    for event in event_pb2_grpc.EventServiceStub(channel).Watch(event_pb2.WatchRequest(), timeout=RPC_SECONDS):
        yield event
        if event.HasField("bookmark"):
            return
