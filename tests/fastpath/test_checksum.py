"""The compiled checksum, against RFC 1071 as it is written."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from dataplane.fastpath.checksum import pseudo_header_sum, sum_of


def plain_sum(data: bytes) -> int:
    """The one's complement sum of the 16-bit words, in network order, an odd byte padded with zero."""
    total = 0
    for (word,) in struct.iter_unpack(">H", data + bytes(len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_example_of_the_rfc_sums_to_what_it_says() -> None:
    assert sum_of([bytes.fromhex("0001f203f4f5f6f7")]) == 0xDDF2


@given(data=st.binary(max_size=200))
def test_sum_is_that_of_the_rfc(data: bytes) -> None:
    assert sum_of([data]) == plain_sum(data)


@given(pieces=st.lists(st.binary(max_size=50).map(lambda piece: piece[: len(piece) // 2 * 2])), last=st.binary())
def test_pieces_sum_to_the_sum_of_the_whole(pieces: list[bytes], last: bytes) -> None:
    assert sum_of([*pieces, last]) == plain_sum(b"".join(pieces) + last)


@given(size=st.integers(65_000, 65_535), octet=st.sampled_from([0x00, 0x01, 0xFE, 0xFF]))
def test_no_carry_of_a_long_packet_is_lost(size: int, octet: int) -> None:
    data = bytes([octet]) * size
    assert sum_of([data]) == plain_sum(data)


def test_sum_of_nothing_is_zero() -> None:
    assert sum_of([]) == 0
    assert sum_of([b""]) == 0


@given(source=st.ip_addresses(v=4), destination=st.ip_addresses(v=4), length=st.integers(0, 0xFFFF))
def test_ipv4_pseudo_header_is_addresses_protocol_and_length(
    source: IPv4Address, destination: IPv4Address, length: int
) -> None:
    packet = b"\x45" + b"\xaa" * 11 + source.packed + destination.packed + b"\xbb" * 8
    pseudo_header = struct.pack(">4s4sxBH", source.packed, destination.packed, 17, length)
    assert pseudo_header_sum(packet, 17, length) == plain_sum(pseudo_header)


@given(source=st.ip_addresses(v=6), destination=st.ip_addresses(v=6), length=st.integers(0, 0x1FFFF))
def test_ipv6_pseudo_header_is_addresses_length_and_protocol(
    source: IPv6Address, destination: IPv6Address, length: int
) -> None:
    packet = b"\x60" + b"\xaa" * 7 + source.packed + destination.packed + b"\xbb" * 8
    pseudo_header = struct.pack(">16s16sI3xB", source.packed, destination.packed, length, 6)
    assert pseudo_header_sum(packet, 6, length) == plain_sum(pseudo_header)
