"""Two devices of one daemon that are linked by gRPC alone, with no OpenVPN anywhere. Knows the contract.

"server" is MP at 10.8.0.1 and serves peer 1, the client; "client" is P2P at 10.8.0.2 and serves peer 2, the server.
Each has a namespace and in it one UDP socket, bound to every address; the namespaces have a link.
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

from lab.dataplane import RPC_SECONDS, DataPlane
from lab.lab import Lab

SERVER: Final = "server"
CLIENT: Final = "client"
PEER_IDS: Final = {SERVER: 1, CLIENT: 2}
VPN_IPV4: Final = {SERVER: "10.8.0.1", CLIENT: "10.8.0.2"}
PORT: Final = 1194
MODES: Final = {SERVER: common_pb2.DEVICE_MODE_MP, CLIENT: common_pb2.DEVICE_MODE_P2P}


class Pair:
    """The linked devices. Keys are random."""

    def __init__(self, lab: Lab, data_plane: DataPlane) -> None:
        self.devices = device_pb2_grpc.DeviceServiceStub(data_plane.channel)
        self.peers = peer_pb2_grpc.PeerServiceStub(data_plane.channel)
        self.namespaces = {name: lab.namespace(name) for name in MODES}
        self.link = lab.link(*self.namespaces.values())
        sockets = socket_pb2_grpc.SocketServiceStub(data_plane.channel)
        for name, mode in MODES.items():
            path = f"/run/netns/{self.namespaces[name].name}"
            device = device_pb2.Device(name=name, interface_name="tun0", mode=mode, network_namespace=path)
            device.addresses.append(f"{VPN_IPV4[name]}/24")
            device.admin_up = True
            self.devices.CreateDevice(device_pb2.CreateDeviceRequest(device=device), timeout=RPC_SECONDS)
            socket = socket_pb2.Socket(device=name, name="udp", address=str(IPv4Address(0)), port=PORT)
            sockets.CreateSocket(
                socket_pb2.CreateSocketRequest(socket=socket, network_namespace=path), timeout=RPC_SECONDS
            )
        self._add_peer(SERVER, self.link.ipv4(2), tx_id=PEER_IDS[CLIENT], vpn_ipv4=VPN_IPV4[CLIENT])
        self._add_peer(CLIENT, self.link.ipv4(1), tx_id=PEER_IDS[SERVER])
        self._install_keys(key_pb2_grpc.KeyServiceStub(data_plane.channel))

    def update(self, device: str, *paths: str, **fields: object) -> None:
        """Gives the peer of a device new values for these paths; those that are not among the fields are emptied."""
        request = peer_pb2.UpdatePeerRequest(peer=peer_pb2.Peer(device=device, peer_id=PEER_IDS[device], **fields))  # type: ignore[arg-type]
        request.update_mask.paths.extend(paths)
        self.peers.UpdatePeer(request, timeout=RPC_SECONDS)

    def peer(self, device: str) -> peer_pb2.Peer:
        """What the service tells of the peer of a device."""
        request = peer_pb2.GetPeerRequest(device=device, peer_id=PEER_IDS[device])
        return self.peers.GetPeer(request, timeout=RPC_SECONDS).peer

    def delete(self) -> None:
        """Deletes both devices with all that they have."""
        for name in MODES:
            self.devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name=name), timeout=RPC_SECONDS)

    def _add_peer(self, device: str, address: str, **fields: object) -> None:
        peer = peer_pb2.Peer(device=device, peer_id=PEER_IDS[device], socket="udp", **fields)  # type: ignore[arg-type]
        peer.remote.CopyFrom(endpoint(address))
        self.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=peer), timeout=RPC_SECONDS)

    def _install_keys(self, keys: key_pb2_grpc.KeyServiceStub) -> None:
        directions = [
            key_pb2.KeyDirection(cipher_key=secrets.token_bytes(32), nonce_tail=secrets.token_bytes(8)) for _ in MODES
        ]
        for device, (encrypt, decrypt) in zip(MODES, (directions, directions[::-1]), strict=True):
            request = key_pb2.InstallKeyRequest(
                device=device,
                peer_id=PEER_IDS[device],
                slot=common_pb2.KEY_SLOT_PRIMARY,
                cipher=common_pb2.CIPHER_AES_GCM,
                encrypt=encrypt,
                decrypt=decrypt,
            )
            keys.InstallKey(request, timeout=RPC_SECONDS)


def endpoint(address: str) -> common_pb2.Endpoint:
    """The end of a device at this address."""
    return common_pb2.Endpoint(address=address, port=PORT)
