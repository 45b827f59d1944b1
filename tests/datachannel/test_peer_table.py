"""How peers are found, and kept apart."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.outcomes import PeerExists, UnknownPeer
from dataplane.vocabulary import Mode, RouteTarget
from tests.datachannel.conftest import Maker
from tests.datachannel.implementations import compiled, readable

if TYPE_CHECKING:
    from dataplane.datachannel.datagram import SockAddr
    from dataplane.datachannel.peer import Peer
    from dataplane.datachannel.peer_table import PeerTable

SOCKET_ID = 7
HOME: SockAddr = ("198.51.100.1", 1194)
ELSEWHERE: SockAddr = ("203.0.113.9", 4242)


def behind(make: Maker, table: PeerTable, text: str) -> Peer | RouteTarget | None:
    """The peer behind an address, or its RouteTarget."""
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


# Networks


def net(text: str) -> tuple[bytes, int]:
    """A prefix as the table takes it."""
    network = ip_network(text)
    return network.network_address.packed, network.prefixlen


def two_peers(make: Maker) -> tuple[PeerTable, Peer, Peer]:
    """A table with peers 1 (10.8.0.2, fd00::2) and 2 (10.8.0.3)."""
    table = make.implementation.peer_table(Mode.MP)
    first, second = make.peer(1, "10.8.0.2", "fd00::2"), make.peer(2, "10.8.0.3")
    table.add(first)
    table.add(second)
    return table, first, second


def test_of_overlapping_networks_the_longest_wins(make: Maker) -> None:
    table, first, second = two_peers(make)
    table.set_route(net("10.0.0.0/8"), 1)
    table.set_route(net("10.20.0.0/16"), 2)
    table.set_route(net("10.20.3.0/24"), 1)
    assert [behind(make, table, address) for address in ("10.1.1.1", "10.20.9.9", "10.20.3.9", "10.8.0.3")] == [
        first,
        second,
        first,
        second,
    ]
    table.set_route(net("10.20.0.0/16"), RouteTarget.NOBODY)
    assert behind(make, table, "10.20.9.9") is first


def test_a_default_route_is_a_network_of_each_family(make: Maker) -> None:
    table, first, second = two_peers(make)
    table.set_route(net("0.0.0.0/0"), 1)
    table.set_route(net("::/0"), 2)
    assert behind(make, table, "192.0.2.1") is first
    assert behind(make, table, "2001:db8::1") is second


def test_a_network_moves_to_another_peer_at_once(make: Maker) -> None:
    table, first, second = two_peers(make)
    table.set_route(net("fd00:7::/48"), 1)
    assert behind(make, table, "fd00:7::1") is first
    table.set_route(net("fd00:7::/48"), 2)
    assert behind(make, table, "fd00:7::1") is second
    table.remove(1)
    assert behind(make, table, "fd00:7::1") is second


def test_a_removed_peer_takes_its_networks_with_it(make: Maker) -> None:
    table, first, second = two_peers(make)
    table.set_route(net("10.20.0.0/16"), 1)
    table.set_route(net("10.30.0.0/16"), 2)
    table.remove(1)
    assert behind(make, table, "10.20.0.1") is None
    assert behind(make, table, "10.30.0.1") is second
    table.add(first)
    assert behind(make, table, "10.20.0.1") is None


def test_a_network_of_a_peer_that_is_gone_is_nobodys(make: Maker) -> None:
    table, first, _ = two_peers(make)
    table.set_route(net("10.20.0.0/16"), 1)
    table.set_route(net("10.20.0.0/16"), 77)
    assert behind(make, table, "10.20.0.1") is None
    assert behind(make, table, "10.8.0.2") is first


@pytest.mark.parametrize("target", [2, RouteTarget.HOST, RouteTarget.EVERYONE, RouteTarget.NOBODY])
def test_a_vpn_address_stays_with_its_peer(make: Maker, target: int) -> None:
    table, first, _ = two_peers(make)
    table.set_route(net("10.8.0.2/32"), target)
    assert behind(make, table, "10.8.0.2") is first


@pytest.mark.parametrize("target", [2, RouteTarget.HOST, RouteTarget.EVERYONE])
def test_a_new_vpn_address_takes_the_place_of_a_route(make: Maker, target: int) -> None:
    table, first, _ = two_peers(make)
    table.set_route(net("10.8.0.7/32"), target)
    table.set_vpn_addresses(first, ip_address("10.8.0.7").packed, None)
    assert behind(make, table, "10.8.0.7") is first
    table.set_route(net("10.8.0.9/32"), target)
    third = make.peer(3, "10.8.0.9")
    table.add(third)
    assert behind(make, table, "10.8.0.9") is third
    table.remove(2)
    assert behind(make, table, "10.8.0.9") is third


@pytest.mark.parametrize("target", [RouteTarget.HOST, RouteTarget.EVERYONE])
def test_a_prefix_may_lead_to_no_single_peer(make: Maker, target: RouteTarget) -> None:
    table, first, _ = two_peers(make)
    table.set_route(net("10.0.0.0/8"), 1)
    table.set_route(net("10.8.0.0/24"), target)
    assert behind(make, table, "10.8.0.77") is target
    table.set_route(net("10.8.0.0/24"), RouteTarget.NOBODY)
    assert behind(make, table, "10.8.0.77") is first


def test_setting_and_taking_a_route_twice_changes_nothing(make: Maker) -> None:
    table, first, _ = two_peers(make)
    for _ in range(2):
        table.set_route(net("10.20.0.0/16"), 1)
        assert behind(make, table, "10.20.0.1") is first
    for _ in range(2):
        table.set_route(net("10.20.0.0/16"), RouteTarget.NOBODY)
        assert behind(make, table, "10.20.0.1") is None


@pytest.mark.parametrize("prefix", [(bytes(4), 33), (bytes(16), 129), (bytes(4), -1), (bytes(5), 8)])
def test_what_is_no_prefix_is_refused(make: Maker, prefix: tuple[bytes, int]) -> None:
    table, _, _ = two_peers(make)
    with pytest.raises((ValueError, KeyError)):
        table.set_route(prefix, 1)


def test_a_p2p_device_has_no_routes(make: Maker) -> None:
    table = make.implementation.peer_table(Mode.P2P)
    table.add(make.peer(1))
    with pytest.raises(ValueError, match="P2P"):
        table.set_route(net("10.0.0.0/8"), RouteTarget.HOST)


ADDRESSES = [f"10.8.0.{host}" for host in range(2, 6)]
NETWORKS = ["0.0.0.0/0", "10.0.0.0/8", "10.8.0.0/24", "10.8.0.2/31", *(f"{address}/32" for address in ADDRESSES)]
CHANGES = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 4), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("remove"), st.integers(1, 4), st.none()),
    st.tuples(st.just("move"), st.integers(1, 4), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("route"), st.integers(-3, 5), st.sampled_from(NETWORKS)),
)


@given(st.lists(CHANGES, max_size=40))
def test_both_tables_find_the_same_whatever_is_done_to_them(changes: list[tuple[str, int, Any]]) -> None:
    found = [_found_after(Maker(implementation()), changes) for implementation in (readable, compiled)]
    assert found[0] == found[1]


def _found_after(make: Maker, changes: list[tuple[str, int, Any]]) -> list[object]:
    table = make.implementation.peer_table(Mode.MP)
    found: list[object] = []
    for deed, number, value in changes:
        try:
            if deed == "add":
                table.add(make.peer(number, value))
            elif deed == "remove":
                table.remove(number)
            elif deed == "move":
                table.set_vpn_addresses(table.get(number), ip_address(value).packed, None)
            else:
                table.set_route(net(value), number)
        except (PeerExists, UnknownPeer) as error:
            found.append(type(error))
        for address in (*ADDRESSES, "10.9.9.9", "192.0.2.1"):
            target: Any = behind(make, table, address)
            found.append(target if target is None or isinstance(target, RouteTarget) else target.peer_id)
    return found
