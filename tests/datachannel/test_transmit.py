"""Device to link: every check, its drop reason, and what is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.outcomes import KeyExhausted
from dataplane.datachannel.wire import PACKET_ID_MAX
from dataplane.vocabulary import Column, DropReason, KeySlot, Mode

if TYPE_CHECKING:
    from tests.datachannel.conftest import Maker, Tunnel


def exhaust(tunnel: Tunnel, left: int) -> None:
    """Leaves the primary key this many packet-ids."""
    assert tunnel.peer.keys.primary is not None
    tunnel.peer.keys.primary.sent = PACKET_ID_MAX - left


# What goes through


@pytest.mark.parametrize("destination", ["10.8.0.2", "fd00::2"])
def test_far_end_opens_what_was_sealed_in_order(make: Maker, tunnel: Tunnel, destination: str) -> None:
    packets = [make.ip_packet(destination, destination, bytes([number])) for number in range(5)]
    sealed = tunnel.channel.seal_batch(packets, 1)
    assert [peer for peer, _ in sealed] == [tunnel.peer] * 5
    assert [tunnel.far.open(datagram) for _, datagram in sealed] == [
        (1, packet_id, packet) for packet_id, packet in enumerate(packets, start=1)
    ]


def test_each_packet_goes_to_the_peer_of_its_destination(make: Maker, tunnel: Tunnel) -> None:
    other = tunnel.add_peer(2, "10.8.0.3")
    far = tunnel.install(2, KeySlot.PRIMARY, key_id=0)
    to_other = make.ip_packet("10.8.0.1", "10.8.0.3")
    (first, _), (second, datagram) = tunnel.channel.seal_batch([make.outbound, to_other], 1)
    assert (first, second) == (tunnel.peer, other)
    assert far.open(datagram) == (2, 1, to_other)


def test_peer_that_knows_us_by_another_number_is_sent_that_number(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_tx_id(1, 0xABCDE)
    (datagram,) = tunnel.send(make.outbound)
    assert tunnel.far.open(datagram) == (0xABCDE, 1, make.outbound)
    assert tunnel.receive(tunnel.far.seal(make.inbound, peer_id=1)) == [make.inbound]


def test_without_a_number_of_its_own_a_peer_is_sent_its_peer_id(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_tx_id(1, 5)
    tunnel.channel.set_tx_id(1, None)
    (datagram,) = tunnel.send(make.outbound)
    assert tunnel.far.open(datagram) == (1, 1, make.outbound)


@pytest.mark.parametrize("destination", ["10.8.0.2", "224.0.0.1", "255.255.255.255", "ff02::1"])
def test_p2p_sends_everything_to_the_one_peer(make: Maker, destination: str) -> None:
    tunnel = make.tunnel(Mode.P2P)
    packet = make.ip_packet(destination, destination)
    assert [tunnel.far.open(datagram)[2] for datagram in tunnel.send(packet)] == [packet]


def test_counters_are_exact_to_the_byte(make: Maker, tunnel: Tunnel) -> None:
    tunnel.send(make.outbound, make.outbound, now_ns=9)
    row = tunnel.peer.row
    assert row[Column.VPN_TX_BYTES] == 2 * len(make.outbound)
    assert row[Column.VPN_TX_PACKETS] == 2
    assert row[Column.LINK_TX_BYTES] == 2 * (len(make.outbound) + 24)
    assert row[Column.LINK_TX_PACKETS] == 2
    assert row[Column.LAST_TX_NS] == 9
    assert row[Column.SENT_PRIMARY] == 2
    assert not any(tunnel.device_row)


# Keys


def test_primary_key_seals(make: Maker, tunnel: Tunnel) -> None:
    second = tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    (before,) = tunnel.send(make.outbound)
    tunnel.channel.swap_keys(1)
    (after,) = tunnel.send(make.outbound)
    assert tunnel.far.open(before)[1] == 1
    assert second.open(after)[1] == 1


def test_key_goes_on_counting_after_a_swap_there_and_back(make: Maker, tunnel: Tunnel) -> None:
    tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    tunnel.send(make.outbound)
    tunnel.channel.swap_keys(1)
    tunnel.channel.swap_keys(1)
    (datagram,) = tunnel.send(make.outbound)
    assert tunnel.far.open(datagram)[1] == 2


def test_new_key_in_the_same_slot_begins_with_packet_id_one(make: Maker, tunnel: Tunnel) -> None:
    tunnel.send(make.outbound)
    new = tunnel.install(1, KeySlot.PRIMARY, key_id=1)
    (datagram,) = tunnel.send(make.outbound)
    assert new.open(datagram)[1] == 1


def test_sent_columns_follow_sealing_and_swapping(make: Maker, tunnel: Tunnel) -> None:
    tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    tunnel.send(make.outbound, make.outbound)
    tunnel.channel.swap_keys(1)
    tunnel.send(make.outbound)
    assert tunnel.peer.row[Column.SENT_PRIMARY] == 1
    assert tunnel.peer.row[Column.SENT_SECONDARY] == 2


# Drops


@pytest.mark.parametrize(
    "packet", [b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x00" + bytes(60)], ids=["empty", "4", "6", "0"]
)
def test_what_is_no_ip_is_charged_to_the_device(tunnel: Tunnel, packet: bytes) -> None:
    assert tunnel.send(packet) == []
    assert tunnel.device_drops == {DropReason.TX_NOT_IP: 1}


@pytest.mark.parametrize("destination", ["10.8.0.3", "224.0.0.1", "255.255.255.255", "fd00::3", "ff02::1"])
def test_destination_of_no_peer_is_charged_to_the_device(make: Maker, tunnel: Tunnel, destination: str) -> None:
    assert tunnel.send(make.ip_packet(destination, destination)) == []
    assert tunnel.device_drops == {DropReason.TX_NO_PEER: 1}


def test_p2p_device_without_peer_has_no_peer_to_send_to(make: Maker) -> None:
    tunnel = make.tunnel(Mode.P2P)
    tunnel.channel.remove_peer(1)
    assert tunnel.send(make.outbound) == []
    assert tunnel.device_drops == {DropReason.TX_NO_PEER: 1}


def test_packet_without_primary_key_is_in_vpn_tx_but_not_in_link_tx(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.swap_keys(1)
    assert tunnel.send(make.outbound) == []
    assert tunnel.drops == {DropReason.TX_NO_KEY: 1}
    assert tunnel.peer.row[Column.VPN_TX_BYTES] == len(make.outbound)
    assert tunnel.peer.row[Column.LINK_TX_PACKETS] == 0
    assert tunnel.peer.row[Column.LAST_TX_NS] == 0


def test_bad_packet_in_a_batch_costs_no_other(make: Maker, tunnel: Tunnel) -> None:
    sealed = tunnel.send(b"", make.outbound, make.ip_packet("10.8.0.1", "10.8.0.9"), make.outbound)
    assert [tunnel.far.open(datagram)[2] for datagram in sealed] == [make.outbound] * 2


# Exhaustion


def test_last_packet_id_is_still_sent(make: Maker, tunnel: Tunnel) -> None:
    exhaust(tunnel, left=1)
    (datagram,) = tunnel.send(make.outbound)
    assert tunnel.far.open(datagram)[1] == PACKET_ID_MAX
    assert tunnel.peer.row[Column.SENT_PRIMARY] == PACKET_ID_MAX
    assert KeyExhausted(tunnel.peer, 0) not in tunnel.channel.take_events()


def test_packet_after_the_last_packet_id_is_dropped_and_reported_once(make: Maker, tunnel: Tunnel) -> None:
    exhaust(tunnel, left=1)
    assert len(tunnel.send(make.outbound)) == 1
    tunnel.channel.take_events()
    assert tunnel.send(make.outbound, make.outbound) == []
    assert tunnel.drops == {DropReason.TX_PACKET_ID_EXHAUSTED: 1, DropReason.TX_NO_KEY: 1}
    assert tunnel.channel.take_events() == [KeyExhausted(tunnel.peer, 0)]


def test_exhausted_key_is_removed_for_both_directions(make: Maker, tunnel: Tunnel) -> None:
    exhaust(tunnel, left=0)
    tunnel.send(make.outbound)
    assert tunnel.receive(tunnel.far.seal(make.inbound)) == []
    tunnel.wait_for_keys()
    assert tunnel.drops == {DropReason.TX_PACKET_ID_EXHAUSTED: 1, DropReason.RX_UNKNOWN_KEY_ID: 1}
    assert tunnel.peer.row[Column.SENT_PRIMARY] == 0


def test_exhausted_key_does_not_come_back_when_the_slots_are_swapped(make: Maker, tunnel: Tunnel) -> None:
    exhaust(tunnel, left=0)
    tunnel.send(make.outbound)
    tunnel.channel.swap_keys(1)
    assert tunnel.peer.keys.secondary is None
    tunnel.channel.swap_keys(1)
    assert tunnel.peer.keys.primary is None
    assert tunnel.receive(tunnel.far.seal(make.inbound)) == []


def test_exhaustion_leaves_the_secondary_key_where_it_is(make: Maker, tunnel: Tunnel) -> None:
    second = tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    exhaust(tunnel, left=0)
    tunnel.send(make.outbound)
    assert tunnel.receive(second.seal(make.inbound)) == [make.inbound]
    assert tunnel.send(make.outbound) == []
    tunnel.channel.swap_keys(1)
    assert [second.open(datagram)[1] for datagram in tunnel.send(make.outbound)] == [1]


# Anything at all


@given(packets=st.lists(st.binary(max_size=80), max_size=20))
def test_any_bytes_are_sealed_or_dropped(make: Maker, packets: list[bytes]) -> None:
    tunnel = make.tunnel(Mode.P2P)
    sealed = tunnel.send(*packets)
    assert len(sealed) + sum(tunnel.device_drops.values()) == len(packets)
    assert tunnel.drops == {}
