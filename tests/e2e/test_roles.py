"""The shim before the server (with two stock clients), before the client, and before both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ovpn.dataplane.v1 import common_pb2

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import OpenLab
from lab.openvpn import SERVER_VPN_IPV4, SERVER_VPN_IPV6
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=[("server",), ("client",), ("server", "client")], ids="-".join)
def tunnel(request: pytest.FixtureRequest, open_lab: OpenLab, authority: Authority) -> Iterator[Tunnel]:
    clients = 1 if "client" in request.param else 2
    with open_lab() as lab:
        yield build(lab, authority, Plan(data_plane=DataPlane(lab), offloaded=request.param, clients=clients))


@pytest.mark.parametrize("address", [SERVER_VPN_IPV4, SERVER_VPN_IPV6])
def test_every_client_reaches_the_server(tunnel: Tunnel, address: str) -> None:
    for client in tunnel.clients:
        assert traffic.ping(tunnel.lab, client.namespace, address, count=50).lost == 0


def test_the_server_reaches_every_address_of_every_client(tunnel: Tunnel) -> None:
    for client in tunnel.clients:
        for address in client.vpn_addresses():
            assert traffic.ping(tunnel.lab, tunnel.server.namespace, address).lost == 0


@pytest.mark.parametrize("size", [1, 1400, 1472, 4000])
def test_packets_of_any_size_pass(tunnel: Tunnel, size: int) -> None:
    """1472 fills the MTU of the tunnel, 4000 is fragmented before it."""
    for client in tunnel.clients:
        assert traffic.ping(tunnel.lab, client.namespace, SERVER_VPN_IPV4, size=size).lost == 0


def test_exactly_the_ends_under_the_shim_say_that_they_are_offloaded(tunnel: Tunnel) -> None:
    assert bool(tunnel.server.dco_line()) == ("server" in tunnel.plan.offloaded)
    for client in tunnel.clients:
        assert bool(client.dco_line()) == ("client" in tunnel.plan.offloaded)


def test_each_end_under_the_shim_has_a_device_with_its_peers(tunnel: Tunnel) -> None:
    whole = {
        "server": (common_pb2.DEVICE_MODE_MP, len(tunnel.clients)),
        "client": (common_pb2.DEVICE_MODE_P2P, 1),
    }
    assert tunnel.plan.data_plane is not None
    devices = [(device.mode, device.peer_count) for device in tunnel.plan.data_plane.devices()]
    assert sorted(devices) == sorted(whole[role] for role in tunnel.plan.offloaded)
