"""Networks behind clients: stock OpenVPN's `iroute` on a server under the shim."""

from __future__ import annotations

import pytest

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import DEVICE
from lab.pki import Authority
from lab.tunnel import Plan, build
from lab.waiting import wait_until

pytestmark = pytest.mark.root

WIDE, NARROW, IPV6 = "192.168.7.0/24", "192.168.7.128/25", "fd00:7::/64"
IN_WIDE, IN_NARROW, IN_IPV6 = "192.168.7.1", "192.168.7.129", "fd00:7::1"


def test_networks_behind_clients_are_reachable_as_long_as_there_are_routes(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    """OpenVPN makes each `iroute` a kernel route by the client's address in the tunnel; the narrower one goes first."""
    of_clients = lab.directory / "ccd"
    of_clients.mkdir()
    (of_clients / "client0").write_text(f"iroute 192.168.7.0 255.255.255.0\niroute-ipv6 {IPV6}\n")
    (of_clients / "client1").write_text("iroute 192.168.7.128 255.255.255.128\n")
    extra = (f"client-config-dir {of_clients}", "route 192.168.7.0 255.255.255.0", f"route-ipv6 {IPV6}")
    plan = Plan(data_plane=data_plane, offloaded=("server",), clients=2, server_extra=extra)
    tunnel = build(lab, authority, plan)
    first, second = (client.namespace for client in tunnel.clients)
    first.ip("address", "add", IN_WIDE, "dev", "lo")
    first.ip("address", "add", IN_IPV6, "dev", "lo", "nodad")
    second.ip("address", "add", IN_NARROW, "dev", "lo")
    server = tunnel.server.namespace

    def answers(address: str, count: int = 1) -> bool:
        return traffic.ping(lab, server, address, count=count).lost == 0

    for address in (IN_WIDE, IN_NARROW, IN_IPV6):
        assert answers(address, count=50)

    gateway = tunnel.clients[1].vpn_addresses()[0]
    server.ip("route", "del", NARROW, "via", gateway, "dev", DEVICE)
    wait_until(lambda: not answers(IN_NARROW), f"{IN_NARROW} out of reach")
    assert answers(IN_WIDE)
    server.ip("route", "add", NARROW, "via", gateway, "dev", DEVICE)
    wait_until(lambda: answers(IN_NARROW), f"{IN_NARROW} within reach")
