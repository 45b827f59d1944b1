"""Longest-prefix match, against a scan over ipaddress networks."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from dataplane.datachannel.routing import Prefix, RoutingTable
    from tests.datachannel.conftest import Maker


def prefix(text: str) -> Prefix:
    parsed = ip_network(text)
    return parsed.network_address.packed, parsed.prefixlen


def address(text: str) -> bytes:
    return ip_address(text).packed


# Few distinct bits, so that prefixes nest and collide.
BYTES = st.sampled_from([0x00, 0x01, 0x80, 0xFF])


@st.composite
def addresses(draw: st.DrawFn, length: int) -> bytes:
    return bytes(draw(BYTES) for _ in range(length - 1)) + bytes([draw(st.integers(0, 255))])


@st.composite
def prefixes(draw: st.DrawFn, length: int) -> Prefix:
    return draw(addresses(length)), draw(st.integers(0, length * 8))


Network = IPv4Network | IPv6Network


def network(route: Prefix) -> Network:
    return ip_network((route[0], route[1]), strict=False)


def slow_lookup(routes: dict[Network, int], packed: bytes) -> int | None:
    wanted = ip_address(packed)
    matching = [candidate for candidate in routes if wanted in candidate]
    if not matching:
        return None
    return routes[max(matching, key=lambda match: match.prefixlen)]


@given(data=st.data(), length=st.sampled_from([4, 16]))
def test_table_answers_as_a_scan_over_networks(make: Maker, data: st.DataObject, length: int) -> None:
    table: RoutingTable[int] = make.implementation.routing_table()
    routes: dict[Network, int] = {}
    for value in range(data.draw(st.integers(0, 20))):
        route = data.draw(prefixes(length))
        if data.draw(st.booleans()) and table.get(route) is not None:
            table.remove(route)
            del routes[network(route)]
        else:
            table.insert(route, value)
            routes[network(route)] = value
    for packed in data.draw(st.lists(addresses(length), min_size=1, max_size=10)):
        assert table.lookup(packed) == slow_lookup(routes, packed)


def test_longest_prefix_wins(make: Maker) -> None:
    table: RoutingTable[str] = make.implementation.routing_table()
    for text in ("10.0.0.0/8", "0.0.0.0/0", "10.8.0.2/32", "10.8.0.0/24"):
        table.insert(prefix(text), text)
    assert table.lookup(address("10.8.0.2")) == "10.8.0.2/32"
    assert table.lookup(address("10.8.0.3")) == "10.8.0.0/24"
    assert table.lookup(address("10.9.0.2")) == "10.0.0.0/8"
    assert table.lookup(address("192.0.2.1")) == "0.0.0.0/0"


def test_families_do_not_mix(make: Maker) -> None:
    table: RoutingTable[str] = make.implementation.routing_table()
    table.insert(prefix("0.0.0.0/0"), "four")
    assert table.lookup(address("::")) is None
    table.insert(prefix("::/0"), "six")
    assert table.lookup(address("::")) == "six"
    assert table.lookup(address("0.0.0.0")) == "four"


def test_bits_behind_the_prefix_do_not_matter(make: Maker) -> None:
    table: RoutingTable[str] = make.implementation.routing_table()
    table.insert((address("10.8.0.77"), 24), "net")
    assert table.get(prefix("10.8.0.0/24")) == "net"
    assert table.lookup(address("10.8.0.1")) == "net"


def test_insert_replaces_the_value(make: Maker) -> None:
    table: RoutingTable[str] = make.implementation.routing_table()
    table.insert(prefix("10.8.0.0/24"), "old")
    table.insert(prefix("10.8.0.0/24"), "new")
    assert table.lookup(address("10.8.0.1")) == "new"


def test_removed_prefix_uncovers_the_shorter_one(make: Maker) -> None:
    table: RoutingTable[str] = make.implementation.routing_table()
    table.insert(prefix("10.8.0.0/24"), "long")
    table.insert(prefix("10.0.0.0/8"), "short")
    table.remove(prefix("10.8.0.0/24"))
    assert table.lookup(address("10.8.0.1")) == "short"


@pytest.mark.parametrize("text", ["10.8.1.0/24", "10.8.0.0/25"])
def test_removing_what_is_not_there_is_an_error(make: Maker, text: str) -> None:
    table: RoutingTable[str] = make.implementation.routing_table()
    table.insert(prefix("10.8.0.0/24"), "net")
    with pytest.raises(KeyError):
        table.remove(prefix(text))


def test_get_wants_exactly_the_prefix(make: Maker) -> None:
    table: RoutingTable[str] = make.implementation.routing_table()
    table.insert(prefix("10.8.0.0/24"), "net")
    assert table.get(prefix("10.8.0.0/24")) == "net"
    assert table.get(prefix("10.8.0.0/25")) is None
    assert table.get(prefix("10.8.1.0/24")) is None


@pytest.mark.parametrize("wrong", [(bytes(4), 33), (bytes(16), 129), (bytes(4), -1), (bytes(5), 8), (b"", 0)])
def test_what_is_no_prefix_is_refused(make: Maker, wrong: Prefix) -> None:
    with pytest.raises(ValueError, match="no prefix"):
        make.implementation.routing_table().insert(wrong, "net")
