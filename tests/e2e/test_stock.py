"""Stock OpenVPN at both ends: the laboratory itself works, whatever the service does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import traffic
from lab.lab import OpenLab
from lab.openvpn import SERVER_VPN_IPV4, SERVER_VPN_IPV6, Settings
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build

pytestmark = [pytest.mark.root, pytest.mark.one_datapath]


@pytest.fixture(scope="module")
def tunnel(open_lab: OpenLab, authority: Authority) -> Iterator[Tunnel]:
    with open_lab() as lab:
        yield build(lab, authority, Plan(clients=2))


@pytest.mark.parametrize("address", [SERVER_VPN_IPV4, SERVER_VPN_IPV6])
def test_every_client_reaches_the_server(tunnel: Tunnel, address: str) -> None:
    for client in tunnel.clients:
        assert traffic.ping(tunnel.lab, client.namespace, address).lost == 0


def test_the_server_lists_both_clients(tunnel: Tunnel) -> None:
    clients = tunnel.server.status()
    assert set(clients) == {"client0", "client1"}
    assert {client.cipher for client in clients.values()} == {Settings().cipher}


def test_no_end_says_that_it_is_offloaded(tunnel: Tunnel) -> None:
    assert [end.dco_line() for end in (tunnel.server, *tunnel.clients)] == ["", "", ""]


def test_clients_are_on_links_of_their_own(tunnel: Tunnel) -> None:
    first, second = tunnel.links
    assert traffic.ping(tunnel.lab, first.b, first.ipv4(1), count=1).lost == 0
    assert first.b.links() == ["to-1b", "tun0"]
    assert second.b.links() == ["to-2b", "tun0"]
