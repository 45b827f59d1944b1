"""How peers are found, and kept apart."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from dataplane.datachannel.outcomes import PeerExists, UnknownPeer
from dataplane.vocabulary import Mode

if TYPE_CHECKING:
    from dataplane.datachannel.datagram import SockAddr
    from dataplane.datachannel.peer import Peer
    from dataplane.datachannel.peer_table import PeerTable
    from tests.datachannel.conftest import Maker

SOCKET_ID = 7
HOME: SockAddr = ("198.51.100.1", 1194)
ELSEWHERE: SockAddr = ("203.0.113.9", 4242)


def behind(make: Maker, table: PeerTable, text: str) -> Peer | None:
    """The peer behind an address."""
    return make.implementation.peer_behind(table, ip_address(text).packed)


def at(make: Maker, table: PeerTable, remote: SockAddr, socket_id: int = SOCKET_ID) -> Peer | None:
    """The peer at an endpoint."""
    return make.implementation.peer_at(table, socket_id, remote)


def test_peer_is_found_by_id_endpoint_and_vpn_addresses(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.MP)
    peer = make.peer(1, "10.8.0.2", "fd00::2")
    table.add(peer)
    assert table.get(1) is peer
    assert at(make, table, HOME) is peer
    assert behind(make, table, "10.8.0.2") is peer
    assert behind(make, table, "fd00::2") is peer
    assert behind(make, table, "10.8.0.3") is None


def test_removed_peer_is_found_no_more(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.MP)
    peer = make.peer(1, "10.8.0.2", "fd00::2")
    table.add(peer)
    assert table.remove(1) is peer
    assert not table.by_id
    assert at(make, table, HOME) is None
    assert behind(make, table, "10.8.0.2") is None
    assert behind(make, table, "fd00::2") is None
    table.add(peer)


@pytest.mark.parametrize("mode", list(Mode))
def test_unknown_peer_is_an_error(make: Maker, mode: Mode) -> None:
    table = make.implementation.peer_table(mode)
    with pytest.raises(UnknownPeer):
        table.get(1)
    with pytest.raises(UnknownPeer):
        table.remove(1)


@pytest.mark.parametrize(
    ("peer_id", "vpn_ipv4", "vpn_ipv6"),
    [(1, "10.8.0.9", "fd00::9"), (9, "10.8.0.2", "fd00::9"), (9, "10.8.0.9", "fd00::2"), (9, None, "fd00::2")],
)
def test_second_peer_with_the_same_id_or_address_is_refused_in_mp(
    make: Maker, peer_id: int, vpn_ipv4: str | None, vpn_ipv6: str | None
) -> None:
    table = make.implementation.peer_table(Mode.MP)
    peer = make.peer(1, "10.8.0.2", "fd00::2")
    table.add(peer)
    with pytest.raises(PeerExists):
        table.add(make.peer(peer_id, vpn_ipv4, vpn_ipv6, ELSEWHERE))
    assert table.by_id == {1: peer}
    assert at(make, table, HOME) is peer
    assert at(make, table, ELSEWHERE) is None
    assert behind(make, table, "10.8.0.9") is None


def test_any_second_peer_is_refused_in_p2p(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.P2P)
    table.add(make.peer(1))
    with pytest.raises(PeerExists):
        table.add(make.peer(2, remote=ELSEWHERE))
    table.remove(1)
    table.add(make.peer(2))


@pytest.mark.parametrize("address", ["10.8.0.2", "255.255.255.255", "224.0.0.1", "fd00::2", "ff02::1"])
def test_the_one_p2p_peer_is_behind_every_address(make: Maker, address: str) -> None:
    table = make.implementation.peer_table(Mode.P2P)
    peer = make.peer(1)
    table.add(peer)
    assert behind(make, table, address) is peer
    table.remove(1)
    assert behind(make, table, address) is None


def test_moved_peer_is_found_at_its_new_endpoint_only(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.MP)
    peer = make.peer(1, "10.8.0.2")
    table.add(peer)
    make.implementation.move(table, peer, 8, ELSEWHERE)
    assert (peer.socket_id, peer.remote) == (8, ELSEWHERE)
    assert at(make, table, ELSEWHERE, socket_id=8) is peer
    assert at(make, table, ELSEWHERE) is None
    assert at(make, table, HOME) is None


def test_peer_that_came_last_has_a_shared_endpoint_and_keeps_it(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.MP)
    first, last = make.peer(1, "10.8.0.2"), make.peer(2, "10.8.0.3")
    table.add(first)
    table.add(last)
    table.remove(1)
    assert at(make, table, HOME) is last


def test_new_vpn_addresses_replace_the_old(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.MP)
    peer = make.peer(1, "10.8.0.2", "fd00::2")
    table.add(peer)
    table.set_vpn_addresses(peer, ip_address("10.8.0.7").packed, None)
    assert behind(make, table, "10.8.0.7") is peer
    assert behind(make, table, "10.8.0.2") is None
    assert behind(make, table, "fd00::2") is None
    assert (peer.vpn_ipv4, peer.vpn_ipv6) == (ip_address("10.8.0.7").packed, None)


def test_same_vpn_addresses_may_be_set_again(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.MP)
    peer = make.peer(1, "10.8.0.2")
    table.add(peer)
    table.set_vpn_addresses(peer, peer.vpn_ipv4, None)
    assert behind(make, table, "10.8.0.2") is peer


def test_vpn_address_of_another_peer_is_refused_and_nothing_changes(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.MP)
    first, second = make.peer(1, "10.8.0.2", "fd00::2"), make.peer(2, "10.8.0.3", "fd00::3")
    table.add(first)
    table.add(second)
    with pytest.raises(PeerExists):
        table.set_vpn_addresses(first, ip_address("10.8.0.9").packed, second.vpn_ipv6)
    assert behind(make, table, "10.8.0.2") is first
    assert behind(make, table, "fd00::2") is first
    assert behind(make, table, "fd00::3") is second
    assert behind(make, table, "10.8.0.9") is None


def test_vpn_addresses_change_no_route_in_p2p(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.P2P)
    peer = make.peer(1)
    table.add(peer)
    table.set_vpn_addresses(peer, ip_address("10.8.0.2").packed, None)
    assert behind(make, table, "192.0.2.1") is peer
    assert peer.vpn_ipv4 == ip_address("10.8.0.2").packed
