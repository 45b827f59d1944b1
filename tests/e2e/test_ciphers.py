"""Every cipher of the data channel, the service against stock OpenVPN, in either role."""

from __future__ import annotations

import pytest
from ovpn.dataplane.v1 import common_pb2, key_pb2, key_pb2_grpc

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4, Settings
from lab.pki import Authority
from lab.tunnel import Plan, build

pytestmark = pytest.mark.root

AES_GCM, CHACHA20_POLY1305 = common_pb2.CIPHER_AES_GCM, common_pb2.CIPHER_CHACHA20_POLY1305


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize(
    ("cipher", "installed"),
    [
        ("AES-128-GCM", (AES_GCM, 128)),
        ("AES-192-GCM", (AES_GCM, 192)),
        ("AES-256-GCM", (AES_GCM, 256)),
        ("CHACHA20-POLY1305", (CHACHA20_POLY1305, 256)),
    ],
)
def test_the_negotiated_cipher_is_installed_and_carries_packets(
    lab: Lab, authority: Authority, data_plane: DataPlane, cipher: str, role: str, installed: tuple[int, int]
) -> None:
    plan = Plan(settings=Settings(cipher=cipher), data_plane=data_plane, offloaded=(role,))
    tunnel = build(lab, authority, plan)
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=50, size=1400).lost == 0
    assert tunnel.server.status()["client0"].cipher == cipher

    (peer,) = data_plane.all_peers()
    keys = key_pb2_grpc.KeyServiceStub(data_plane.channel)
    request = key_pb2.GetKeyRequest(device=peer.device, peer_id=peer.peer_id, slot=common_pb2.KEY_SLOT_PRIMARY)
    key = keys.GetKey(request, timeout=10).key
    assert (key.cipher, key.key_bits) == installed
    assert key.sent_packet_ids >= 50
