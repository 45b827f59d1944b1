from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from controlplane_shim.netlink.ovpn.answers import build_key, build_notice, build_peer
from controlplane_shim.operations import (
    DeletionNotice,
    DelReason,
    Family,
    FloatNotice,
    KeyInfo,
    KeySwapNotice,
    PeerInfo,
    Remote,
)
from tests.shim.netlink.conftest import OVPN, attribute, be16, message, nest, u16, u32, u64

PEER = PeerInfo(
    peer_id=3,
    tx_id=3,
    remote=Remote(IPv4Address("192.0.2.7"), 1194),
    local=IPv4Address("192.0.2.1"),
    local_port=1195,
    vpn_ipv4=IPv4Address("10.8.0.2"),
    vpn_ipv6=IPv6Address("fd00::2"),
    keepalive_interval=10,
    keepalive_timeout=120,
    vpn_rx_bytes=1,
    vpn_tx_bytes=1 << 40,
    vpn_rx_packets=0xFFFFFFFF,
    vpn_tx_packets=1 << 32,
    link_rx_bytes=5,
    link_tx_bytes=6,
    link_rx_packets=7,
    link_tx_packets=8,
)
COUNTERS = (
    u32(16, 1),
    u32(18, 0xFFFFFFFF),
    u64(17, 1 << 40),
    u64(19, 1 << 32),
    u32(20, 5),
    u32(22, 7),
    u32(21, 6),
    u32(23, 8),
)


def told(command: int, *attributes: bytes, flags: int = 0, seq: int = 7, port_id: int = 42) -> bytes:
    return message(OVPN, flags, struct.pack("=BBH", command, 1, 0) + b"".join(attributes), seq=seq, port_id=port_id)


def test_a_peer_of_ipv4_has_the_bytes_of_the_drivers_answer() -> None:
    expected = nest(
        2,
        u32(1, 3),
        u32(24, 3),
        attribute(8, b"\x0a\x08\x00\x02"),
        attribute(9, IPv6Address("fd00::2").packed),
        u32(13, 10),
        u32(14, 120),
        attribute(2, b"\xc0\x00\x02\x07"),
        be16(5, 1194),
        attribute(10, b"\xc0\x00\x02\x01"),
        be16(12, 1195),
        *COUNTERS,
    )
    assert build_peer(PEER, 2, 7, 42) == told(3, expected, flags=2)


def test_a_peer_of_ipv6_has_its_scope_and_an_unspecified_local_address() -> None:
    peer = replace(PEER, remote=Remote(IPv6Address("fe80::7"), 1194, 5), local=None, vpn_ipv4=None, vpn_ipv6=None)
    expected = nest(
        2,
        u32(1, 3),
        u32(24, 3),
        u32(13, 10),
        u32(14, 120),
        attribute(3, IPv6Address("fe80::7").packed),
        u32(4, 5),
        be16(5, 1194),
        attribute(11, bytes(16)),
        be16(12, 1195),
        *COUNTERS,
    )
    assert build_peer(peer, 0, 7, 42) == told(3, expected)


def test_a_peer_of_tcp_has_no_addresses_of_the_link() -> None:
    peer = replace(PEER, remote=None, vpn_ipv6=None)
    expected = nest(
        2,
        u32(1, 3),
        u32(24, 3),
        attribute(8, b"\x0a\x08\x00\x02"),
        u32(13, 10),
        u32(14, 120),
        be16(12, 1195),
        *COUNTERS,
    )
    assert build_peer(peer, 0, 7, 42) == told(3, expected)


def test_a_key_is_told_without_its_bytes() -> None:
    expected = nest(3, u32(1, 3), u32(2, 1), u32(3, 5), u32(4, 2))
    assert build_key(KeyInfo(peer_id=3, slot=1, key_id=5, cipher=2), 7, 42) == told(7, expected)


def test_a_deletion_has_its_reason_in_32_bits() -> None:
    notice = DeletionNotice(Family.OVPN, ifindex=12, peer_id=3, reason=DelReason.EXPIRED)
    assert build_notice(notice) == told(5, u32(1, 12), nest(2, u32(15, 2), u32(1, 3)), seq=0, port_id=0)


def test_a_float_to_ipv4_names_address_and_port() -> None:
    notice = FloatNotice(Family.OVPN, 12, 3, Remote(IPv4Address("192.0.2.7"), 1194))
    expected = nest(2, u32(1, 3), attribute(2, b"\xc0\x00\x02\x07"), be16(5, 1194))
    assert build_notice(notice) == told(11, u32(1, 12), expected, seq=0, port_id=0)


def test_a_float_to_ipv6_names_the_scope_too() -> None:
    notice = FloatNotice(Family.OVPN, 12, 3, Remote(IPv6Address("fe80::7"), 1194, 5))
    expected = nest(2, u32(1, 3), attribute(3, IPv6Address("fe80::7").packed), u32(4, 5), be16(5, 1194))
    assert build_notice(notice) == told(11, u32(1, 12), expected, seq=0, port_id=0)


def test_the_end_of_a_key_has_the_key_id_in_16_bits_as_openvpn_reads_it() -> None:
    notice = KeySwapNotice(Family.OVPN, ifindex=12, peer_id=3, key_id=5)
    assert build_notice(notice) == told(9, u32(1, 12), nest(3, u32(1, 3), u16(3, 5)), seq=0, port_id=0)
