"""IPv4 and IPv6 outside and inside, and a server with several addresses."""

from __future__ import annotations

import pytest

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4, SERVER_VPN_IPV6, Settings, start_client, start_server
from lab.pki import Authority
from lab.tunnel import Plan, build

pytestmark = pytest.mark.root


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("outer_ipv6", [False, True], ids=["over IPv4", "over IPv6"])
def test_both_families_pass_inside_over_either_family_outside(
    lab: Lab, authority: Authority, data_plane: DataPlane, outer_ipv6: bool, role: str
) -> None:
    plan = Plan(settings=Settings(outer_ipv6=outer_ipv6), data_plane=data_plane, offloaded=(role,))
    tunnel = build(lab, authority, plan)
    for address in (SERVER_VPN_IPV4, SERVER_VPN_IPV6):
        assert traffic.ping(lab, tunnel.client.namespace, address, count=50).lost == 0
    (peer,) = data_plane.all_peers()
    assert (":" in peer.remote.address) == outer_ipv6


def test_a_server_without_ipv6_inside_serves_ipv4(lab: Lab, authority: Authority, data_plane: DataPlane) -> None:
    plan = Plan(settings=Settings(inner_ipv6=False), data_plane=data_plane, offloaded=("server", "client"))
    tunnel = build(lab, authority, plan)
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=50).lost == 0
    assert [peer.vpn_ipv6 for peer in data_plane.all_peers()] == ["", ""]


def test_a_dual_stack_server_serves_clients_of_both_families_on_one_socket(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    namespace, first, second = (lab.namespace(name) for name in ("server", "first", "second"))
    links = lab.link(namespace, first), lab.link(namespace, second)
    ipv4, ipv6 = Settings(), Settings(outer_ipv6=True)
    front = data_plane.front(lab.directory / "server-shim.log")
    start_server(lab, namespace, authority.server(), ipv6, front=front).wait_initialized()
    start_client(lab, first, authority.client("first"), ipv4, links[0].ipv4(1), label="first").wait_initialized()
    start_client(lab, second, authority.client("second"), ipv6, links[1].ipv6(1), label="second").wait_initialized()
    for client in (first, second):
        traffic.wait_reachable(lab, client, SERVER_VPN_IPV4)
        assert traffic.ping(lab, client, SERVER_VPN_IPV4, count=50).lost == 0
    remotes = {peer.remote.address for peer in data_plane.all_peers()}
    assert remotes == {links[0].ipv4(2), links[1].ipv6(2)}


@pytest.mark.parametrize("outer_ipv6", [False, True], ids=["over IPv4", "over IPv6"])
def test_a_multihomed_server_answers_from_the_address_that_was_called(
    lab: Lab, authority: Authority, data_plane: DataPlane, outer_ipv6: bool
) -> None:
    """The kernel alone would answer from the first address, and the client would drop that."""
    namespace, client_namespace = lab.namespace("server"), lab.namespace("client")
    link = lab.link(namespace, client_namespace)
    link.add_address(namespace, "to-1a", 11)
    called = link.ipv6(11) if outer_ipv6 else link.ipv4(11)
    settings = Settings(outer_ipv6=outer_ipv6)
    front = data_plane.front(lab.directory / "server-shim.log")
    server = start_server(lab, namespace, authority.server(), settings, front=front, extra=("multihome",))
    server.wait_initialized()

    client = start_client(lab, client_namespace, authority.client(), settings, called)
    client.wait_initialized()
    traffic.wait_reachable(lab, client_namespace, SERVER_VPN_IPV4)
    assert traffic.ping(lab, client_namespace, SERVER_VPN_IPV4, count=50).lost == 0
    assert traffic.ping(lab, namespace, client.vpn_addresses()[0], count=50).lost == 0
    (peer,) = data_plane.all_peers()
    assert peer.local_address == called
