from __future__ import annotations

import pytest
from hypothesis import given

from dataplane.tun.headers import put16, put32, set_ip_length, set_transport_checksum
from tests.tun.packets import Packet, packets, patched, words_of_options


@given(packet=packets(), ip_options=words_of_options(10))
def test_lengths_and_checksums_are_those_of_a_packet_built_by_hand(packet: Packet, ip_options: bytes) -> None:
    expected = packet.with_(payload=b"hello", ip_options=ip_options)
    length_at, protocol = (2, packet.protocol) if packet.version == 4 else (4, packet.protocol)
    csum_at = expected.transport + (16 if protocol == 6 else 6)
    damaged = bytearray(patched(patched(expected.pack(), length_at, b"\x11\x22"), csum_at, b"\x33\x44"))
    if packet.version == 4:
        damaged[10:12] = b"\x55\x66"
    set_ip_length(damaged)
    set_transport_checksum(damaged, protocol, expected.transport)
    assert bytes(damaged) == expected.pack()


@pytest.mark.parametrize(("write", "width", "value"), [(put16, 2, 0x1FFFF), (put32, 4, 0x1FFFFFFFF)])
def test_numbers_wrap(write: object, width: int, value: int) -> None:
    data = bytearray(6)
    assert callable(write)
    write(data, 1, value)
    assert data == b"\0" + b"\xff" * width + bytes(5 - width)
