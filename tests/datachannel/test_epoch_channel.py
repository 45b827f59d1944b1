"""A data channel whose keys have epochs: what is counted, dropped, reported, and what a rekey does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dataplane.datachannel.outcomes import Floated, KeyExhausted, KeyLimitNear
from dataplane.datachannel.wire import KEEPALIVE
from dataplane.vocabulary import Column, DropReason, KeyLimit, KeySlot
from tests.datachannel.epoch_far_end import EpochFarEnd

if TYPE_CHECKING:
    from tests.datachannel.conftest import Maker, Tunnel

ELSEWHERE = ("203.0.113.9", 4000)
LAST = 65518
USAGE_MAX = (1 << 36) - 1


@pytest.fixture
def far(tunnel: Tunnel) -> EpochFarEnd:
    return tunnel.install_epochs(KeySlot.PRIMARY, key_id=1)


@pytest.mark.parametrize("size", [0, 1, 27, 28, 29, 1400, 65_000])
def test_packets_of_any_length_go_through_and_are_counted_to_the_byte(
    make: Maker, tunnel: Tunnel, far: EpochFarEnd, size: int
) -> None:
    inbound, outbound = make.inbound + bytes(size), make.outbound + bytes(size)
    datagram = far.seal(inbound, 1, 1)
    assert tunnel.receive(datagram, now_ns=5) == [inbound]
    (sent,) = tunnel.send(outbound, now_ns=9)
    assert far.open(sent) == (1, 1, 1, outbound)
    row = tunnel.peer.row
    assert (row[Column.LINK_RX_BYTES], row[Column.LINK_TX_BYTES]) == (len(inbound) + 28, len(outbound) + 28)
    assert (row[Column.VPN_TX_BYTES], row[Column.LAST_RX_NS], row[Column.LAST_TX_NS]) == (len(outbound), 5, 9)
    assert row[Column.SENT_PRIMARY] == 1 << 48 | 1
    assert tunnel.drops == {}


def test_largest_mtu_goes_through(make: Maker, tunnel: Tunnel, far: EpochFarEnd) -> None:
    inbound = make.inbound + bytes(65_463 - len(make.inbound))
    assert tunnel.receive(far.seal(inbound, 1, 1)) == [inbound]
    assert tunnel.receive(far.seal(inbound + b"!", 1, 2)) == []
    assert tunnel.device_drops == {DropReason.RX_OVERSIZED: 1}


def test_keepalives_go_both_ways(tunnel: Tunnel, far: EpochFarEnd) -> None:
    tunnel.channel.set_keepalive(1, 10, 0, 0)
    ((_, datagram),) = tunnel.channel.run_timers(10_000_000_000).keepalives
    assert far.open(datagram) == (1, 1, 1, KEEPALIVE)
    assert tunnel.receive(far.seal(KEEPALIVE, 1, 1)) == []
    assert tunnel.drops == {}


def test_both_formats_stand_beside_each_other(make: Maker, tunnel: Tunnel) -> None:
    second = tunnel.install_epochs(KeySlot.SECONDARY, key_id=1)
    inbound = make.inbound
    assert tunnel.receive(tunnel.far.seal(inbound), second.seal(inbound, 2, 1)) == [inbound, inbound]
    tunnel.channel.swap_keys(1)
    (sent,) = tunnel.send(make.outbound)
    assert second.open(sent)[1:] == (2, 1, make.outbound)
    assert tunnel.peer.row[Column.SENT_PRIMARY] == 2 << 48 | 1
    assert tunnel.peer.row[Column.SENT_SECONDARY] == 0


def test_every_drop_has_its_reason(make: Maker, tunnel: Tunnel, far: EpochFarEnd) -> None:
    good = far.seal(make.inbound, 1, 1)
    bad = [
        good[:27],
        far.seal(make.inbound, 18, 1),
        good[:-1] + bytes([good[-1] ^ 1]),
        far.seal(make.inbound, 1, 0),
        far.seal(b"", 1, 2),
        far.seal(make.outbound, 1, 3),
    ]
    assert tunnel.receive(good, *bad, good) == [make.inbound]
    assert tunnel.drops == {
        DropReason.RX_TRUNCATED: 1,
        DropReason.RX_EPOCH_REJECTED: 1,
        DropReason.RX_DECRYPT_FAILED: 1,
        DropReason.RX_PACKET_ID_ZERO: 1,
        DropReason.RX_NOT_IP: 1,
        DropReason.RX_SOURCE_CHECK: 1,
        DropReason.RX_REPLAYED: 1,
    }


def test_packets_that_came_before_their_key_are_opened_with_it(make: Maker, tunnel: Tunnel) -> None:
    early = EpochFarEnd(make.implementation.epoch_key, key_id=3)
    short = early.seal(b"", 1, 1)[:26]
    assert tunnel.receive(early.seal(make.inbound, 2, 1), short, early.seal(make.inbound, 1, 1)) == []
    opened = tunnel.channel.install_key(1, KeySlot.SECONDARY, early.data_key(), 2)
    assert opened == [(tunnel.peer, make.inbound)] * 2
    assert tunnel.drops == {DropReason.RX_TRUNCATED: 1}


def test_only_the_newest_epoch_lets_a_peer_float(make: Maker, tunnel: Tunnel, far: EpochFarEnd) -> None:
    tunnel.receive(far.seal(make.inbound, 1, 1), far.seal(make.inbound, 2, 1))
    assert tunnel.receive(far.seal(make.inbound, 1, 99), source=ELSEWHERE) == [make.inbound]
    assert tunnel.channel.take_events() == []
    assert tunnel.receive(far.seal(make.inbound, 3, 1), source=ELSEWHERE) == [make.inbound]
    assert tunnel.channel.take_events() == [Floated(tunnel.peer)]


def test_end_of_the_epochs_is_told_before_it_comes_and_when(make: Maker, tunnel: Tunnel) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, first=LAST)
    key = far.data_key()
    tunnel.channel.install_key(1, KeySlot.PRIMARY, key, 0)
    (sent,) = tunnel.send(make.outbound)
    assert far.open(sent)[1] == LAST
    assert tunnel.channel.take_events() == [KeyLimitNear(tunnel.peer, 0, KeyLimit.PACKET_IDS)]
    key.usage = USAGE_MAX
    assert tunnel.send(make.outbound, make.outbound) == []
    assert tunnel.channel.take_events() == [KeyExhausted(tunnel.peer, 0)]
    assert tunnel.drops == {DropReason.TX_PACKET_ID_EXHAUSTED: 1, DropReason.TX_NO_KEY: 1}
