"""Link to device: every check, its drop reason, and what a packet moves on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.outcomes import Floated
from dataplane.datachannel.wire import DATAGRAM_MAX, KEEPALIVE
from dataplane.vocabulary import PEER_ID_UNDEF, Column, DropReason, KeySlot, Mode

if TYPE_CHECKING:
    from dataplane.datachannel.datagram import SockAddr
    from tests.datachannel.conftest import Maker, Tunnel

HOME: SockAddr = ("198.51.100.1", 1194)
AWAY: SockAddr = ("203.0.113.9", 4242)
SECOND = 1_000_000_000


# What comes through


@pytest.mark.parametrize(("source", "destination"), [("10.8.0.2", "10.8.0.1"), ("fd00::2", "fd00::1")])
def test_packets_come_out_in_order_with_their_peer(make: Maker, tunnel: Tunnel, source: str, destination: str) -> None:
    packets = [make.ip_packet(source, destination, bytes([number])) for number in range(5)]
    datagrams = [(tunnel.far.seal(packet), HOME, None) for packet in packets]
    opened = tunnel.channel.open_batch(7, datagrams, 1)
    assert opened == [(tunnel.peer, packet) for packet in packets]
    assert tunnel.drops == tunnel.device_drops == {}


def test_link_rx_counts_the_openvpn_packet_and_vpn_rx_waits_for_delivery(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(tunnel.far.seal(make.inbound))
    assert tunnel.peer.row[Column.LINK_RX_BYTES] == len(make.inbound) + 24
    assert tunnel.peer.row[Column.LINK_RX_PACKETS] == 1
    assert tunnel.peer.row[Column.VPN_RX_PACKETS] == 0


def test_link_rx_counts_failures_and_replays_too(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram, datagram, datagram[:-1] + b"\xff")
    assert tunnel.peer.row[Column.LINK_RX_BYTES] == 3 * len(datagram)
    assert tunnel.peer.row[Column.LINK_RX_PACKETS] == 3


def test_both_keys_open_and_slots_do_not_matter(make: Maker, tunnel: Tunnel) -> None:
    second = tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    assert tunnel.receive(tunnel.far.seal(make.inbound), second.seal(make.inbound)) == [make.inbound] * 2
    tunnel.channel.swap_keys(1)
    assert tunnel.receive(tunnel.far.seal(make.inbound), second.seal(make.inbound)) == [make.inbound] * 2


def test_each_key_has_its_own_replay_window(make: Maker, tunnel: Tunnel) -> None:
    second = tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    same_id = [far.seal(make.inbound, packet_id=5) for far in (tunnel.far, second)]
    assert tunnel.receive(*same_id) == [make.inbound] * 2


def test_undefined_peer_id_is_looked_up_by_source_and_socket(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound, peer_id=PEER_ID_UNDEF)
    assert tunnel.receive(datagram) == [make.inbound]


@pytest.mark.parametrize(("source", "socket_id"), [(AWAY, 7), (HOME, 8)])
def test_undefined_peer_id_from_elsewhere_is_unknown(
    make: Maker, tunnel: Tunnel, source: SockAddr, socket_id: int
) -> None:
    datagram = tunnel.far.seal(make.inbound, peer_id=PEER_ID_UNDEF)
    assert tunnel.receive(datagram, source=source, socket_id=socket_id) == []
    assert tunnel.device_drops == {DropReason.RX_UNKNOWN_PEER: 1}


# Drops before a peer is known


@pytest.mark.parametrize("length", [0, 1, 4, 23])
def test_packet_without_room_for_the_overhead_is_truncated(make: Maker, tunnel: Tunnel, length: int) -> None:
    assert tunnel.receive(tunnel.far.seal(make.inbound)[:length]) == []
    assert tunnel.device_drops == {DropReason.RX_TRUNCATED: 1}


@pytest.mark.parametrize("opcode", [opcode for opcode in range(32) if opcode != 9])
def test_other_opcodes_are_not_data(make: Maker, tunnel: Tunnel, opcode: int) -> None:
    datagram = bytes([opcode << 3]) + tunnel.far.seal(make.inbound)[1:]
    assert tunnel.receive(datagram) == []
    assert tunnel.device_drops == {DropReason.RX_NOT_DATA: 1}


def test_longest_possible_packet_passes_and_one_byte_more_is_oversized(make: Maker, tunnel: Tunnel) -> None:
    longest = make.inbound + bytes(DATAGRAM_MAX - 24 - len(make.inbound))
    assert tunnel.receive(tunnel.far.seal(longest), tunnel.far.seal(longest + b"\0")) == [longest]
    assert tunnel.device_drops == {DropReason.RX_OVERSIZED: 1}


def test_unknown_peer_id_is_charged_to_the_device(make: Maker, tunnel: Tunnel) -> None:
    assert tunnel.receive(tunnel.far.seal(make.inbound, peer_id=2)) == []
    assert tunnel.device_drops == {DropReason.RX_UNKNOWN_PEER: 1}
    assert not any(tunnel.peer.row)


# Drops of a known peer


def test_key_id_of_neither_slot_is_unknown(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound)
    assert tunnel.receive(bytes([9 << 3 | 1]) + datagram[1:]) == []
    tunnel.wait_for_keys()
    assert tunnel.drops == {DropReason.RX_UNKNOWN_KEY_ID: 1}


def test_deleted_key_opens_nothing(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.delete_key(1, KeySlot.PRIMARY)
    assert tunnel.receive(tunnel.far.seal(make.inbound)) == []
    tunnel.wait_for_keys()
    assert tunnel.drops == {DropReason.RX_UNKNOWN_KEY_ID: 1}


@given(data=st.data())
def test_any_change_to_a_packet_is_dropped_and_counted_once(make: Maker, data: st.DataObject) -> None:
    tunnel = make.tunnel()
    datagram = bytearray(tunnel.far.seal(make.inbound))
    datagram[data.draw(st.integers(0, len(datagram) - 1))] ^= data.draw(st.integers(1, 255))
    assert tunnel.receive(bytes(datagram)) == []
    tunnel.wait_for_keys()
    assert sum(tunnel.drops.values()) + sum(tunnel.device_drops.values()) == 1
    assert tunnel.peer.row[Column.LAST_RX_NS] == 0


@pytest.mark.parametrize("position", [4, 8, 24, -1])
def test_change_behind_the_first_word_fails_to_decrypt(make: Maker, tunnel: Tunnel, position: int) -> None:
    datagram = bytearray(tunnel.far.seal(make.inbound))
    datagram[position] ^= 1
    assert tunnel.receive(bytes(datagram)) == []
    assert tunnel.drops == {DropReason.RX_DECRYPT_FAILED: 1}


def test_packet_of_another_peer_fails_to_decrypt(make: Maker, tunnel: Tunnel) -> None:
    tunnel.add_peer(2, "10.8.0.3")
    other = tunnel.install(2, KeySlot.PRIMARY, key_id=0)
    assert tunnel.receive(other.seal(make.inbound, peer_id=1)) == []
    assert tunnel.drops == {DropReason.RX_DECRYPT_FAILED: 1}


def test_packet_id_zero_is_dropped(make: Maker, tunnel: Tunnel) -> None:
    assert tunnel.receive(tunnel.far.seal(make.inbound, packet_id=0)) == []
    assert tunnel.drops == {DropReason.RX_PACKET_ID_ZERO: 1}


def test_second_copy_is_a_replay(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound)
    assert tunnel.receive(datagram, datagram) == [make.inbound]
    assert tunnel.drops == {DropReason.RX_REPLAYED: 1}


def test_packet_behind_the_window_is_too_old(make: Maker, tunnel: Tunnel) -> None:
    new, old = (tunnel.far.seal(make.inbound, packet_id=packet_id) for packet_id in (3000, 3000 - 2048))
    assert tunnel.receive(new, old) == [make.inbound]
    assert tunnel.drops == {DropReason.RX_TOO_OLD: 1}


def test_late_packet_after_a_long_silence_is_too_old(make: Maker, tunnel: Tunnel) -> None:
    first, second = tunnel.far.seal(make.inbound), tunnel.far.seal(make.inbound)
    assert tunnel.receive(second, now_ns=1) == [make.inbound]
    assert tunnel.receive(first, now_ns=1 + 30 * SECOND) == []
    assert tunnel.drops == {DropReason.RX_TOO_OLD: 1}


def test_forged_packet_id_does_not_move_the_window(make: Maker, tunnel: Tunnel) -> None:
    genuine = tunnel.far.seal(make.inbound)
    forged = genuine[:4] + b"\xff\xff\xff\xff" + genuine[8:]
    assert tunnel.receive(forged, genuine) == [make.inbound]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x50" + bytes(60), KEEPALIVE[:-1], KEEPALIVE + b"\0"],
    ids=["empty", "half IPv4", "half IPv6", "version 5", "part of a keepalive", "more than a keepalive"],
)
def test_payload_without_a_whole_ip_header_is_not_ip(tunnel: Tunnel, payload: bytes) -> None:
    assert tunnel.receive(tunnel.far.seal(payload)) == []
    assert tunnel.drops == {DropReason.RX_NOT_IP: 1}


@pytest.mark.parametrize("source", ["10.8.0.3", "192.0.2.1", "fd00::3", "fe80::2"])
def test_source_that_is_not_this_peers_fails_the_source_check(make: Maker, tunnel: Tunnel, source: str) -> None:
    tunnel.add_peer(2, "10.8.0.3", "fd00::3")
    assert tunnel.receive(tunnel.far.seal(make.ip_packet(source, source))) == []
    assert tunnel.drops == {DropReason.RX_SOURCE_CHECK: 1}


def test_p2p_checks_no_source(make: Maker) -> None:
    tunnel = make.tunnel(Mode.P2P)
    packets = [make.ip_packet("192.0.2.1", "10.8.0.1"), make.ip_packet("fe80::2", "ff02::1")]
    assert tunnel.receive(*map(tunnel.far.seal, packets)) == packets
    assert tunnel.drops == {}


def test_bad_packet_in_a_batch_costs_no_other(make: Maker, tunnel: Tunnel) -> None:
    good = [tunnel.far.seal(make.inbound) for _ in range(3)]
    batch = [b"", good[0], bytes(24), b"\x48\x00\x00\x01" + bytes(40), good[1], good[1], good[2]]
    assert tunnel.receive(*batch) == [make.inbound] * 3


# Keepalive and the last-received time


def test_keepalive_is_consumed_and_is_no_drop(tunnel: Tunnel) -> None:
    assert tunnel.receive(tunnel.far.seal(KEEPALIVE), now_ns=5) == []
    assert tunnel.drops == tunnel.device_drops == {}
    assert tunnel.peer.row[Column.LINK_RX_BYTES] == 40
    assert tunnel.peer.row[Column.LAST_RX_NS] == 5


def test_packet_dropped_by_the_source_check_shows_that_the_peer_lives(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(tunnel.far.seal(make.ip_packet("192.0.2.1", "10.8.0.1")), now_ns=5)
    assert tunnel.peer.row[Column.LAST_RX_NS] == 5


def test_forged_and_replayed_packets_show_no_life(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram, now_ns=5)
    tunnel.receive(datagram, datagram[:-1] + b"\xff", now_ns=9)
    assert tunnel.peer.row[Column.LAST_RX_NS] == 5


# Float


def test_newest_packet_from_a_new_address_floats_the_peer(make: Maker, tunnel: Tunnel) -> None:
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY) == [make.inbound]
    assert tunnel.peer.remote == AWAY
    assert tunnel.channel.take_events() == [Floated(tunnel.peer)]


def test_newest_packet_on_another_socket_floats_the_peer(make: Maker, tunnel: Tunnel) -> None:
    assert tunnel.receive(tunnel.far.seal(make.inbound), socket_id=8) == [make.inbound]
    assert (tunnel.peer.socket_id, tunnel.peer.remote) == (8, HOME)
    assert tunnel.channel.take_events() == [Floated(tunnel.peer)]


def test_keepalive_floats_the_peer(tunnel: Tunnel) -> None:
    tunnel.receive(tunnel.far.seal(KEEPALIVE), source=AWAY)
    assert tunnel.peer.remote == AWAY


def test_p2p_peer_floats(make: Maker) -> None:
    tunnel = make.tunnel(Mode.P2P)
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY)
    assert tunnel.peer.remote == AWAY


def test_peer_that_stays_does_not_float(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(tunnel.far.seal(make.inbound), tunnel.far.seal(make.inbound))
    assert tunnel.channel.take_events() == []


def test_floated_peer_is_found_at_its_new_source(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY)
    undefined = tunnel.far.seal(make.inbound, peer_id=PEER_ID_UNDEF)
    assert tunnel.receive(undefined, source=HOME) == []
    assert tunnel.receive(undefined, source=AWAY) == [make.inbound]


def test_older_packet_from_the_old_address_is_delivered_but_does_not_float_back(make: Maker, tunnel: Tunnel) -> None:
    older, newer = tunnel.far.seal(make.inbound), tunnel.far.seal(make.inbound)
    tunnel.receive(newer, source=AWAY)
    assert tunnel.receive(older, source=HOME) == [make.inbound]
    assert tunnel.peer.remote == AWAY
    assert tunnel.channel.take_events() == [Floated(tunnel.peer)]


def test_replayed_packet_does_not_float(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram)
    tunnel.receive(datagram, source=AWAY)
    assert tunnel.peer.remote == HOME
    assert tunnel.channel.take_events() == []


def test_forged_packet_does_not_float(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram[:-1] + bytes([datagram[-1] ^ 1]), source=AWAY)
    assert tunnel.peer.remote == HOME
    assert tunnel.channel.take_events() == []


def test_peer_does_not_float_onto_the_endpoint_of_another(make: Maker, tunnel: Tunnel) -> None:
    other = tunnel.add_peer(2, "10.8.0.3", remote=AWAY)
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY) == []
    assert (tunnel.peer.remote, other.remote) == (HOME, AWAY)
    assert tunnel.drops == {DropReason.RX_FLOAT_REFUSED: 1}
    assert tunnel.channel.take_events() == []


def test_peer_floats_onto_an_endpoint_that_was_another_s(make: Maker, tunnel: Tunnel) -> None:
    tunnel.add_peer(2, "10.8.0.3", remote=AWAY)
    tunnel.channel.remove_peer(2)
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY) == [make.inbound]
    assert tunnel.peer.remote == AWAY


def test_straggler_of_the_old_key_does_not_float_back(make: Maker, tunnel: Tunnel) -> None:
    second = tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    tunnel.receive(second.seal(make.inbound), source=AWAY)
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=HOME) == [make.inbound]
    assert tunnel.peer.remote == AWAY


def test_old_key_floats_while_the_new_one_is_not_in_use_yet(make: Maker, tunnel: Tunnel) -> None:
    tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY)
    assert tunnel.peer.remote == AWAY


# Local address


def test_local_address_is_learned_from_each_accepted_packet(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(tunnel.far.seal(make.inbound), local=b"\x0a\0\0\1")
    assert tunnel.peer.local == b"\x0a\0\0\1"
    tunnel.receive(tunnel.far.seal(make.inbound), local=b"\x0a\0\0\2", source=AWAY)
    assert tunnel.peer.local == b"\x0a\0\0\2"


def test_unknown_local_address_leaves_the_known_one(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(tunnel.far.seal(make.inbound), local=b"\x0a\0\0\1")
    tunnel.receive(tunnel.far.seal(make.inbound), local=None)
    tunnel.receive(tunnel.far.seal(make.inbound), local=None, source=AWAY)
    assert tunnel.peer.local == b"\x0a\0\0\1"


def test_refused_packet_teaches_no_local_address(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram, local=b"\x0a\0\0\1")
    tunnel.receive(datagram, datagram[:-1] + bytes([datagram[-1] ^ 1]), local=b"\x0a\0\0\2")
    assert tunnel.peer.local == b"\x0a\0\0\1"


def test_late_packet_of_the_old_endpoint_leaves_the_new_local_address(make: Maker, tunnel: Tunnel) -> None:
    older, newer = tunnel.far.seal(make.inbound), tunnel.far.seal(make.inbound)
    tunnel.receive(newer, source=AWAY, local=b"\x0a\0\0\2")
    tunnel.receive(older, source=HOME, local=b"\x0a\0\0\1")
    assert tunnel.peer.local == b"\x0a\0\0\2"


# Anything at all


@given(datagrams=st.lists(st.binary(max_size=100), max_size=20))
def test_random_bytes_are_dropped_one_by_one(make: Maker, datagrams: list[bytes]) -> None:
    tunnel = make.tunnel()
    assert tunnel.receive(*datagrams) == []
    assert sum(tunnel.drops.values()) + sum(tunnel.device_drops.values()) == len(datagrams)


@given(payloads=st.lists(st.one_of(st.just(KEEPALIVE), st.binary(max_size=80)), max_size=20))
def test_authentic_payloads_are_delivered_consumed_or_dropped(make: Maker, payloads: list[bytes]) -> None:
    tunnel = make.tunnel(Mode.P2P)
    delivered = tunnel.receive(*map(tunnel.far.seal, payloads))
    assert len(delivered) + payloads.count(KEEPALIVE) + sum(tunnel.drops.values()) == len(payloads)
