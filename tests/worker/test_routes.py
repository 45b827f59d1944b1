"""Routes and switches, through a real worker: networks, peer to peer, multicast, the source check."""

from __future__ import annotations

import select
from collections.abc import Iterable
from ipaddress import ip_network

import pytest

from dataplane.messages import ROUTES_MAX, DeleteKey, RemovePeer, Route, SetRoutes, SetSwitches
from dataplane.vocabulary import Column, DropReason, KeySlot, RouteTarget
from tests.tun.conftest import ipv4_udp
from tests.worker.conftest import HOST, Device, FarPeer, install_key

pytestmark = pytest.mark.root


def lead(device: Device, target: int, *networks: str) -> None:
    """Has networks lead somewhere."""
    prefixes = [ip_network(network) for network in networks]
    routes = tuple(Route(prefix.network_address.packed, prefix.prefixlen, target) for prefix in prefixes)
    device.worker.do(SetRoutes(routes))


def relay(device: Device, *, skip_source_check: bool = False) -> None:
    """Switches client_to_client on."""
    device.worker.do(SetSwitches(skip_source_check=skip_source_check, client_to_client=True))


def packet(source: str, destination: str, payload: bytes) -> bytes:
    return ipv4_udp((source, 7), (destination, 9), payload)


def silent(device: Device, *fars: FarPeer) -> bool:
    """Whether nothing has come to the application nor to these peers."""
    device.worker.settle()
    return select.select([device.application, *(far.udp for far in fars)], [], [], 0) == ([], [], [])


def count(device: Device, row: int, columns: Iterable[Column]) -> list[int]:
    device.worker.settle()
    return [device.page.snapshot(row)[column] for column in columns]


def test_a_network_behind_a_peer_is_reached_and_may_answer(device: Device) -> None:
    first, second = device.add_peer(1), device.add_peer(2)
    lead(device, 1, "10.8.0.64/26")
    lead(device, 2, "10.8.0.96/27")
    device.say(b"wide", to="10.8.0.70")
    device.say(b"narrow", to="10.8.0.100")
    assert (first.hear()[28:], second.hear()[28:]) == (b"wide", b"narrow")
    second.say(b"answer", source="10.8.0.100")
    assert device.application.recv(100) == b"answer"
    first.say(b"pretence", source="10.8.0.100")
    assert device.drops(1) == {DropReason.RX_SOURCE_CHECK: 1}
    lead(device, RouteTarget.NOBODY, "10.8.0.96/27")
    device.say(b"wide again", to="10.8.0.100")
    assert first.hear()[28:] == b"wide again"


def test_a_peer_takes_its_networks_with_it(device: Device) -> None:
    device.add_peer(1)
    lead(device, 1, "10.8.0.64/26")
    device.worker.do(RemovePeer(1))
    device.say(b"anybody?", to="10.8.0.70")
    assert device.drops(0) == {DropReason.TX_NO_PEER: 1}


def test_as_many_routes_as_a_message_holds_are_taken(device: Device) -> None:
    far = device.add_peer(1)
    addresses = [f"fd00:{number:x}::/48" for number in range(ROUTES_MAX - 1)]
    lead(device, 1, *addresses, "10.8.0.70/32")
    device.say(b"the last", to="10.8.0.70")
    assert far.hear()[28:] == b"the last"


def test_peers_talk_to_each_other_inside_and_both_are_counted(device: Device) -> None:
    first, second = device.add_peer(1), device.add_peer(2)
    relay(device)
    inner = packet(first.vpn_ipv4, second.vpn_ipv4, b"hello, neighbour")
    for _ in range(3):
        first.send(inner)
        assert second.hear() == inner
    assert silent(device, first, second)
    assert count(device, 1, [Column.VPN_RX_PACKETS, Column.VPN_RX_BYTES]) == [3, 3 * len(inner)]
    assert count(device, 2, [Column.VPN_TX_PACKETS, Column.VPN_TX_BYTES]) == [3, 3 * len(inner)]
    assert count(device, 2, [Column.LINK_TX_PACKETS]) == [3]


def test_what_is_for_the_host_still_comes_out_of_the_device(device: Device) -> None:
    far = device.add_peer(1)
    relay(device)
    far.say(b"to the host")
    assert device.application.recv(100) == b"to the host"


def test_many_packets_between_peers_arrive_in_order(device: Device) -> None:
    first, second = device.add_peer(1), device.add_peer(2)
    relay(device)
    packets = [packet(first.vpn_ipv4, second.vpn_ipv4, bytes([number]) * 1200) for number in range(40)]
    for _ in range(4):
        for inner in packets:
            first.send(inner)
        assert [second.hear() for _ in packets] == packets


def test_the_source_check_goes_before_peer_to_peer(device: Device) -> None:
    first, second = device.add_peer(1), device.add_peer(2)
    relay(device)
    first.send(packet("10.8.0.99", second.vpn_ipv4, b"who am I?"))
    assert device.drops(1) == {DropReason.RX_SOURCE_CHECK: 1}
    relay(device, skip_source_check=True)
    first.send(packet("10.8.0.99", second.vpn_ipv4, b"never mind"))
    assert second.hear()[28:] == b"never mind"


def test_packets_that_came_before_their_key_go_from_peer_to_peer_too(device: Device) -> None:
    first, second = device.add_peer(1), device.add_peer(2)
    relay(device)
    device.worker.do(DeleteKey(1, KeySlot.PRIMARY))
    inner = packet(first.vpn_ipv4, second.vpn_ipv4, b"early")
    first.send(inner)
    assert silent(device, second)
    device.worker.do(install_key(1))
    assert second.hear() == inner


def test_multicast_of_the_device_goes_to_all_peers(device: Device) -> None:
    fars = [device.add_peer(number) for number in (1, 2, 3)]
    lead(device, RouteTarget.EVERYONE, "10.8.0.255/32", "10.8.0.200/32")
    device.say(b"hear ye", to="10.8.0.200")
    assert [far.hear()[28:] for far in fars] == [b"hear ye"] * 3
    assert count(device, 2, [Column.VPN_TX_PACKETS]) == [1]
    assert silent(device, *fars)


def test_multicast_of_a_peer_goes_to_the_others_and_to_the_device(device: Device) -> None:
    fars = [device.add_peer(number) for number in (1, 2, 3)]
    relay(device)
    lead(device, RouteTarget.EVERYONE, f"{HOST}/32")  # an address at which the application hears
    fars[1].say(b"hear ye")
    assert device.application.recv(100) == b"hear ye"
    assert [far.hear()[28:] for far in (fars[0], fars[2])] == [b"hear ye"] * 2
    assert silent(device, *fars)
    assert count(device, 2, [Column.VPN_RX_PACKETS, Column.VPN_TX_PACKETS]) == [1, 0]
