"""A peer's own state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.datachannel.keepalive import Keepalive
from dataplane.statistics_page import drops_of
from dataplane.vocabulary import Column, DropReason, KeySlot

if TYPE_CHECKING:
    from tests.datachannel.conftest import Maker

SECOND = 1_000_000_000


def test_drop_counts_its_reason_only(make: Maker) -> None:
    peer = make.peer(1)
    peer.drop(DropReason.RX_TUN_WRITE_FAILED)
    peer.drop(DropReason.TX_SEND_FAILED)
    peer.drop(DropReason.TX_SEND_FAILED)
    assert drops_of(peer.row) == {DropReason.RX_TUN_WRITE_FAILED: 1, DropReason.TX_SEND_FAILED: 2}
    assert sum(peer.row) == 3


def test_deadlines_follow_the_times_in_the_row(make: Maker) -> None:
    peer = make.peer(1, keepalive=Keepalive(10, 60))
    peer.row[Column.LAST_TX_NS] = 1 * SECOND
    peer.row[Column.LAST_RX_NS] = 2 * SECOND
    assert peer.send_at_ns() == 11 * SECOND
    assert peer.expire_at_ns() == 62 * SECOND


def test_keys_count_in_the_peers_row(make: Maker) -> None:
    peer = make.peer(1)
    key = make.far_end().data_key()
    key.sent = 9
    peer.keys.install(KeySlot.PRIMARY, key)
    assert peer.row[Column.SENT_PRIMARY] == 9


def test_peers_are_compared_by_identity(make: Maker) -> None:
    assert make.peer(1) != make.peer(1)


def test_representation_shows_neither_keys_nor_counters(make: Maker) -> None:
    peer = make.peer(1)
    peer.keys.install(KeySlot.PRIMARY, make.far_end().data_key())
    assert "DataKey" not in repr(peer)
    assert "array" not in repr(peer)
