"""Packets that come before their key."""

from __future__ import annotations

from dataplane.datachannel.early_packets import BYTES_A_DEVICE, HOLD_NS, PACKET_COST, PACKETS_A_PEER
from dataplane.datachannel.keepalive import Keepalive
from dataplane.vocabulary import Column, DropReason, KeySlot
from tests.datachannel.conftest import Maker, Tunnel


def test_packets_before_their_key_come_out_in_order_when_it_is_installed(make: Maker, tunnel: Tunnel) -> None:
    new = make.far_end(key_id=1)
    packets = [make.inbound + bytes([number]) for number in range(3)]
    assert tunnel.receive(*(new.seal(packet) for packet in packets)) == []
    opened = tunnel.channel.install_key(1, KeySlot.SECONDARY, new.data_key(), 2)
    assert opened == [(tunnel.peer, packet) for packet in packets]
    tunnel.wait_for_keys()
    assert tunnel.drops == {}


def test_early_packets_are_counted_on_the_link_once(make: Maker, tunnel: Tunnel) -> None:
    new = make.far_end(key_id=1)
    datagram = new.seal(make.inbound)
    tunnel.receive(datagram)
    tunnel.channel.install_key(1, KeySlot.SECONDARY, new.data_key(), 2)
    assert tunnel.peer.row[Column.LINK_RX_PACKETS] == 1
    assert tunnel.peer.row[Column.LINK_RX_BYTES] == len(datagram)


def test_another_key_leaves_early_packets_waiting(make: Maker, tunnel: Tunnel) -> None:
    first, second = make.far_end(key_id=1), make.far_end(key_id=2)
    tunnel.receive(second.seal(make.inbound))
    assert tunnel.channel.install_key(1, KeySlot.SECONDARY, first.data_key(), 2) == []
    assert tunnel.channel.install_key(1, KeySlot.SECONDARY, second.data_key(), 3) == [(tunnel.peer, make.inbound)]


def test_a_replayed_early_packet_comes_out_once(make: Maker, tunnel: Tunnel) -> None:
    new = make.far_end(key_id=1)
    datagram = new.seal(make.inbound)
    tunnel.receive(datagram, datagram)
    assert len(tunnel.channel.install_key(1, KeySlot.SECONDARY, new.data_key(), 2)) == 1
    assert tunnel.drops == {DropReason.RX_REPLAYED: 1}


def test_a_forged_early_packet_is_counted_when_the_key_comes(make: Maker, tunnel: Tunnel) -> None:
    new = make.far_end(key_id=1)
    tunnel.receive(new.seal(make.inbound)[:-1] + b"\0", new.seal(make.inbound))
    assert len(tunnel.channel.install_key(1, KeySlot.SECONDARY, new.data_key(), 2)) == 1
    assert tunnel.drops == {DropReason.RX_DECRYPT_FAILED: 1}


def test_early_packets_are_dropped_after_the_hold_and_not_before(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(make.far_end(key_id=1).seal(make.inbound), now_ns=5)
    assert tunnel.channel.next_deadline_ns() == 5 + HOLD_NS
    tunnel.channel.run_timers(4 + HOLD_NS)
    assert tunnel.drops == {}
    tunnel.channel.run_timers(5 + HOLD_NS)
    assert tunnel.drops == {DropReason.RX_UNKNOWN_KEY_ID: 1}
    assert tunnel.channel.next_deadline_ns() is None


def test_a_peer_that_sends_with_an_unknown_key_keeps_no_more_than_its_share(make: Maker, tunnel: Tunnel) -> None:
    stranger = make.far_end(key_id=1)
    tunnel.receive(*(stranger.seal(make.inbound) for _ in range(PACKETS_A_PEER + 3)))
    assert tunnel.drops == {DropReason.RX_UNKNOWN_KEY_ID: 3}
    opened = tunnel.channel.install_key(1, KeySlot.SECONDARY, stranger.data_key(), 2)
    assert len(opened) == PACKETS_A_PEER


def test_many_peers_together_keep_no_more_than_the_device_may(make: Maker) -> None:
    tunnel = make.tunnel()
    datagram = make.far_end(key_id=1).seal(make.inbound + bytes(30_000))
    for peer_id in range(2, 40):
        tunnel.add_peer(peer_id, f"10.8.1.{peer_id}")
        tunnel.receive(datagram[:1] + peer_id.to_bytes(3, "big") + datagram[4:])
    tunnel.channel.run_timers(1)
    rows = [tunnel.channel.peer(peer_id).row for peer_id in range(2, 40)]
    dropped = sum(row[Column.DROPS + DropReason.RX_UNKNOWN_KEY_ID] for row in rows)
    assert 38 - dropped == BYTES_A_DEVICE // (len(datagram) + PACKET_COST)


def test_what_was_dropped_makes_room(make: Maker, tunnel: Tunnel) -> None:
    stranger = make.far_end(key_id=1)
    tunnel.receive(*(stranger.seal(make.inbound) for _ in range(PACKETS_A_PEER)))
    tunnel.wait_for_keys()
    tunnel.receive(stranger.seal(make.inbound), now_ns=2 + HOLD_NS)
    assert tunnel.drops == {DropReason.RX_UNKNOWN_KEY_ID: PACKETS_A_PEER}


def test_a_removed_peer_is_charged_before_it_goes(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(make.far_end(key_id=1).seal(make.inbound))
    peer = tunnel.channel.remove_peer(1)
    assert peer.row[Column.DROPS + DropReason.RX_UNKNOWN_KEY_ID] == 1
    assert tunnel.channel.next_deadline_ns() is None


def test_a_peer_that_expires_is_charged_before_it_goes(make: Maker, tunnel: Tunnel) -> None:
    expiring = tunnel.add_peer(2, "10.8.0.3", keepalive=Keepalive(0, 1))
    moment = 1_000_000_000
    tunnel.receive(make.far_end(key_id=1).seal(make.inbound, peer_id=2), now_ns=moment - 1)
    assert tunnel.channel.run_timers(moment).expired == [expiring]
    assert expiring.row[Column.DROPS + DropReason.RX_UNKNOWN_KEY_ID] == 1


def test_early_packets_of_a_removed_peer_do_not_reach_its_successor(make: Maker, tunnel: Tunnel) -> None:
    new = make.far_end(key_id=1)
    tunnel.receive(new.seal(make.inbound))
    tunnel.channel.remove_peer(1)
    tunnel.channel.add_peer(make.peer(1, "10.8.0.2"), 2)
    assert tunnel.channel.install_key(1, KeySlot.PRIMARY, new.data_key(), 3) == []


def test_the_first_packet_may_come_before_the_first_key(make: Maker) -> None:
    tunnel = make.tunnel()
    tunnel.channel.delete_key(1, KeySlot.PRIMARY)
    first = make.far_end(key_id=0)
    tunnel.receive(first.seal(make.inbound))
    assert tunnel.channel.install_key(1, KeySlot.PRIMARY, first.data_key(), 2) == [(tunnel.peer, make.inbound)]
