"""What a device does with packets from elsewhere than their peer is, when it does not just follow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dataplane.datachannel.outcomes import ASK_INTERVAL_NS, FloatAsked, Floated
from dataplane.datachannel.wire import KEEPALIVE
from dataplane.vocabulary import Column, DropReason, FloatPolicy, KeySlot, Mode

if TYPE_CHECKING:
    from dataplane.datachannel.datagram import SockAddr
    from tests.datachannel.conftest import Maker, Tunnel

HOME: SockAddr = ("198.51.100.1", 1194)
AWAY: SockAddr = ("203.0.113.9", 4242)
FURTHER: SockAddr = ("203.0.113.9", 4243)

NEITHER_ALLOWS = pytest.mark.parametrize("policy", [FloatPolicy.ASK, FloatPolicy.DENY])


def refused(count: int) -> dict[DropReason, int]:
    return {DropReason.RX_FLOAT_REFUSED: count}


@NEITHER_ALLOWS
@pytest.mark.parametrize("mode", Mode)
def test_newest_packet_from_elsewhere_is_dropped_and_the_peer_stays(
    make: Maker, mode: Mode, policy: FloatPolicy
) -> None:
    tunnel = make.tunnel(mode)
    tunnel.channel.set_float_policy(policy)
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY, local=b"\x0a\0\0\1") == []
    assert tunnel.receive(tunnel.far.seal(make.inbound), socket_id=8) == []
    assert (tunnel.peer.socket_id, tunnel.peer.remote, tunnel.peer.local) == (7, HOME, None)
    assert tunnel.drops == refused(2)


@NEITHER_ALLOWS
def test_older_packet_from_elsewhere_is_dropped_too_and_asks_nothing(
    make: Maker, tunnel: Tunnel, policy: FloatPolicy
) -> None:
    tunnel.channel.set_float_policy(policy)
    older, newer = tunnel.far.seal(make.inbound), tunnel.far.seal(make.inbound)
    assert tunnel.receive(newer) == [make.inbound]
    assert tunnel.receive(older, source=AWAY) == []
    assert tunnel.drops == refused(1)
    assert tunnel.channel.take_events() == []


@NEITHER_ALLOWS
def test_packets_from_where_the_peer_is_come_through_in_any_order(
    make: Maker, tunnel: Tunnel, policy: FloatPolicy
) -> None:
    tunnel.channel.set_float_policy(policy)
    older, newer = tunnel.far.seal(make.inbound), tunnel.far.seal(make.inbound)
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY)
    assert tunnel.receive(newer, older, local=b"\x0a\0\0\1") == [make.inbound] * 2
    assert tunnel.peer.local == b"\x0a\0\0\1"


@NEITHER_ALLOWS
def test_refused_packet_counts_as_received_and_as_sign_of_life(
    make: Maker, tunnel: Tunnel, policy: FloatPolicy
) -> None:
    tunnel.channel.set_float_policy(policy)
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram, source=AWAY, now_ns=5)
    assert (tunnel.peer.row[Column.LINK_RX_PACKETS], tunnel.peer.row[Column.LAST_RX_NS]) == (1, 5)
    assert tunnel.receive(datagram) == []
    assert tunnel.drops == refused(1) | {DropReason.RX_REPLAYED: 1}


@NEITHER_ALLOWS
def test_forged_and_replayed_packets_are_counted_as_what_they_are(
    make: Maker, tunnel: Tunnel, policy: FloatPolicy
) -> None:
    tunnel.channel.set_float_policy(policy)
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram)
    tunnel.receive(datagram, datagram[:-1] + bytes([datagram[-1] ^ 1]), source=AWAY)
    assert tunnel.drops == {DropReason.RX_REPLAYED: 1, DropReason.RX_DECRYPT_FAILED: 1}
    assert tunnel.channel.take_events() == []


@NEITHER_ALLOWS
def test_packet_that_waited_for_its_key_is_dropped_if_it_is_from_elsewhere(
    make: Maker, tunnel: Tunnel, policy: FloatPolicy
) -> None:
    tunnel.channel.set_float_policy(policy)
    second = make.far_end(key_id=1)
    tunnel.receive(second.seal(make.inbound), source=AWAY)
    assert tunnel.channel.install_key(1, KeySlot.SECONDARY, second.data_key(), 1) == []
    assert tunnel.drops == refused(1)


@NEITHER_ALLOWS
def test_peer_in_a_stream_is_not_concerned(make: Maker, tunnel: Tunnel, policy: FloatPolicy) -> None:
    tunnel.channel.set_float_policy(policy)
    tunnel.channel.set_remote(1, None, None)
    datagrams = [(tunnel.far.seal(make.inbound), source, None) for source in (None, AWAY)]
    assert tunnel.channel.open_batch(7, datagrams, 1) == [(tunnel.peer, make.inbound)] * 2
    assert tunnel.channel.take_events() == []


def test_policy_changes_between_packets(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.DENY)
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY) == []
    tunnel.channel.set_float_policy(FloatPolicy.ALLOW)
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY) == [make.inbound]
    assert tunnel.channel.take_events() == [Floated(tunnel.peer)]


def test_where_floats_are_denied_nobody_is_asked(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.DENY)
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY)
    assert tunnel.channel.take_events() == []
    assert tunnel.peer.asked is None


@pytest.mark.parametrize("payload", [KEEPALIVE, None])
def test_peer_asks_for_the_place_it_sends_from(make: Maker, tunnel: Tunnel, payload: bytes | None) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.ASK)
    tunnel.receive(tunnel.far.seal(payload or make.inbound), source=AWAY, socket_id=8)
    assert tunnel.channel.take_events() == [FloatAsked(tunnel.peer)]
    assert tunnel.peer.asked == (8, AWAY)


def test_peer_asks_once_a_second_wherever_it_is(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.ASK)
    told = []
    for now_ns, source in (
        (1, AWAY),
        (2, FURTHER),
        (ASK_INTERVAL_NS, FURTHER),
        (ASK_INTERVAL_NS + 1, FURTHER),
        (2 * ASK_INTERVAL_NS, AWAY),
    ):
        tunnel.receive(tunnel.far.seal(make.inbound), source=source, now_ns=now_ns)
        told.append((now_ns, tunnel.peer.asked) if tunnel.channel.take_events() else None)
    assert told == [(1, (7, AWAY)), None, None, (ASK_INTERVAL_NS + 1, (7, FURTHER)), None]


def test_question_that_nobody_took_yet_gives_way_to_a_later_one(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.ASK)
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY, now_ns=1)
    tunnel.receive(tunnel.far.seal(make.inbound), source=FURTHER, now_ns=1 + ASK_INTERVAL_NS)
    assert tunnel.channel.take_events() == [FloatAsked(tunnel.peer)]
    assert tunnel.peer.asked == (7, FURTHER)


def test_each_peer_asks_for_itself(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.ASK)
    other = tunnel.add_peer(2, "10.8.0.3")
    others_key = tunnel.install(2, KeySlot.PRIMARY, key_id=0)
    tunnel.receive(tunnel.far.seal(make.inbound), others_key.seal(KEEPALIVE, peer_id=2), source=AWAY)
    assert tunnel.channel.take_events() == [FloatAsked(tunnel.peer), FloatAsked(other)]


def test_peer_cannot_ask_for_the_endpoint_of_another(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.ASK)
    tunnel.add_peer(2, "10.8.0.3", remote=AWAY)
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY) == []
    assert tunnel.drops == refused(1)
    assert tunnel.channel.take_events() == []


def test_peer_that_was_given_what_it_asked_for_is_heard_there(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.ASK)
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY, socket_id=8)
    tunnel.channel.set_remote(1, AWAY, None, 8)
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY, socket_id=8) == [make.inbound]
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY) == []
    assert tunnel.receive(tunnel.far.seal(make.inbound), source=HOME, socket_id=8) == []


def test_peer_that_is_gone_is_still_told_of(make: Maker, tunnel: Tunnel) -> None:
    tunnel.channel.set_float_policy(FloatPolicy.ASK)
    tunnel.receive(tunnel.far.seal(make.inbound), source=AWAY)
    tunnel.channel.remove_peer(1)
    assert tunnel.channel.take_events() == [FloatAsked(tunnel.peer)]
    assert tunnel.peer.asked == (7, AWAY)
