"""A worker with many peers, all with keys, none with traffic: how much memory it takes.

Knows the service's API. Must not know the other contenders: no OpenVPN is needed for this.
"""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address
from typing import Final

from ovpn.dataplane.v1 import (
    common_pb2,
    device_pb2,
    device_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
    peer_pb2,
    peer_pb2_grpc,
    socket_pb2,
    socket_pb2_grpc,
)

from lab.dataplane import DataPlane
from lab.processes import resident_bytes

PEERS: Final = 1000
DEVICE: Final = "crowd"
SOCKET: Final = "udp"
FIRST_INSIDE: Final = IPv4Address("10.9.0.2")
FIRST_OUTSIDE: Final = IPv4Address("198.19.0.1")  # RFC 2544: never sent to
SLOTS: Final = (common_pb2.KEY_SLOT_PRIMARY, common_pb2.KEY_SLOT_SECONDARY)


def resident_with_peers(data_plane: DataPlane, peers: int = PEERS) -> float:
    """Resident bytes of a worker with so many peers, both of whose key slots are filled as after a rekey."""
    devices = device_pb2_grpc.DeviceServiceStub(data_plane.channel)
    device = device_pb2.Device(name=DEVICE, mode=common_pb2.DEVICE_MODE_MP)
    devices.CreateDevice(device_pb2.CreateDeviceRequest(device=device))
    try:
        _add_peers(data_plane, peers)
        found = devices.GetDevice(device_pb2.GetDeviceRequest(name=DEVICE)).device
        return resident_bytes(found.worker_pid)
    finally:
        devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name=DEVICE))


def _add_peers(data_plane: DataPlane, peers: int) -> None:
    sockets = socket_pb2_grpc.SocketServiceStub(data_plane.channel)
    socket = socket_pb2.Socket(device=DEVICE, name=SOCKET, address="0.0.0.0")  # noqa: S104 - in the daemon's namespace
    sockets.CreateSocket(socket_pb2.CreateSocketRequest(socket=socket))
    create = peer_pb2_grpc.PeerServiceStub(data_plane.channel).CreatePeer
    install = key_pb2_grpc.KeyServiceStub(data_plane.channel).InstallKey
    for peer_id in range(peers):
        create(peer_pb2.CreatePeerRequest(peer=_peer(peer_id)))
        for key_id, slot in enumerate(SLOTS):
            install(_key(peer_id, key_id, slot))


def _peer(peer_id: int) -> peer_pb2.Peer:
    return peer_pb2.Peer(
        device=DEVICE,
        peer_id=peer_id,
        socket=SOCKET,
        remote=common_pb2.Endpoint(address=str(FIRST_OUTSIDE + peer_id), port=1194),
        vpn_ipv4=str(FIRST_INSIDE + peer_id),
    )


def _key(peer_id: int, key_id: int, slot: common_pb2.KeySlot) -> key_pb2.InstallKeyRequest:
    return key_pb2.InstallKeyRequest(
        device=DEVICE,
        peer_id=peer_id,
        slot=slot,
        key_id=key_id,
        cipher=common_pb2.CIPHER_AES_GCM,
        encrypt=_direction(),
        decrypt=_direction(),
    )


def _direction() -> key_pb2.KeyDirection:
    return key_pb2.KeyDirection(cipher_key=secrets.token_bytes(32), nonce_tail=secrets.token_bytes(8))
