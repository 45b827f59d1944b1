from __future__ import annotations

from dataplane.fastpath.nap import naps_after

US = 1_000


def rounds(*, every_us: int, count: int, packets: int = 1, since_us: int = 1_000_000) -> list[tuple[int, int, bool]]:
    return [((since_us + index * every_us) * US, packets, False) for index in range(count)]


def test_packets_that_come_now_and_then_never_wait() -> None:
    assert naps_after(rounds(every_us=200, count=100, packets=64)) == [False] * 100


def test_three_quick_rounds_in_a_row_begin_a_nap() -> None:
    assert naps_after(rounds(every_us=10, count=6, packets=2)) == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]


def test_a_slow_round_begins_the_count_anew() -> None:
    burst = rounds(every_us=10, count=3)
    later = rounds(every_us=10, count=3, since_us=2_000_000)
    assert naps_after([*burst, *later]) == [False] * 6


def test_two_naps_in_a_row_that_gather_nothing_are_the_last() -> None:
    busy = rounds(every_us=10, count=4, packets=2)
    calm = rounds(every_us=100, count=3, packets=1, since_us=1_000_100)
    assert naps_after([*busy, *calm]) == [False, False, False, True, True, False, False]


def test_one_idle_nap_among_busy_ones_ends_nothing() -> None:
    busy = rounds(every_us=10, count=4, packets=2)
    yields = [0, 2, 1, 3, 0, 5]
    mixed = [((1_000_100 + 100 * index) * US, packets, False) for index, packets in enumerate(yields)]
    assert naps_after([*busy, *mixed])[4:] == [True] * 6


def test_there_is_no_nap_while_a_source_has_more() -> None:
    busy = [(now_ns, packets, True) for now_ns, packets, _ in rounds(every_us=10, count=10, packets=64)]
    assert naps_after(busy) == [False] * 10
    assert naps_after([*busy, (2_000_000 * US, 64, False)])[-1] is True
