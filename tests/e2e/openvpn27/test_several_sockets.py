"""An OpenVPN 2.7 server that listens over UDP and TCP at once, as 2.6 cannot: clients of both kinds on one device."""

from __future__ import annotations

import pytest

from lab import openvpn27, traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4, Settings, start_client, start_server
from lab.pki import Authority
from lab.traffic import Pinging

pytestmark = [pytest.mark.root, pytest.mark.one_datapath]

TRANSPORTS = ("udp", "tcp", "udp", "tcp")


@pytest.mark.parametrize("shim", [False, True], ids=["stock", "shim"])
def test_clients_over_udp_and_tcp_share_a_server(
    lab: Lab, authority: Authority, data_plane: DataPlane, shim: bool
) -> None:
    near, program = lab.namespace("server"), openvpn27.program()
    server = start_server(
        lab,
        near,
        authority.server(),
        Settings(reneg_seconds=5, verb=4),
        front=data_plane.front(lab.directory / "shim.log") if shim else None,
        program=program,
        extra=("local * 1194 udp4", "local * 1194 tcp4-server"),
    )
    server.wait_initialized()
    clients, pings = [], []
    for number, transport in enumerate(TRANSPORTS):
        name = f"client{number}"
        link = lab.link(near, lab.namespace(name))
        settings = Settings(tcp=transport == "tcp")
        client = start_client(lab, link.b, authority.client(name), settings, link.ipv4(1), program=program, label=name)
        client.wait_initialized()
        traffic.wait_reachable(lab, link.b, SERVER_VPN_IPV4)
        clients.append(client)
        pings.append(Pinging(lab, link.b, SERVER_VPN_IPV4, count=140, interval_seconds=0.05, label=f"{name}-ping"))
    assert [ping.result().lost for ping in pings] == [0] * len(TRANSPORTS)
    for client in clients:
        for address in client.vpn_addresses():
            assert traffic.ping(lab, near, address).lost == 0
    assert [device.peer_count for device in data_plane.devices()] == ([len(TRANSPORTS)] if shim else [])
    assert bool(server.dco_line()) == shim
