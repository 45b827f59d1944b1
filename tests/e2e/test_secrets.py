"""Key bytes of a live session are nowhere but where they belong: no log, no reply, no command line, no environment.

A recorder between shim and daemon tells the test which bytes to look for.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
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
)

from lab import traffic
from lab.dataplane import RPC_SECONDS, DataPlane, shim
from lab.key_recorder import KeyRecorder, recording
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4, Settings, start_client, start_server
from lab.pki import Authority
from lab.waiting import wait_until

pytestmark = pytest.mark.root

SETTINGS = replace(Settings(), reneg_seconds=5, verb=4)
REKEYS = 2


@pytest.fixture
def recorder(lab: Lab, authority: Authority, own_data_plane: DataPlane, tmp_path: Path) -> Iterator[KeyRecorder]:
    """A tunnel, both ends under the shim, that has carried traffic and changed its keys."""
    with recording(own_data_plane.target, tmp_path) as (target, recorder):
        near, far = lab.namespace("near"), lab.namespace("far")
        link = lab.link(near, far)
        fronts = {
            name: [*shim(target, lab.directory / f"shim-{name}.log")[:-1], "--log-level", "debug", "--"]
            for name in ("server", "client")
        }
        server = start_server(lab, near, authority.server("server"), SETTINGS, front=fronts["server"])
        server.wait_initialized()
        credentials = authority.client("client")
        client = start_client(lab, far, credentials, SETTINGS, link.ipv4(1), front=fronts["client"])
        client.wait_initialized()
        traffic.wait_reachable(lab, far, SERVER_VPN_IPV4)
        wait_until(lambda: len(recorder.keys) >= 2 + 2 * REKEYS, "new keys at both ends", timeout_seconds=30)
        traffic.wait_reachable(lab, far, SERVER_VPN_IPV4)
        yield recorder


def spellings(recorder: KeyRecorder) -> set[bytes]:
    """Every way in which the bytes of a key might be written down."""
    secrets = {
        secret
        for request in recorder.keys
        for direction in (request.encrypt, request.decrypt)
        for secret in (direction.cipher_key, direction.nonce_tail)
    }
    found: set[bytes] = set()
    for secret in secrets:
        found |= {
            secret,
            secret.hex().encode(),
            secret.hex().upper().encode(),
            secret.hex(":").encode(),
            secret.hex(" ").encode(),
            base64.b64encode(secret).rstrip(b"="),
            repr(secret)[2:-1].encode(),
            str(list(secret)).encode(),
            "".join(f"\\{byte:03o}" for byte in secret).encode(),
        }
    return found


def replies(channel: grpc.Channel) -> Iterator[tuple[str, bytes]]:
    """All that the service tells of the tunnel: as bytes on the wire, and as text."""
    devices = device_pb2_grpc.DeviceServiceStub(channel)
    peers, keys = peer_pb2_grpc.PeerServiceStub(channel), key_pb2_grpc.KeyServiceStub(channel)
    server = server_pb2_grpc.ServerServiceStub(channel)
    messages = [
        server.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=RPC_SECONDS),
        listed := devices.ListDevices(device_pb2.ListDevicesRequest(), timeout=RPC_SECONDS),
    ]
    for device in listed.devices:
        found = peers.ListPeers(peer_pb2.ListPeersRequest(device=device.name), timeout=RPC_SECONDS)
        messages.append(found)
        messages += [
            keys.GetKey(
                key_pb2.GetKeyRequest(device=device.name, peer_id=peer.peer_id, slot=common_pb2.KEY_SLOT_PRIMARY),
                timeout=RPC_SECONDS,
            )
            for peer in found.peers
        ]
    watch = event_pb2_grpc.EventServiceStub(channel).Watch(event_pb2.WatchRequest(), timeout=RPC_SECONDS)
    for event in watch:
        messages.append(event)
        if event.HasField("bookmark"):
            watch.cancel()
            break
    for message in messages:
        yield type(message).__name__, message.SerializeToString()
        yield f"{type(message).__name__} as text", str(message).encode()


def places(lab: Lab, data_plane: DataPlane) -> Iterator[tuple[str, bytes]]:
    """Where an operator, or somebody who gets to see a support bundle, might look."""
    for path in lab.directory.rglob("*"):
        if path.is_file():
            yield path.name, path.read_bytes()
    for pid in lab.pids():
        for name in ("cmdline", "environ", "comm"):
            yield f"{name} of {pid}", Path(f"/proc/{pid}/{name}").read_bytes()
    yield from replies(data_plane.channel)


def test_key_bytes_are_in_no_log_reply_or_command_line(
    lab: Lab, own_data_plane: DataPlane, recorder: KeyRecorder
) -> None:
    looked_at = dict(places(lab, own_data_plane))
    assert {"daemon.log", "server.log", "client.log", "shim-server.log", "shim-client.log"} <= looked_at.keys()
    assert looked_at["daemon.log"].count(b"InstallKey") >= len(recorder.keys), "the calls themselves are logged"
    wanted = spellings(recorder)
    careless = json.dumps({"cipher_key": recorder.keys[0].encrypt.cipher_key.hex()}).encode()
    assert any(secret in careless for secret in wanted), "the search finds what is there"
    leaks = [place for place, content in looked_at.items() if any(secret in content for secret in wanted)]
    assert leaks == []
