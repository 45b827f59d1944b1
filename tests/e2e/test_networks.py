"""Networks behind clients: stock OpenVPN's `iroute` on a server under the shim; and clients that talk to each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import device_pb2, device_pb2_grpc

from lab import traffic
from lab.dataplane import RPC_SECONDS, DataPlane
from lab.lab import OpenLab
from lab.netns import Namespace
from lab.openvpn import DEVICE
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import wait_until

pytestmark = pytest.mark.root

WIDE, NARROW, IPV6 = "192.168.7.0/24", "192.168.7.128/25", "fd00:7::/64"
IN_WIDE, IN_NARROW, IN_IPV6 = "192.168.7.1", "192.168.7.129", "fd00:7::1"


@pytest.fixture(scope="module")
def tunnel(open_lab: OpenLab, authority: Authority) -> Iterator[Tunnel]:
    """A server under the shim with two clients: WIDE and IPV6 are behind the first, NARROW is behind the second."""
    with open_lab() as lab:
        of_clients = lab.directory / "ccd"
        of_clients.mkdir()
        (of_clients / "client0").write_text(f"iroute 192.168.7.0 255.255.255.0\niroute-ipv6 {IPV6}\n")
        (of_clients / "client1").write_text("iroute 192.168.7.128 255.255.255.128\n")
        extra = (f"client-config-dir {of_clients}", "route 192.168.7.0 255.255.255.0", f"route-ipv6 {IPV6}")
        plan = Plan(data_plane=DataPlane(lab), offloaded=("server",), clients=2, server_extra=extra)
        tunnel = build(lab, authority, plan)
        first, second = (client.namespace for client in tunnel.clients)
        first.ip("address", "add", IN_WIDE, "dev", "lo")
        first.ip("address", "add", IN_IPV6, "dev", "lo", "nodad")
        second.ip("address", "add", IN_NARROW, "dev", "lo")
        yield tunnel


def answers(tunnel: Tunnel, source: Namespace, address: str) -> bool:
    """Whether one ping is answered."""
    return traffic.ping(tunnel.lab, source, address, count=1).lost == 0


@pytest.mark.parametrize("address", [IN_WIDE, IN_NARROW, IN_IPV6])
def test_networks_behind_clients_are_reachable_and_the_narrower_goes_first(tunnel: Tunnel, address: str) -> None:
    """OpenVPN makes each `iroute` a kernel route by the client's address in the tunnel."""
    assert traffic.ping(tunnel.lab, tunnel.server.namespace, address, count=50).lost == 0


def test_a_network_is_reachable_as_long_as_there_is_a_route(tunnel: Tunnel) -> None:
    server, gateway = tunnel.server.namespace, tunnel.clients[1].vpn_addresses()[0]
    server.ip("route", "del", NARROW, "via", gateway, "dev", DEVICE)
    wait_until(lambda: not answers(tunnel, server, IN_NARROW), f"{IN_NARROW} out of reach")
    assert answers(tunnel, server, IN_WIDE)
    server.ip("route", "add", NARROW, "via", gateway, "dev", DEVICE)
    wait_until(lambda: answers(tunnel, server, IN_NARROW), f"{IN_NARROW} within reach")


def test_clients_talk_to_each_other_inside_only_if_told(tunnel: Tunnel) -> None:
    """The server's host forwards nothing."""
    tunnel.lab.run(tunnel.server.namespace, ["sysctl", "-w", "net.ipv4.ip_forward=0"])
    first, second = tunnel.clients
    first.namespace.ip("route", "add", NARROW, "dev", DEVICE)
    neighbours = second.vpn_addresses()[0], IN_NARROW
    assert [answers(tunnel, first.namespace, address) for address in neighbours] == [False, False]
    assert tunnel.plan.data_plane is not None
    (device,) = tunnel.plan.data_plane.devices()
    change = device_pb2.UpdateDeviceRequest(
        device=device_pb2.Device(name=device.name, client_to_client=True),
        update_mask=FieldMask(paths=["client_to_client"]),
    )
    device_pb2_grpc.DeviceServiceStub(tunnel.plan.data_plane.channel).UpdateDevice(change, timeout=RPC_SECONDS)
    for address in neighbours:
        assert traffic.ping(tunnel.lab, first.namespace, address, count=50).lost == 0
    assert answers(tunnel, first.namespace, "10.8.0.1")
