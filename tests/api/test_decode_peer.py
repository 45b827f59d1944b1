"""What the engine is asked for by PeerService's requests."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import peer_pb2

from dataplane.api import decode_peer
from dataplane.api.violations import InvalidRequest
from dataplane.engine.types import UNSET, Endpoint, PeerChange, PeerSpec
from dataplane.vocabulary import Mode
from tests.api.conftest import peer_message

CURRENT = PeerSpec(
    "d", 1, "s", Endpoint(IPv4Address("198.51.100.7"), 1), IPv4Address("192.0.2.1"), vpn_ipv4=IPv4Address("10.8.0.2")
)


def change_of(peer: peer_pb2.Peer, *paths: str, mode: Mode = Mode.MP) -> PeerChange:
    request = peer_pb2.UpdatePeerRequest(peer=peer, update_mask=FieldMask(paths=paths))
    device, peer_id, change = decode_peer.decode_change(request, mode, CURRENT)
    assert (device, peer_id) == ("d", 1)
    return change


def test_all_settings_of_a_peer_are_taken() -> None:
    peer = peer_message(
        peer_id=0,
        remote__address="fe80::7",
        remote__scope_id=2,
        local_address="fe80::1",
        vpn_ipv6="fd00::2",
        keepalive_interval=Duration(seconds=10),
        keepalive_timeout=Duration(seconds=120),
        tcp_mss_ipv4=0,
        tcp_mss_ipv6=1360,
    )
    assert decode_peer.decode_creation(peer, Mode.MP) == PeerSpec(
        device="d",
        peer_id=0,
        socket="s",
        remote=Endpoint(IPv6Address("fe80::7"), 40001, 2),
        local_address=IPv6Address("fe80::1"),
        vpn_ipv4=IPv4Address("10.8.0.2"),
        vpn_ipv6=IPv6Address("fd00::2"),
        keepalive_interval_s=10,
        keepalive_timeout_s=120,
        tcp_mss_ipv4=0,
        tcp_mss_ipv6=1360,
    )


def test_what_is_not_given_is_none() -> None:
    spec = decode_peer.decode_creation(peer_message(vpn_ipv4=None), Mode.P2P)
    assert spec == PeerSpec("d", 1, "s", Endpoint(IPv4Address("198.51.100.7"), 40001))


def test_without_a_device_the_rules_of_its_mode_are_left_out() -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode_peer.decode_creation(peer_message(device="a b", vpn_ipv4=None), None)
    assert [violation.field for violation in raised.value.violations] == ["peer.device"]


def test_a_change_holds_what_the_mask_names() -> None:
    change = change_of(peer_message(keepalive_timeout=Duration(seconds=5)), "keepalive_timeout", "local_address")
    assert change == PeerChange(local_address=None, keepalive_timeout_s=5)
    assert change.remote is UNSET


def test_a_rule_is_checked_against_what_will_be_not_what_is_given() -> None:
    change_of(peer_message(vpn_ipv4=None, vpn_ipv6="fd00::2"), "vpn_ipv6")
    change_of(peer_message(vpn_ipv4=None, vpn_ipv6="fd00::2"), "vpn_ipv6", "vpn_ipv4")
    with pytest.raises(InvalidRequest):
        change_of(peer_message(vpn_ipv4=None, vpn_ipv6="fd00::2"), "vpn_ipv4")


def test_a_malformed_address_is_not_reported_as_a_missing_one_too() -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode_peer.decode_creation(peer_message(vpn_ipv4="x"), Mode.MP)
    assert [violation.description for violation in raised.value.violations] == ["must be an IPv4 address; is 'x'"]


def routes_of(*routes: str, mode: Mode = Mode.MP) -> tuple[str, ...]:
    peer = peer_message(routes=list(routes))
    if mode is Mode.P2P:
        peer.vpn_ipv4 = ""
    return tuple(map(str, decode_peer.decode_creation(peer, mode).routes))


def refusal_of(*routes: str, mode: Mode = Mode.MP) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as raised:
        routes_of(*routes, mode=mode)
    (violation,) = raised.value.violations
    return violation.field, violation.description


def test_networks_behind_a_peer_are_taken_in_order() -> None:
    assert routes_of("192.168.7.0/24", "FD00:7::/48", "0.0.0.0/0", "::/0", "10.1.1.1/32") == (
        "192.168.7.0/24",
        "fd00:7::/48",
        "0.0.0.0/0",
        "::/0",
        "10.1.1.1/32",
    )


@pytest.mark.parametrize(
    "route",
    ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::%eth0/64", "224.0.0.0/4", "ff02::/16"],
)
def test_what_is_no_network_behind_a_peer_is_refused_by_its_place(route: str) -> None:
    assert refusal_of("10.1.0.0/16", route)[0] == "peer.routes[1]"


def test_a_network_stands_there_once() -> None:
    rule = "must differ from the others; 10.0.0.0/8 is there twice"
    assert refusal_of("10.0.0.0/8", "10.0.0.0/8") == ("peer.routes[1]", rule)


def test_a_peer_has_256_networks_at_most() -> None:
    networks = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(257)]
    assert len(routes_of(*networks[:256])) == 256
    assert refusal_of(*networks) == ("peer.routes", "must be 256 networks at most; are 257")


def test_a_p2p_peer_has_no_networks() -> None:
    rule = "must be empty on a P2P device: all packets go to its one peer"
    assert refusal_of("10.0.0.0/8", mode=Mode.P2P) == ("peer.routes", rule)


def test_an_update_empties_the_networks_that_it_names_and_does_not_give() -> None:
    assert change_of(peer_message(), "routes").routes == ()
