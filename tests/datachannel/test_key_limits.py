"""How a key comes to its end, and that this is told in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.key_limits import FORGERIES_MAX, FORGERIES_WARNING, PACKET_ID_WARNING, usage_of
from dataplane.datachannel.outcomes import KeyExhausted, KeyLimitNear
from dataplane.datachannel.wire import PACKET_ID_MAX
from dataplane.vocabulary import Column, DropReason, KeyLimit, KeySlot

if TYPE_CHECKING:
    from tests.datachannel.conftest import Maker, Tunnel

USAGE_MAX = 68_719_476_735
USAGE_WARNING = 60_129_542_137
"""2^36 - 1 and, in whole steps of an eighth, 7/8 of that."""

CHACHA = 3


def primary(tunnel: Tunnel) -> DataKey:
    key = tunnel.peer.keys.primary
    assert key is not None
    return key  # type: ignore[return-value] # no tunnel of this file has epochs


@pytest.mark.parametrize(("size", "usage"), [(0, 1), (1, 2), (16, 2), (17, 3), (1400, 89)])
def test_a_packet_uses_up_itself_and_its_blocks(make: Maker, size: int, usage: int) -> None:
    key = make.far_end().data_key()
    key.seal(1, bytes(size))
    assert (key.usage, usage_of(size)) == (usage, usage)


def test_packet_ids_near_their_end_are_told_once(make: Maker, tunnel: Tunnel) -> None:
    primary(tunnel).sent = PACKET_ID_WARNING - 2
    tunnel.send(make.outbound)
    assert tunnel.channel.take_events() == []
    tunnel.send(make.outbound)
    assert primary(tunnel).sent == 0xFF000000
    assert tunnel.channel.take_events() == [KeyLimitNear(tunnel.peer, 0, KeyLimit.PACKET_IDS)]
    tunnel.send(make.outbound, make.outbound)
    assert tunnel.channel.take_events() == []


def test_every_key_warns_for_itself(make: Maker, tunnel: Tunnel) -> None:
    primary(tunnel).sent = PACKET_ID_WARNING
    tunnel.send(make.outbound)
    tunnel.install(1, KeySlot.SECONDARY, key_id=5)
    tunnel.channel.swap_keys(1)
    primary(tunnel).sent = PACKET_ID_WARNING
    tunnel.send(make.outbound)
    assert tunnel.channel.take_events() == [KeyLimitNear(tunnel.peer, key_id, KeyLimit.PACKET_IDS) for key_id in (0, 5)]


def test_a_keepalive_warns_too(tunnel: Tunnel) -> None:
    tunnel.channel.set_keepalive(1, 10, 0, 0)
    primary(tunnel).sent = PACKET_ID_WARNING
    assert len(tunnel.channel.run_timers(10_000_000_000).keepalives) == 1
    assert tunnel.channel.take_events() == [KeyLimitNear(tunnel.peer, 0, KeyLimit.PACKET_IDS)]


def test_usage_of_aes_gcm_near_its_end_is_told_once(make: Maker, tunnel: Tunnel) -> None:
    primary(tunnel).usage = USAGE_WARNING - usage_of(len(make.outbound)) - 1
    tunnel.send(make.outbound)
    assert tunnel.channel.take_events() == []
    tunnel.send(make.outbound, make.outbound)
    assert tunnel.channel.take_events() == [KeyLimitNear(tunnel.peer, 0, KeyLimit.AEAD_USAGE)]


def test_usage_up_to_the_limit_is_sealed(make: Maker, tunnel: Tunnel) -> None:
    primary(tunnel).usage = USAGE_MAX - usage_of(len(make.outbound))
    (datagram,) = tunnel.send(make.outbound)
    assert tunnel.far.open(datagram)[2] == make.outbound
    assert primary(tunnel).usage == USAGE_MAX


def test_a_key_that_may_seal_no_more_is_removed_and_reported_once(make: Maker, tunnel: Tunnel) -> None:
    primary(tunnel).usage = USAGE_MAX - usage_of(len(make.outbound)) + 1
    assert tunnel.send(make.outbound, make.outbound) == []
    assert tunnel.drops == {DropReason.TX_USAGE_LIMIT: 1, DropReason.TX_NO_KEY: 1}
    assert tunnel.channel.take_events() == [KeyExhausted(tunnel.peer, 0)]
    assert tunnel.peer.keys.primary is None
    assert tunnel.peer.row[Column.SENT_PRIMARY] == 0


def test_a_refused_packet_uses_no_packet_id_up(make: Maker) -> None:
    key = make.far_end().data_key()
    key.usage = USAGE_MAX - 1
    assert key.seal(1, b"!") is None
    assert (key.sent, key.usage, key.end) == (0, USAGE_MAX - 1, DropReason.TX_USAGE_LIMIT)
    key.sent = PACKET_ID_MAX
    assert key.seal(1, b"") is None
    assert key.end is DropReason.TX_PACKET_ID_EXHAUSTED


def test_chacha20_poly1305_has_no_limit_of_usage(make: Maker) -> None:
    far = make.far_end(CHACHA)
    key = far.data_key()
    key.usage = 1 << 60
    datagram = key.seal(1, b"payload")
    assert datagram is not None
    assert far.open(datagram) == (1, 1, b"payload")
    assert key.take_warning() is None


def forge(tunnel: Tunnel, make: Maker) -> None:
    datagram = tunnel.far.seal(make.inbound)
    assert tunnel.receive(datagram[:-1] + bytes([datagram[-1] ^ 1])) == []


def test_forgeries_are_counted_and_told_once_at_half_of_their_limit(make: Maker, tunnel: Tunnel) -> None:
    primary(tunnel).forged = FORGERIES_WARNING - 2
    forge(tunnel, make)
    assert tunnel.channel.take_events() == []
    forge(tunnel, make)
    forge(tunnel, make)
    assert primary(tunnel).forged == (1 << 35) + 1
    assert tunnel.channel.take_events() == [KeyLimitNear(tunnel.peer, 0, KeyLimit.FORGERIES)]
    assert tunnel.drops == {DropReason.RX_DECRYPT_FAILED: 3}


def test_a_key_with_too_many_forgeries_opens_nothing_but_still_seals(make: Maker, tunnel: Tunnel) -> None:
    primary(tunnel).forged = FORGERIES_MAX
    assert tunnel.receive(tunnel.far.seal(make.inbound)) == [make.inbound]
    forge(tunnel, make)
    assert tunnel.receive(tunnel.far.seal(make.inbound), tunnel.far.seal(make.inbound)) == []
    assert tunnel.drops == {DropReason.RX_DECRYPT_FAILED: 1, DropReason.RX_FORGERY_LIMIT: 2}
    assert len(tunnel.send(make.outbound)) == 1


def test_forgeries_for_one_key_do_not_close_the_other(make: Maker, tunnel: Tunnel) -> None:
    second = tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    primary(tunnel).forged = FORGERIES_MAX + 1
    assert tunnel.receive(tunnel.far.seal(make.inbound), second.seal(make.inbound)) == [make.inbound]
    assert tunnel.drops == {DropReason.RX_FORGERY_LIMIT: 1}


def test_authentic_packets_count_as_no_forgeries(make: Maker, tunnel: Tunnel) -> None:
    datagram = tunnel.far.seal(make.inbound)
    tunnel.receive(datagram, datagram)
    assert primary(tunnel).forged == 0
    assert tunnel.drops == {DropReason.RX_REPLAYED: 1}
