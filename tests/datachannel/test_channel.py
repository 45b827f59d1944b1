"""A device's channel as a whole: configuration, delivery, timers and events."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.keepalive import Keepalive
from dataplane.datachannel.outcomes import Floated, KeyExhausted, PeerExists, UnknownPeer
from dataplane.datachannel.wire import KEEPALIVE, PACKET_ID_MAX
from dataplane.vocabulary import Column, DropReason, KeySlot, Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataplane.datachannel.channel import DataChannel, SockAddr
    from tests.datachannel.conftest import Maker, Tunnel

AWAY: SockAddr = ("203.0.113.9", 4242)
SECOND = 1_000_000_000


# Configuration


def test_peer_is_what_was_added(tunnel: Tunnel) -> None:
    assert tunnel.channel.peer(1) is tunnel.peer


@pytest.mark.parametrize(
    "call",
    [
        lambda channel: channel.peer(9),
        lambda channel: channel.remove_peer(9),
        lambda channel: channel.set_keepalive(9, 10, 60, 0),
        lambda channel: channel.set_remote(9, AWAY, None),
        lambda channel: channel.set_vpn_addresses(9, None, None),
        lambda channel: channel.install_key(9, KeySlot.PRIMARY, None, 0),
        lambda channel: channel.swap_keys(9),
        lambda channel: channel.delete_key(9, KeySlot.PRIMARY),
    ],
)
def test_every_call_about_an_unknown_peer_says_so(tunnel: Tunnel, call: Callable[[DataChannel], object]) -> None:
    with pytest.raises(UnknownPeer):
        call(tunnel.channel)


def test_refused_peer_has_no_timers(tunnel: Tunnel) -> None:
    with pytest.raises(PeerExists):
        tunnel.add_peer(1, "10.8.0.9", keepalive=Keepalive(10, 60))
    assert tunnel.channel.next_deadline_ns() is None


def test_removed_peer_neither_receives_nor_sends(make: Maker, tunnel: Tunnel) -> None:
    assert tunnel.channel.remove_peer(1) is tunnel.peer
    assert tunnel.receive(tunnel.far.seal(make.inbound)) == []
    assert tunnel.send(make.outbound) == []
    assert tunnel.device_drops == {DropReason.RX_UNKNOWN_PEER: 1, DropReason.TX_NO_PEER: 1}
    assert not any(tunnel.peer.row)


def test_p2p_peer_is_replaced_by_removing_it_first(make: Maker) -> None:
    tunnel = make.tunnel(Mode.P2P)
    with pytest.raises(PeerExists):
        tunnel.add_peer(2)
    tunnel.channel.remove_peer(1)
    second = tunnel.add_peer(2)
    far = tunnel.install(2, KeySlot.PRIMARY, key_id=0)
    ((peer, datagram),) = tunnel.channel.seal_batch([make.outbound], 1)
    assert peer is second
    assert far.open(datagram)[0] == 2


def test_set_remote_moves_the_peer_and_is_no_float(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_remote(1, AWAY, b"\x0a\0\0\1")
    assert (tunnel.peer.remote, tunnel.peer.local) == (AWAY, b"\x0a\0\0\1")
    assert tunnel.receive(tunnel.far.seal(make.inbound, peer_id=0xFFFFFF), source=AWAY) == [make.inbound]
    assert tunnel.channel.take_events() == []


def test_set_vpn_addresses_changes_destination_and_source_check(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_vpn_addresses(1, ip_address("10.8.0.7").packed, None)
    assert tunnel.send(make.outbound) == []
    assert len(tunnel.send(make.ip_packet("10.8.0.1", "10.8.0.7"))) == 1
    assert tunnel.receive(tunnel.far.seal(make.inbound)) == []
    assert tunnel.drops == {DropReason.RX_SOURCE_CHECK: 1}


def test_rekey_as_openvpn_does_it_loses_no_packet(make: Maker, tunnel: Tunnel) -> None:
    old, new = tunnel.far, tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    assert tunnel.receive(old.seal(make.inbound), new.seal(make.inbound)) == [make.inbound] * 2
    tunnel.channel.swap_keys(1)
    assert tunnel.receive(old.seal(make.inbound), new.seal(make.inbound)) == [make.inbound] * 2
    tunnel.channel.delete_key(1, KeySlot.SECONDARY)
    assert tunnel.receive(old.seal(make.inbound), new.seal(make.inbound)) == [make.inbound]
    tunnel.wait_for_keys()
    assert tunnel.drops == {DropReason.RX_UNKNOWN_KEY_ID: 1}
    assert [new.open(datagram)[2] for datagram in tunnel.send(make.outbound)] == [make.outbound]


# Delivery


def test_delivered_counts_inner_bytes(tunnel: Tunnel) -> None:
    tunnel.channel.delivered(tunnel.peer, 1400)
    tunnel.channel.delivered(tunnel.peer, 60)
    assert tunnel.peer.row[Column.VPN_RX_BYTES] == 1460
    assert tunnel.peer.row[Column.VPN_RX_PACKETS] == 2


# Timers


def keepalive_tunnel(make: Maker, interval_s: int, timeout_s: int) -> Tunnel:
    tunnel = make.tunnel()
    tunnel.channel.set_keepalive(1, interval_s, timeout_s, 0)
    return tunnel


def test_without_keepalive_there_is_no_deadline(tunnel: Tunnel) -> None:
    assert tunnel.channel.next_deadline_ns() is None
    timers = tunnel.channel.run_timers(10**18)
    assert (timers.keepalives, timers.expired) == ([], [])


def test_added_peer_starts_its_clocks(make: Maker, tunnel: Tunnel) -> None:
    peer = make.peer(2, "10.8.0.3", keepalive=Keepalive(10, 60))
    tunnel.channel.add_peer(peer, 5 * SECOND)
    assert tunnel.channel.next_deadline_ns() == 15 * SECOND
    assert tunnel.channel.run_timers(64 * SECOND).expired == []
    assert tunnel.channel.run_timers(65 * SECOND).expired == [peer]


def test_keepalive_is_sent_each_interval_of_silence(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 0)
    assert tunnel.channel.run_timers(10 * SECOND - 1).keepalives == []
    ((peer, datagram),) = tunnel.channel.run_timers(10 * SECOND).keepalives
    assert peer is tunnel.peer
    assert tunnel.far.open(datagram) == (1, 1, KEEPALIVE)
    assert tunnel.channel.run_timers(10 * SECOND).keepalives == []
    assert tunnel.channel.next_deadline_ns() == 20 * SECOND
    assert len(tunnel.channel.run_timers(20 * SECOND).keepalives) == 1


def test_keepalive_is_in_link_tx_but_not_in_vpn_tx(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 0)
    tunnel.channel.run_timers(10 * SECOND)
    row = tunnel.peer.row
    assert (row[Column.LINK_TX_BYTES], row[Column.LINK_TX_PACKETS]) == (40, 1)
    assert (row[Column.VPN_TX_BYTES], row[Column.VPN_TX_PACKETS]) == (0, 0)
    assert (row[Column.LAST_TX_NS], row[Column.SENT_PRIMARY]) == (10 * SECOND, 1)


def test_sent_packet_pushes_the_keepalive(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 0)
    tunnel.send(make.outbound, now_ns=9 * SECOND)
    assert tunnel.channel.run_timers(10 * SECOND).keepalives == []
    assert tunnel.channel.next_deadline_ns() == 19 * SECOND
    assert len(tunnel.channel.run_timers(19 * SECOND).keepalives) == 1


def test_received_packet_does_not_push_the_keepalive(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 0)
    tunnel.receive(tunnel.far.seal(make.inbound), now_ns=9 * SECOND)
    assert len(tunnel.channel.run_timers(10 * SECOND).keepalives) == 1


def test_without_primary_key_no_keepalive_is_sent_and_nothing_is_dropped(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 0)
    tunnel.channel.swap_keys(1)
    assert tunnel.channel.run_timers(10 * SECOND).keepalives == []
    assert tunnel.drops == {}
    assert tunnel.channel.next_deadline_ns() == 20 * SECOND
    tunnel.channel.swap_keys(1)
    assert len(tunnel.channel.run_timers(20 * SECOND).keepalives) == 1


def test_keepalive_that_finds_the_key_exhausted_reports_it(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 0)
    assert tunnel.peer.keys.primary is not None
    tunnel.peer.keys.primary.sent = PACKET_ID_MAX
    assert tunnel.channel.run_timers(10 * SECOND).keepalives == []
    assert tunnel.channel.take_events() == [KeyExhausted(tunnel.peer, 0)]
    assert tunnel.drops == {DropReason.TX_PACKET_ID_EXHAUSTED: 1}


def test_silent_peer_expires_and_is_gone(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 0, 60)
    assert tunnel.channel.run_timers(60 * SECOND - 1).expired == []
    assert tunnel.channel.run_timers(60 * SECOND).expired == [tunnel.peer]
    with pytest.raises(UnknownPeer):
        tunnel.channel.peer(1)
    assert tunnel.send(make.outbound) == []
    assert tunnel.channel.next_deadline_ns() is None


def test_expired_peer_gets_no_keepalive(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 60, 60)
    timers = tunnel.channel.run_timers(60 * SECOND)
    assert (timers.keepalives, timers.expired) == ([], [tunnel.peer])


@pytest.mark.parametrize(
    "payload", [KEEPALIVE, b"not IP", b"\x45" + bytes(19)], ids=["keepalive", "junk", "bad source"]
)
def test_any_authentic_packet_pushes_the_expiry(make: Maker, payload: bytes) -> None:
    tunnel = keepalive_tunnel(make, 0, 60)
    tunnel.receive(tunnel.far.seal(payload), now_ns=59 * SECOND)
    assert tunnel.channel.run_timers(60 * SECOND).expired == []
    assert tunnel.channel.next_deadline_ns() == 119 * SECOND
    assert tunnel.channel.run_timers(119 * SECOND).expired == [tunnel.peer]


def test_forged_and_replayed_packets_do_not_push_the_expiry(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 0, 60)
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram, now_ns=1 * SECOND)
    tunnel.receive(datagram, datagram[:-1] + bytes([datagram[-1] ^ 1]), now_ns=59 * SECOND)
    assert tunnel.channel.run_timers(61 * SECOND).expired == [tunnel.peer]


def test_sent_packet_does_not_push_the_expiry(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 0, 60)
    tunnel.send(make.outbound, now_ns=59 * SECOND)
    assert tunnel.channel.run_timers(60 * SECOND).expired == [tunnel.peer]


def test_setting_the_keepalive_restarts_both_clocks(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 60)
    tunnel.channel.set_keepalive(1, 10, 60, 9 * SECOND)
    timers = tunnel.channel.run_timers(10 * SECOND)
    assert (timers.keepalives, timers.expired) == ([], [])
    assert len(tunnel.channel.run_timers(19 * SECOND).keepalives) == 1
    assert tunnel.channel.run_timers(68 * SECOND).expired == []
    assert tunnel.channel.run_timers(69 * SECOND).expired == [tunnel.peer]


def test_shorter_keepalive_is_due_earlier(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 100, 0)
    tunnel.channel.set_keepalive(1, 10, 0, 0)
    assert tunnel.channel.next_deadline_ns() == 10 * SECOND
    assert len(tunnel.channel.run_timers(10 * SECOND).keepalives) == 1


def test_keepalive_set_to_zero_is_off(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 60)
    tunnel.channel.set_keepalive(1, 0, 0, 0)
    timers = tunnel.channel.run_timers(10**18)
    assert (timers.keepalives, timers.expired) == ([], [])
    assert tunnel.channel.next_deadline_ns() is None


def test_removed_peer_has_no_timers_left(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 10, 60)
    tunnel.channel.remove_peer(1)
    assert tunnel.channel.next_deadline_ns() is None
    timers = tunnel.channel.run_timers(60 * SECOND)
    assert (timers.keepalives, timers.expired) == ([], [])


def test_new_peer_with_the_id_of_a_removed_one_has_its_own_clocks(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 0, 60)
    tunnel.channel.remove_peer(1)
    peer = make.peer(1, "10.8.0.2", keepalive=Keepalive(0, 60))
    tunnel.channel.add_peer(peer, 30 * SECOND)
    assert tunnel.channel.run_timers(60 * SECOND).expired == []
    assert tunnel.channel.run_timers(90 * SECOND).expired == [peer]


def test_one_expired_peer_leaves_the_others(make: Maker) -> None:
    tunnel = keepalive_tunnel(make, 0, 60)
    other = tunnel.add_peer(2, "10.8.0.3", keepalive=Keepalive(0, 90))
    assert tunnel.channel.run_timers(60 * SECOND).expired == [tunnel.peer]
    assert tunnel.channel.run_timers(90 * SECOND).expired == [other]


@given(
    interval_s=st.integers(0, 5),
    timeout_s=st.integers(0, 5),
    actions=st.lists(st.sampled_from(["send", "receive", "wait"]), max_size=40),
)
def test_waking_at_the_deadlines_does_what_waking_always_would(
    make: Maker, interval_s: int, timeout_s: int, actions: list[str]
) -> None:
    """Half a second a step; the oracle is asked at every step, the channel only when it wants to be."""
    tunnel = keepalive_tunnel(make, interval_s, timeout_s)
    last_tx_s, last_rx_s = 0.0, 0.0
    for step, action in enumerate(actions, start=1):
        now_s = step / 2
        now_ns = step * SECOND // 2
        if action == "send":
            last_tx_s = now_s
            tunnel.send(make.outbound, now_ns=now_ns)
        elif action == "receive":
            last_rx_s = now_s
            tunnel.receive(tunnel.far.seal(make.inbound), now_ns=now_ns)

        expires = bool(timeout_s) and now_s - last_rx_s >= timeout_s
        sends = not expires and bool(interval_s) and now_s - last_tx_s >= interval_s
        keepalives, expired = 0, False
        deadline_ns = tunnel.channel.next_deadline_ns()
        if deadline_ns is not None and deadline_ns <= now_ns:
            timers = tunnel.channel.run_timers(now_ns)
            keepalives, expired = len(timers.keepalives), bool(timers.expired)
        assert (keepalives, expired) == (int(sends), expires)
        if expires:
            break
        if sends:
            last_tx_s = now_s


# Events


def test_events_are_taken_once_and_in_order(make: Maker, tunnel: Tunnel) -> None:
    assert tunnel.peer.keys.primary is not None
    tunnel.peer.keys.primary.sent = PACKET_ID_MAX
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY)
    tunnel.send(make.outbound)
    assert tunnel.channel.take_events() == [Floated(tunnel.peer), KeyExhausted(tunnel.peer, 0)]
    assert tunnel.channel.take_events() == []


def test_event_that_happens_again_is_told_once(make: Maker, tunnel: Tunnel) -> None:
    for source in (AWAY, ("198.51.100.1", 1194), AWAY):
        tunnel.receive(tunnel.far.seal(make.inbound), source=source)
    assert tunnel.channel.take_events() == [Floated(tunnel.peer)]
    assert tunnel.peer.remote == AWAY


def test_event_of_a_removed_peer_is_still_told(make: Maker, tunnel: Tunnel) -> None:
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY)
    tunnel.channel.remove_peer(1)
    assert tunnel.channel.take_events() == [Floated(tunnel.peer)]


def test_drop_on_device_counts_in_its_row(tunnel: Tunnel) -> None:
    tunnel.channel.drop_on_device(DropReason.TX_BAD_VIRTIO_HEADER)
    assert tunnel.device_drops == {DropReason.TX_BAD_VIRTIO_HEADER: 1}
    assert sum(tunnel.device_row) == 1
