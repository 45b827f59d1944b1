"""Addresses read off inner packets."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tun.packets import Packet

if TYPE_CHECKING:
    from tests.datachannel.conftest import Maker


@pytest.mark.parametrize(("source", "destination"), [("10.8.0.2", "192.0.2.1"), ("fd00::2", "2001:db8::1")])
def test_addresses_of_a_bare_header_are_read(make: Maker, source: str, destination: str) -> None:
    packet = make.ip_packet(source, destination)
    assert make.implementation.source_of(packet) == ip_address(source).packed
    assert make.implementation.destination_of(packet) == ip_address(destination).packed


@pytest.mark.parametrize("source", ["10.8.0.2", "fd00::2"])
def test_header_one_byte_short_is_none(make: Maker, source: str) -> None:
    packet = make.ip_packet(source, source)[:-1]
    assert make.implementation.source_of(packet) is None
    assert make.implementation.destination_of(packet) is None


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, 7, 8, 9, 15])
def test_other_versions_are_no_ip(make: Maker, version: int) -> None:
    packet = bytes([version << 4]) + bytes(60)
    assert make.implementation.source_of(packet) is None
    assert make.implementation.destination_of(packet) is None


@given(packet=st.binary(max_size=60))
def test_any_bytes_give_both_addresses_or_neither(make: Maker, packet: bytes) -> None:
    source, destination = make.implementation.source_of(packet), make.implementation.destination_of(packet)
    assert (source is None) == (destination is None)
    if source is not None and destination is not None:
        assert len(source) == len(destination) == (4 if packet[0] >> 4 == 4 else 16)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("tos", "dscp"), [(0, 0), (3, 0), (0xB8, 0xB8), (0xBB, 0xB8), (0xFF, 0xFC), (0x13, 0x10)])
def test_dscp_comes_without_ecn(make: Maker, version: int, tos: int, dscp: int) -> None:
    packet = Packet(version=version, tos=tos, flow_label=0xFFFFF).pack()
    assert make.implementation.dscp_of(packet) == dscp
    assert make.implementation.dscp_of(packet[: 20 if version == 4 else 40]) == dscp


@pytest.mark.parametrize("packet", [b"", b"\x45\xb8", b"\x45\xb8" + bytes(17), b"\x6b\x80" + bytes(37), b"\xff" * 60])
def test_what_has_no_whole_header_has_no_dscp(make: Maker, packet: bytes) -> None:
    assert make.implementation.dscp_of(packet) == 0
