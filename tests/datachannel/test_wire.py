"""The DATA_V2 layout in bytes."""

from __future__ import annotations

from dataplane.datachannel import wire


def test_head_has_opcode_key_id_peer_id_and_packet_id_in_network_order() -> None:
    head = wire.HEAD.pack(wire.first_word(key_id=5, peer_id=0x010203), 0xA0B0C0D0)
    assert head.hex() == "4d010203a0b0c0d0"


def test_extreme_fields_do_not_run_into_each_other() -> None:
    assert wire.HEAD.pack(wire.first_word(7, 0xFFFFFF), 0xFFFFFFFF).hex() == "4fffffffffffffff"
    assert wire.HEAD.pack(wire.first_word(0, 0), 0).hex() == "4800000000000000"


def test_overhead_is_the_kernels() -> None:
    assert wire.HEAD.size == wire.HEAD_SIZE == 8
    assert wire.OVERHEAD == 24


def test_longest_datagram_carries_the_largest_mtu() -> None:
    assert wire.DATAGRAM_MAX == 65463 + 28


def test_keepalive_is_openvpns_ping_string() -> None:
    assert wire.KEEPALIVE.hex() == "2a187bf3641eb4cb07ed2d0a981fc748"


def test_soft_reset_has_a_mark_of_its_key_id_and_no_other_packet_has_one() -> None:
    marks = {first: wire.reset_mark(bytes([first, 0])) for first in range(256)}
    assert {first for first, mark in marks.items() if mark} == set(range(24, 32))
    assert len(set(marks.values())) == 9
