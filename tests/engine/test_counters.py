"""Rows of the statistics page as counters and times."""

from __future__ import annotations

import time

from dataplane.engine.counters import drop_counters, peer_counters, wall_clock_ns
from dataplane.engine.types import PeerCounters
from dataplane.vocabulary import ROW_WORDS, Column, DropReason


def test_each_counter_comes_from_the_column_of_its_name() -> None:
    row = list(range(1000, 1000 + ROW_WORDS))
    counters = peer_counters(row)
    for name in PeerCounters.__dataclass_fields__:
        if name != "drops":
            assert getattr(counters, name) == 1000 + Column[name.upper()]


def test_drops_are_named_in_lower_case_and_zeros_left_out() -> None:
    row = [0] * ROW_WORDS
    row[Column.DROPS + DropReason.RX_REPLAYED] = 2
    row[Column.DROPS + DropReason.TX_SEND_FAILED] = 1
    assert drop_counters(row) == {"rx_replayed": 2, "tx_send_failed": 1}
    assert peer_counters(row).drops == drop_counters(row)


def test_a_monotonic_time_becomes_wall_clock_time() -> None:
    hour_ns = 3600 * 10**9
    an_hour_ago = wall_clock_ns(time.monotonic_ns() - hour_ns)
    assert abs(time.time_ns() - hour_ns - an_hour_ago) < 60 * 10**9


def test_never_stays_never() -> None:
    assert wall_clock_ns(0) == 0
