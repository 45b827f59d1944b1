from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.tun.checksum import checksum, folded_sum, pseudo_header, transport_checksum
from tests.tun.packets import Packet, slow_checksum

RFC_1071_EXAMPLE = bytes.fromhex("0001f203f4f5f6f7")


def test_example_of_rfc_1071() -> None:
    assert folded_sum(RFC_1071_EXAMPLE) == 0xDDF2


@given(st.binary(max_size=200) | st.integers(0, 9).map(lambda words: b"\xff\xff" * words))
def test_sum_is_that_of_adding_word_by_word(data: bytes) -> None:
    assert (folded_sum(data), checksum(data)) == (slow_checksum(data) ^ 0xFFFF, slow_checksum(data))


@pytest.mark.parametrize(("data", "total"), [(b"", 0), (b"\0\0", 0), (b"\xff\xff", 0xFFFF), (b"\0\1\xff\xfe", 0xFFFF)])
def test_sum_is_0_only_of_nothing_but_zeroes(data: bytes, total: int) -> None:
    assert folded_sum(data) == total


def test_odd_last_byte_is_the_high_half_of_a_word() -> None:
    assert folded_sum(b"\x12\x34\x56") == folded_sum(b"\x12\x34\x56\0")


def test_transport_checksum_is_never_0() -> None:
    assert (checksum(b"\xff\xff"), transport_checksum(b"\xff\xff")) == (0, 0xFFFF)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
def test_packet_with_its_pseudo_header_sums_to_all_ones(version: int, protocol: int) -> None:
    packet = Packet(version=version, protocol=protocol, payload=b"hello")
    part = packet.pack()[packet.transport :]
    assert folded_sum(pseudo_header(packet.pack(), protocol, len(part)) + part) == 0xFFFF
