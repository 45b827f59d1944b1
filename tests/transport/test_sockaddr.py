from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.transport.sockaddr import AddressFamilyMismatch, from_sockaddr, pack_address, to_sockaddr, unmap

V4 = IPv4Address("192.0.2.1").packed
V6 = IPv6Address("2001:db8::1").packed
MAPPED = IPv6Address("::ffff:192.0.2.1").packed

ports = st.integers(1, 65535)
v4 = st.ip_addresses(v=4).map(lambda address: address.packed)
v6 = st.ip_addresses(v=6).map(lambda address: address.packed).filter(lambda address: unmap(address) == address)


def test_ipv4_on_an_ipv4_socket() -> None:
    assert to_sockaddr(V4, 1194, 0, socket.AF_INET) == ("192.0.2.1", 1194)


def test_ipv4_on_an_ipv6_socket_is_v4_mapped() -> None:
    assert to_sockaddr(V4, 1194, 0, socket.AF_INET6) == ("::ffff:192.0.2.1", 1194, 0, 0)


def test_ipv6_carries_its_scope_id() -> None:
    assert to_sockaddr(V6, 1194, 7, socket.AF_INET6) == ("2001:db8::1", 1194, 0, 7)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_v4_mapped_address_is_taken_as_ipv4(family: int) -> None:
    assert to_sockaddr(MAPPED, 1194, 0, family) == to_sockaddr(V4, 1194, 0, family)


def test_ipv6_on_an_ipv4_socket_is_a_mismatch() -> None:
    with pytest.raises(AddressFamilyMismatch):
        to_sockaddr(V6, 1194, 0, socket.AF_INET)


@pytest.mark.parametrize(
    ("address", "port", "scope_id"),
    [(V4[:3], 1194, 0), (V6 + b"\0", 1194, 0), (V4, 0, 0), (V4, 65536, 0), (V6, 1194, -1), (V6, 1194, 1 << 32)],
)
def test_what_is_no_endpoint_is_an_error(address: bytes, port: int, scope_id: int) -> None:
    with pytest.raises(ValueError):
        to_sockaddr(address, port, scope_id, socket.AF_INET6)


def test_v4_mapped_source_is_reported_as_ipv4() -> None:
    assert from_sockaddr(("::ffff:192.0.2.1", 1194, 0, 0)) == (V4, 1194, 0)


def test_local_address_for_an_ipv6_socket_has_16_bytes() -> None:
    assert pack_address(V4, socket.AF_INET6) == MAPPED


@given(address=v4, port=ports, family=st.sampled_from([socket.AF_INET, socket.AF_INET6]))
def test_ipv4_endpoint_comes_back_from_its_tuple(address: bytes, port: int, family: int) -> None:
    assert from_sockaddr(to_sockaddr(address, port, 0, family)) == (address, port, 0)


@given(address=v6, port=ports, scope_id=st.integers(0, 0xFFFFFFFF))
def test_ipv6_endpoint_comes_back_from_its_tuple(address: bytes, port: int, scope_id: int) -> None:
    assert from_sockaddr(to_sockaddr(address, port, scope_id, socket.AF_INET6)) == (address, port, scope_id)
