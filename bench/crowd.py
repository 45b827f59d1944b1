"""Many peers on one device, all with keys, none with traffic.

Knows the service's API. Must not know the contenders: no OpenVPN is needed for this.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
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
FIRST_OUTSIDE: Final = IPv4Address("198.18.0.1")  # RFC 2544: never sent to
FIRST_PEER_ID: Final = 1 << 16  # above those that OpenVPN gives
SLOTS: Final = (common_pb2.KEY_SLOT_PRIMARY, common_pb2.KEY_SLOT_SECONDARY)


def resident_with_peers(data_plane: DataPlane, peers: int = PEERS) -> float:
    """Resident bytes of a worker with so many peers, both of whose key slots are filled as after a rekey."""
    with crowded_device(data_plane) as crowd:
        crowd.create(peers)
        crowd.install_keys(peers)
        return resident_bytes(crowd.worker_pid())


@contextmanager
def crowded_device(data_plane: DataPlane) -> Iterator[Crowd]:
    """A device with a socket and room for a crowd; deleted in the end."""
    devices = device_pb2_grpc.DeviceServiceStub(data_plane.channel)
    device = device_pb2.Device(name=DEVICE, mode=common_pb2.DEVICE_MODE_MP)
    devices.CreateDevice(device_pb2.CreateDeviceRequest(device=device))
    try:
        sockets = socket_pb2_grpc.SocketServiceStub(data_plane.channel)
        socket = socket_pb2.Socket(device=DEVICE, name=SOCKET, address="0.0.0.0")  # noqa: S104 - in the daemon's namespace
        sockets.CreateSocket(socket_pb2.CreateSocketRequest(socket=socket))
        yield Crowd(data_plane, DEVICE, SOCKET)
    finally:
        devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name=DEVICE))


class Crowd:
    """Peers that are made on a device, beside those that it may have. Each call is one after the other."""

    def __init__(self, data_plane: DataPlane, device: str, socket: str) -> None:
        self._devices = device_pb2_grpc.DeviceServiceStub(data_plane.channel)
        self._peers = peer_pb2_grpc.PeerServiceStub(data_plane.channel)
        self._keys = key_pb2_grpc.KeyServiceStub(data_plane.channel)
        self._device = device
        self._socket = socket

    def worker_pid(self) -> int:
        """Process of the device's worker."""
        return self._devices.GetDevice(device_pb2.GetDeviceRequest(name=self._device)).device.worker_pid

    def create(self, peers: int) -> None:
        """Creates so many peers."""
        for number in range(peers):
            peer = peer_pb2.Peer(
                device=self._device,
                peer_id=FIRST_PEER_ID + number,
                socket=self._socket,
                remote=common_pb2.Endpoint(address=str(FIRST_OUTSIDE + number), port=1194),
                vpn_ipv4=str(FIRST_INSIDE + number),
            )
            self._peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=peer))

    def install_keys(self, peers: int) -> None:
        """Fills both key slots of each."""
        for number in range(peers):
            for key_id, slot in enumerate(SLOTS):
                self._keys.InstallKey(self._key(FIRST_PEER_ID + number, key_id, slot))

    def count(self) -> int:
        """Lists all peers of the device, with their counters."""
        return sum(1 for _ in self._peers.StreamPeers(peer_pb2.StreamPeersRequest(device=self._device)))

    def delete(self, peers: int) -> None:
        """Deletes them again."""
        for number in range(peers):
            self._peers.DeletePeer(peer_pb2.DeletePeerRequest(device=self._device, peer_id=FIRST_PEER_ID + number))

    def _key(self, peer_id: int, key_id: int, slot: common_pb2.KeySlot) -> key_pb2.InstallKeyRequest:
        return key_pb2.InstallKeyRequest(
            device=self._device,
            peer_id=peer_id,
            slot=slot,
            key_id=key_id,
            cipher=common_pb2.CIPHER_AES_GCM,
            encrypt=_direction(),
            decrypt=_direction(),
        )


def _direction() -> key_pb2.KeyDirection:
    return key_pb2.KeyDirection(cipher_key=secrets.token_bytes(32), nonce_tail=secrets.token_bytes(8))
