"""Counters to the byte: what was sent, what the service counts, what OpenVPN tells its operator."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from ovpn.dataplane.v1 import common_pb2

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import DEVICE, SERVER_VPN_IPV4, Server, Settings
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build

pytestmark = pytest.mark.root

QUIET = Settings(keepalive=(600, 1200), inner_ipv6=False)
"""No keepalive is sent while the test runs."""

PINGS = 40
PAYLOAD = 300
IP_BYTES = 20 + 8 + PAYLOAD
LINK_BYTES = IP_BYTES + 24
"""An OpenVPN DATA_V2 packet: opcode and peer-id (4), packet-id (4), tag (16), then the IP packet."""


@pytest.fixture
def tunnel(lab: Lab, authority: Authority, data_plane: DataPlane) -> Tunnel:
    tunnel = build(lab, authority, Plan(settings=QUIET, data_plane=data_plane, offloaded=("server", "client")))
    for end in (tunnel.server, tunnel.client):
        end.namespace.ip("-6", "address", "flush", "dev", DEVICE)  # or the kernel solicits routers, now and then
    return tunnel


@dataclass(frozen=True, slots=True)
class Sample:
    """The server's view of its client: the service's counters and OpenVPN's own."""

    service: common_pb2.PeerCounters
    received: int
    sent: int


def sample(data_plane: DataPlane, server: Server) -> Sample:
    (device,) = (device for device in data_plane.devices() if device.mode == common_pb2.DEVICE_MODE_MP)
    (peer,) = data_plane.peers(device.name)
    client = server.status()["client0"]
    return Sample(peer.counters, client.bytes_received, client.bytes_sent)


def growth(before: common_pb2.TrafficCounter, after: common_pb2.TrafficCounter) -> tuple[int, int]:
    return after.packets - before.packets, after.bytes - before.bytes


def test_the_service_counts_exactly_the_pings_that_were_sent(lab: Lab, data_plane: DataPlane, tunnel: Tunnel) -> None:
    before = sample(data_plane, tunnel.server).service
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=PINGS, size=PAYLOAD).lost == 0
    after = sample(data_plane, tunnel.server).service
    assert growth(before.vpn_rx, after.vpn_rx) == growth(before.vpn_tx, after.vpn_tx) == (PINGS, PINGS * IP_BYTES)
    assert growth(before.link_rx, after.link_rx) == growth(before.link_tx, after.link_tx) == (PINGS, PINGS * LINK_BYTES)


def test_openvpn_tells_its_operator_the_same_bytes(lab: Lab, data_plane: DataPlane, tunnel: Tunnel) -> None:
    """OpenVPN adds what it sent itself, the control channel, which is silent meanwhile."""
    before = sample(data_plane, tunnel.server)
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=PINGS, size=PAYLOAD).lost == 0
    after = sample(data_plane, tunnel.server)
    assert after.received - before.received == after.sent - before.sent == PINGS * LINK_BYTES
    assert after.received - after.service.link_rx.bytes == before.received - before.service.link_rx.bytes
    assert after.sent - after.service.link_tx.bytes == before.sent - before.service.link_tx.bytes


def test_a_client_tells_its_operator_the_same_bytes(lab: Lab, tunnel: Tunnel) -> None:
    before = tunnel.client.link_bytes()
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=PINGS, size=PAYLOAD).lost == 0
    after = tunnel.client.link_bytes()
    assert [new - old for old, new in zip(before, after, strict=True)] == [PINGS * LINK_BYTES] * 2


def test_both_ends_of_a_tunnel_count_the_same_packets(lab: Lab, data_plane: DataPlane, tunnel: Tunnel) -> None:
    before = [peer.counters for peer in data_plane.all_peers()]
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=PINGS, size=PAYLOAD).lost == 0
    after = [peer.counters for peer in data_plane.all_peers()]
    names = ("link_rx", "vpn_rx", "link_tx", "vpn_tx")
    here, there = (
        [growth(getattr(old, name), getattr(new, name)) for name in names]
        for old, new in zip(before, after, strict=True)
    )
    assert here == there[2:] + there[:2]
    assert [old.drops for old in before] == [new.drops for new in after]
