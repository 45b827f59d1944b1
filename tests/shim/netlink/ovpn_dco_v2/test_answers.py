from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import genlmsg, nla

from controlplane_shim.netlink import attributes
from controlplane_shim.netlink.message import split
from controlplane_shim.netlink.ovpn_dco_v2.answers import build_notice, build_peer
from controlplane_shim.operations import DeletionNotice, DelReason, Family, PeerInfo, Remote
from tests.shim.netlink.conftest import (
    DCO,
    attribute,
    message,
    nest,
    sockaddr_in,
    sockaddr_in6,
    u8,
    u32,
    u64,
)

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
    vpn_rx_packets=3,
    vpn_tx_packets=4,
    link_rx_bytes=5,
    link_tx_bytes=6,
    link_rx_packets=7,
    link_tx_packets=8,
)


def nest_of(peer: PeerInfo) -> dict[int, bytes]:
    """Payloads of the nest, without padding."""
    (found,) = split(build_peer(peer, 0, 7, 42))
    ((_, raw),) = attributes.payloads(found.body[4:]).items()
    told = attributes.payloads(raw)
    told.pop(0, None)
    return told


def answer(*rows: bytes, flags: int = 0) -> bytes:
    return message(DCO, flags, struct.pack("=BBH", 7, 1, 0) + nest(8, *rows), seq=7, port_id=42)


def test_a_peer_of_ipv4_has_the_bytes_of_the_drivers_answer() -> None:
    padding = attribute(0, b"")
    expected = answer(
        u32(1, 3),
        attribute(2, sockaddr_in("192.0.2.7", 1194)),
        attribute(3, b"\x0a\x08\x00\x02"),
        attribute(4, IPv6Address("fd00::2").packed),
        attribute(5, b"\xc0\x00\x02\x01"),
        attribute(6, b"\x04\xab"),
        u32(7, 10),
        u32(8, 120),
        # 24 bytes of headers and 88 of attributes: without a pad, a header of 4 would leave the value askew.
        padding,
        u64(9, 1),
        padding,
        u64(10, 1 << 40),
        u32(11, 3),
        u32(12, 4),
        padding,
        u64(13, 5),
        padding,
        u64(14, 6),
        u32(15, 7),
        u32(16, 8),
    )
    assert build_peer(PEER, 0, 7, 42) == expected


def test_a_peer_without_addresses_tells_numbers_only() -> None:
    bare = replace(PEER, remote=None, local=None, vpn_ipv4=None, vpn_ipv6=None)
    assert sorted(nest_of(bare)) == [1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]


def test_a_remote_of_ipv6_is_told_with_its_scope() -> None:
    told = nest_of(replace(PEER, remote=Remote(IPv6Address("fe80::7"), 1194, 5), local=IPv6Address("fe80::1")))
    assert told[2] == sockaddr_in6("fe80::7", 1194, 5)
    assert told[5] == IPv6Address("fe80::1").packed


@pytest.mark.parametrize(("remote", "length"), [("192.0.2.7", 4), ("2001:db8::7", 16)])
def test_an_unknown_local_address_is_told_as_zeros_of_the_remotes_family(remote: str, length: int) -> None:
    address = IPv4Address(remote) if length == 4 else IPv6Address(remote)
    assert nest_of(replace(PEER, remote=Remote(address, 1194), local=None))[5] == bytes(length)


def test_packet_counters_wrap_at_32_bits() -> None:
    assert nest_of(replace(PEER, vpn_rx_packets=(1 << 32) + 5))[11] == struct.pack("=I", 5)


def test_an_answer_names_no_ifindex() -> None:
    (found,) = split(build_peer(PEER, 0, 7, 42))
    assert list(attributes.payloads(found.body[4:])) == [8]


def test_a_message_of_a_dump_is_marked_as_multipart() -> None:
    (found,) = split(build_peer(PEER, 2, 7, 42))
    assert found.flags == 2


counters = st.integers(0, (1 << 64) - 1)
peers = st.builds(
    PeerInfo,
    peer_id=st.integers(0, 0xFFFFFE),
    remote=st.none() | st.builds(Remote, st.ip_addresses(), st.integers(0, 0xFFFF)),
    local=st.none(),
    local_port=st.integers(0, 0xFFFF),
    vpn_ipv4=st.none() | st.ip_addresses(v=4),
    vpn_ipv6=st.none() | st.ip_addresses(v=6),
    keepalive_interval=st.integers(0, 86400),
    keepalive_timeout=st.integers(0, 86400),
    vpn_rx_bytes=counters,
    vpn_tx_bytes=counters,
    vpn_rx_packets=counters,
    vpn_tx_packets=counters,
    link_rx_bytes=counters,
    link_tx_bytes=counters,
    link_rx_packets=counters,
    link_tx_packets=counters,
)


@given(peers)
def test_integers_of_64_bits_are_aligned_in_the_message(peer: PeerInfo) -> None:
    raw = build_peer(peer, 0, 7, 42)
    offset = 24
    while offset < len(raw):
        length, type_ = struct.unpack_from("=HH", raw, offset)
        if type_ in {9, 10, 13, 14}:
            assert (offset + 4) % 8 == 0
        offset += length + -length % 4


class DcoAnswer(genlmsg):  # type: ignore[misc]
    """The answer as pyroute2 would have it."""

    nla_map = (("UNSPEC", "none"), *((f"A{index}", "hex") for index in range(1, 8)), ("GET_PEER", "peer"))

    class peer(nla):  # type: ignore[misc]  # noqa: N801 - pyroute2 finds it by this name
        nla_map = (
            ("PAD", "none"),
            ("PEER_ID", "uint32"),
            ("SOCKADDR_REMOTE", "cdata"),
            ("IPV4", "ip4addr"),
            ("IPV6", "ip6addr"),
            ("LOCAL_IP", "cdata"),
            ("LOCAL_PORT", "be16"),
            ("KEEPALIVE_INTERVAL", "uint32"),
            ("KEEPALIVE_TIMEOUT", "uint32"),
            ("VPN_RX_BYTES", "uint64"),
            ("VPN_TX_BYTES", "uint64"),
            ("VPN_RX_PACKETS", "uint32"),
            ("VPN_TX_PACKETS", "uint32"),
            ("LINK_RX_BYTES", "uint64"),
            ("LINK_TX_BYTES", "uint64"),
            ("LINK_RX_PACKETS", "uint32"),
            ("LINK_TX_PACKETS", "uint32"),
        )


@given(peers)
def test_pyroute2_reads_back_what_was_told(peer: PeerInfo) -> None:
    decoded = DcoAnswer(build_peer(peer, 0, 7, 42))
    decoded.decode()
    told = decoded.get_attr("GET_PEER")
    assert told.get_attr("PEER_ID") == peer.peer_id
    assert told.get_attr("IPV4") == (None if peer.vpn_ipv4 is None else str(peer.vpn_ipv4))
    assert told.get_attr("LOCAL_PORT") == peer.local_port
    assert told.get_attr("KEEPALIVE_TIMEOUT") == peer.keepalive_timeout
    assert told.get_attr("VPN_TX_BYTES") == peer.vpn_tx_bytes
    assert told.get_attr("LINK_RX_BYTES") == peer.link_rx_bytes
    assert told.get_attr("LINK_TX_PACKETS") == peer.link_tx_packets % (1 << 32)


@pytest.mark.parametrize("reason", DelReason)
def test_a_deletion_has_the_bytes_of_the_drivers_notice(reason: DelReason) -> None:
    notice = DeletionNotice(Family.OVPN_DCO_V2, ifindex=12, peer_id=3, reason=reason)
    body = struct.pack("=BBH", 3, 1, 0) + u32(1, 12) + nest(4, u8(1, reason), u32(2, 3))
    assert build_notice(notice) == message(DCO, 0, body, seq=0, port_id=0)
