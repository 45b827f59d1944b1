"""Packets to several peers, and from peer to peer."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from dataplane.statistics_page import drops_of
from dataplane.vocabulary import Column, DropReason, KeySlot, RouteTarget

if TYPE_CHECKING:
    from dataplane.datachannel.peer import Peer
    from tests.datachannel.conftest import FarEnd, Maker, Tunnel

GROUPS = ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")


class Crowd:
    """A device with peers 1, 2 and 3 at 10.8.0.2, .3 and .4, of which each has a key."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self.channel = tunnel.channel
        self.peers: list[Peer] = [tunnel.peer, tunnel.add_peer(2, "10.8.0.3"), tunnel.add_peer(3, "10.8.0.4")]
        self.fars: list[FarEnd] = [
            tunnel.far,
            tunnel.install(2, KeySlot.PRIMARY, key_id=0),
            tunnel.install(3, KeySlot.PRIMARY, key_id=0),
        ]

    def route(self, network: str, target: int) -> None:
        """Has a network lead somewhere."""
        prefix = ip_network(network)
        self.channel.set_route((prefix.network_address.packed, prefix.prefixlen), target)

    def opened(self, sealed: list[tuple[Peer, bytes]]) -> list[tuple[int, bytes]]:
        """Who gets what: peer_id and IP packet."""
        return [(peer.peer_id, self.fars[peer.peer_id - 1].open(datagram)[2]) for peer, datagram in sealed]

    def send(self, *packets: bytes) -> list[tuple[int, bytes]]:
        """Who gets what of these packets of the device."""
        return self.opened(self.channel.seal_batch(packets, 1))

    def relay(self, sender: int, *packets: bytes) -> tuple[list[bytes], list[tuple[int, bytes]]]:
        """What the device gets of packets of a peer, and what other peers get."""
        remote = self.peers[sender - 1].remote
        batch = [(self.fars[sender - 1].seal(packet, peer_id=sender), remote, None) for packet in packets]
        for_device, sealed = self.channel.relay(self.channel.open_batch(7, batch, 1), 1)
        return [packet for _, packet in for_device], self.opened(sealed)

    def count(self, peer_id: int, column: Column) -> int:
        """A counter of a peer."""
        return self.peers[peer_id - 1].row[column]


@pytest.fixture
def crowd(tunnel: Tunnel) -> Crowd:
    return Crowd(tunnel)


# From the device


@pytest.mark.parametrize("destination", ["224.0.0.251", "255.255.255.255", "ff02::fb", "10.8.0.255"])
def test_a_packet_for_everyone_goes_to_each_peer_once(make: Maker, crowd: Crowd, destination: str) -> None:
    for group in (*GROUPS, "10.8.0.255/32"):
        crowd.route(group, RouteTarget.EVERYONE)
    packet = make.ip_packet("fd00::1" if ":" in destination else "10.8.0.1", destination, b"hear ye")
    assert crowd.send(packet) == [(1, packet), (2, packet), (3, packet)]
    assert [crowd.count(peer_id, Column.VPN_TX_PACKETS) for peer_id in (1, 2, 3)] == [1, 1, 1]
    assert crowd.count(2, Column.VPN_TX_BYTES) == len(packet)
    assert crowd.tunnel.device_drops == {}


def test_without_such_a_route_multicast_finds_no_peer(make: Maker, crowd: Crowd) -> None:
    assert crowd.send(make.ip_packet("10.8.0.1", "224.0.0.251")) == []
    assert crowd.tunnel.device_drops == {DropReason.TX_NO_PEER: 1}


def test_a_packet_for_everyone_finds_nobody_on_an_empty_device(make: Maker, crowd: Crowd) -> None:
    crowd.route("224.0.0.0/4", RouteTarget.EVERYONE)
    for peer_id in (1, 2, 3):
        crowd.channel.remove_peer(peer_id)
    assert crowd.send(make.ip_packet("10.8.0.1", "224.0.0.251")) == []
    assert crowd.tunnel.device_drops == {DropReason.TX_NO_PEER: 1}


def test_a_peer_without_a_key_costs_the_others_nothing(make: Maker, crowd: Crowd) -> None:
    crowd.route("224.0.0.0/4", RouteTarget.EVERYONE)
    crowd.channel.delete_key(2, KeySlot.PRIMARY)
    packet = make.ip_packet("10.8.0.1", "224.0.0.251")
    assert crowd.send(packet) == [(1, packet), (3, packet)]
    assert drops_of(crowd.peers[1].row) == {DropReason.TX_NO_KEY: 1}


def test_the_peers_of_everyone_are_those_that_there_are(make: Maker, crowd: Crowd) -> None:
    crowd.route("224.0.0.0/4", RouteTarget.EVERYONE)
    packet = make.ip_packet("10.8.0.1", "224.0.0.251")
    crowd.channel.remove_peer(2)
    assert crowd.send(packet) == [(1, packet), (3, packet)]
    crowd.channel.add_peer(crowd.peers[1], 0)
    assert crowd.send(packet) == [(1, packet), (3, packet), (2, packet)]
    crowd.channel.remove_peer(1)
    crowd.channel.remove_peer(2)
    assert crowd.send(packet) == [(3, packet)]


def test_what_leads_to_the_host_finds_no_peer(make: Maker, crowd: Crowd) -> None:
    crowd.route("10.0.0.0/8", 2)
    crowd.route("10.8.0.0/24", RouteTarget.HOST)
    outside = make.ip_packet("10.8.0.1", "10.9.0.1")
    assert crowd.send(make.ip_packet("10.8.0.1", "10.8.0.99"), outside) == [(2, outside)]
    assert crowd.tunnel.device_drops == {DropReason.TX_NO_PEER: 1}


# From peer to peer


def test_a_packet_to_another_peer_goes_there_and_counts_for_both(make: Maker, crowd: Crowd) -> None:
    packet = make.ip_packet("10.8.0.2", "10.8.0.3", b"hello")
    assert crowd.relay(1, packet) == ([], [(2, packet)])
    assert (crowd.count(1, Column.VPN_RX_PACKETS), crowd.count(1, Column.VPN_RX_BYTES)) == (1, len(packet))
    assert (crowd.count(2, Column.VPN_TX_PACKETS), crowd.count(2, Column.VPN_TX_BYTES)) == (1, len(packet))
    assert crowd.count(2, Column.LINK_TX_PACKETS) == 1


def test_a_packet_to_a_network_behind_another_peer_goes_there(make: Maker, crowd: Crowd) -> None:
    crowd.route("192.168.7.0/24", 3)
    packet = make.ip_packet("10.8.0.2", "192.168.7.9")
    assert crowd.relay(1, packet) == ([], [(3, packet)])


def test_a_packet_to_nobodys_address_is_for_the_device_and_not_counted_yet(make: Maker, crowd: Crowd) -> None:
    packet = make.ip_packet("10.8.0.2", "10.8.0.1")
    assert crowd.relay(1, packet) == ([packet], [])
    assert crowd.count(1, Column.VPN_RX_PACKETS) == 0


def test_the_address_of_the_host_is_its_own_also_within_a_network_of_a_peer(make: Maker, crowd: Crowd) -> None:
    crowd.route("10.0.0.0/8", 2)
    crowd.route("10.8.0.1/32", RouteTarget.HOST)
    packet, other = make.ip_packet("10.8.0.2", "10.8.0.1"), make.ip_packet("10.8.0.2", "10.9.9.9")
    assert crowd.relay(1, packet, other) == ([packet], [(2, other)])


def test_a_packet_with_a_foreign_source_goes_nowhere(make: Maker, crowd: Crowd) -> None:
    assert crowd.relay(1, make.ip_packet("10.8.0.4", "10.8.0.3")) == ([], [])
    assert drops_of(crowd.peers[0].row) == {DropReason.RX_SOURCE_CHECK: 1}


def test_a_packet_of_a_peer_for_everyone_reaches_the_others_and_the_device(make: Maker, crowd: Crowd) -> None:
    crowd.route("224.0.0.0/4", RouteTarget.EVERYONE)
    packet = make.ip_packet("10.8.0.3", "224.0.0.251")
    assert crowd.relay(2, packet) == ([packet], [(1, packet), (3, packet)])
    assert crowd.count(2, Column.VPN_RX_PACKETS) == 0


def test_what_cannot_be_sealed_is_charged_to_whom_it_was_for(make: Maker, crowd: Crowd) -> None:
    crowd.channel.delete_key(2, KeySlot.PRIMARY)
    assert crowd.relay(1, make.ip_packet("10.8.0.2", "10.8.0.3")) == ([], [])
    assert drops_of(crowd.peers[1].row) == {DropReason.TX_NO_KEY: 1}
    assert crowd.count(1, Column.VPN_RX_PACKETS) == 1


def test_client_to_client_is_off_until_it_is_switched_on(crowd: Crowd) -> None:
    assert not crowd.channel.client_to_client
    crowd.channel.set_switches(skip_source_check=False, client_to_client=True)
    assert crowd.channel.client_to_client


# The source check


def test_the_source_check_holds_the_networks_behind_a_peer(make: Maker, crowd: Crowd) -> None:
    inside = make.ip_packet("192.168.7.9", "10.8.0.1")
    datagram = crowd.fars[0].seal(inside)
    assert crowd.tunnel.receive(datagram) == []
    assert crowd.tunnel.drops == {DropReason.RX_SOURCE_CHECK: 1}
    crowd.route("192.168.7.0/24", 1)
    assert crowd.tunnel.receive(crowd.fars[0].seal(inside)) == [inside]
    crowd.route("192.168.7.9/32", 2)
    assert crowd.tunnel.receive(crowd.fars[0].seal(inside)) == []


@pytest.mark.parametrize("source", ["192.0.2.1", "10.8.0.3", "2001:db8::1"])
def test_the_source_check_can_be_skipped_and_held_again(make: Maker, crowd: Crowd, source: str) -> None:
    packet = make.ip_packet(source, "fd00::1" if ":" in source else "10.8.0.1")
    crowd.channel.set_switches(skip_source_check=True, client_to_client=False)
    assert crowd.tunnel.receive(crowd.fars[0].seal(packet)) == [packet]
    crowd.channel.set_switches(skip_source_check=False, client_to_client=False)
    assert crowd.tunnel.receive(crowd.fars[0].seal(packet)) == []
    assert crowd.tunnel.drops == {DropReason.RX_SOURCE_CHECK: 1}


def test_what_is_no_ip_is_dropped_without_the_source_check_too(crowd: Crowd) -> None:
    crowd.channel.set_switches(skip_source_check=True, client_to_client=False)
    assert crowd.tunnel.receive(crowd.fars[0].seal(b"not IP")) == []
    assert crowd.tunnel.drops == {DropReason.RX_NOT_IP: 1}
