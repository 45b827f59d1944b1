"""Endpoints: the bytes of the kernel, the tuples of the socket module, and which of them are one place."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.datagram import SockAddr
from dataplane.fastpath.endpoint import are_same, goes_by_ipv4, key_of, packed, repacked, repacked_local

PORTS = st.integers(0, 0xFFFF)
WORDS = st.integers(0, 0xFFFFFFFF)
IPV4 = st.builds(lambda address, port: (str(IPv4Address(address)), port), WORDS, PORTS)
IPV6 = st.builds(
    lambda address, port, scope_id: (socket.inet_ntop(socket.AF_INET6, address), port, 0, scope_id),
    st.binary(min_size=16, max_size=16),
    PORTS,
    WORDS,
)
ENDPOINTS = st.one_of(IPV4, IPV6)


@given(sockaddr=ENDPOINTS)
def test_tuple_comes_back_as_it_was(sockaddr: SockAddr) -> None:
    assert repacked(sockaddr) == sockaddr


@given(address=WORDS, port=PORTS)
def test_ipv4_stands_as_in_struct_sockaddr_in(address: int, port: int) -> None:
    expected = struct.pack("=H", socket.AF_INET) + struct.pack(">HI", port, address) + bytes(8)
    assert packed((str(IPv4Address(address)), port)) == expected


@given(address=st.binary(min_size=16, max_size=16), port=PORTS, flow_info=WORDS, scope_id=WORDS)
def test_ipv6_stands_as_in_struct_sockaddr_in6(address: bytes, port: int, flow_info: int, scope_id: int) -> None:
    expected = struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", port, flow_info) + address
    sockaddr = (str(IPv6Address(address)), port, flow_info, scope_id)
    assert packed(sockaddr) == expected + struct.pack("=I", scope_id)


NEIGHBOURS: list[SockAddr] = [
    ("192.0.2.1", 1194),
    ("192.0.2.1", 1195),
    ("192.0.2.2", 1194),
    ("::ffff:192.0.2.1", 1194, 0, 0),
    ("fe80::1", 1194, 0, 0),
    ("fe80::1", 1194, 0, 2),
    ("fe80::1", 1194, 0, 3),
    ("fe80::2", 1194, 0, 2),
    ("fe80:1::1", 1194, 0, 2),
    ("fe80::1", 1195, 0, 2),
]


@pytest.mark.parametrize("one", NEIGHBOURS)
def test_only_the_same_address_port_and_scope_are_one_place(one: SockAddr) -> None:
    assert [other for other in NEIGHBOURS if are_same(one, other)] == [one]
    assert [other for other in NEIGHBOURS if key_of(7, one) == key_of(7, other)] == [one]


def test_flow_info_is_no_part_of_the_place() -> None:
    one, other = ("fe80::1", 1194, 0, 2), ("fe80::1", 1194, 0x12345, 2)
    assert are_same(one, other)
    assert key_of(7, one) == key_of(7, other)


@pytest.mark.parametrize("sockaddr", NEIGHBOURS)
def test_socket_is_part_of_the_key(sockaddr: SockAddr) -> None:
    assert key_of(7, sockaddr) != key_of(8, sockaddr)


@pytest.mark.parametrize(
    "wrong",
    [("fe80::1", 1194), ("192.0.2.1", 1194, 0, 0), ("localhost", 1194), ("", 1194), ("192.0.2.1",), ("fe80::1", 1, 0)],
)
def test_what_is_no_endpoint_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError):
        repacked(wrong)


@pytest.mark.parametrize("port", [-1, 0x10000])
def test_port_of_more_than_16_bits_is_refused(port: int) -> None:
    with pytest.raises(OverflowError):
        repacked(("192.0.2.1", port))


@pytest.mark.parametrize("address", [None, b"\xc0\0\2\1", bytes(range(16)), bytes(4)])
def test_local_address_comes_back_as_it_was(address: bytes | None) -> None:
    assert repacked_local(address) == address


@pytest.mark.parametrize("length", [0, 3, 5, 15, 17])
def test_local_address_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"an address of {length} bytes"):
        repacked_local(bytes(length))


@pytest.mark.parametrize(
    ("sockaddr", "expected"),
    [
        (("192.0.2.1", 1194), True),
        (("::ffff:192.0.2.1", 1194, 0, 0), True),
        (("::192.0.2.1", 1194, 0, 0), False),
        (("2001:db8::1", 1194, 0, 0), False),
        (("::fffe:0:0", 1194, 0, 0), False),
    ],
)
def test_v4_mapped_addresses_are_reached_by_ipv4(sockaddr: SockAddr, expected: bool) -> None:
    assert goes_by_ipv4(sockaddr) == expected
