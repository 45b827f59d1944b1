"""The replay window, against the kernel's rules written down plainly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from dataplane.vocabulary import DropReason

if TYPE_CHECKING:
    from tests.datachannel.conftest import Maker

SECOND = 1_000_000_000


class SlowWindow:
    """The rules as the kernel has them, with an extent and a set of all ids ever accepted."""

    def __init__(self) -> None:
        self.accepted: set[int] = set()
        self.highest = 0
        self.extent = 0
        self.floor = 0
        self.last_accepted_ns: int | None = None

    def accept(self, packet_id: int, now_ns: int) -> DropReason | None:
        reason = self._judge(packet_id, now_ns)
        if reason is None:
            self.accepted.add(packet_id)
            self.last_accepted_ns = now_ns
        return reason

    def _judge(self, packet_id: int, now_ns: int) -> DropReason | None:
        if packet_id == 0:
            return DropReason.RX_PACKET_ID_ZERO
        if self.last_accepted_ns is not None and now_ns - self.last_accepted_ns >= 30 * SECOND:
            self.floor = self.highest
        if packet_id > self.highest:
            jump = packet_id - self.highest
            self.extent = 2048 if jump >= 2048 else min(2048, self.extent + jump)
            self.highest = packet_id
            return None
        if self.highest - packet_id >= self.extent or packet_id <= self.floor:
            return DropReason.RX_TOO_OLD
        return DropReason.RX_REPLAYED if packet_id in self.accepted else None


# Steps that cluster at the edges: of the window, of time, and of the id space.
MOVES = st.one_of(
    st.integers(-3, 3),
    st.integers(-2050, 2050),
    st.sampled_from([-2049, -2048, -2047, 2047, 2048, 2049, 5000, -5000]),
)
PAUSES = st.sampled_from([0, 0, 0, 1, SECOND, 15 * SECOND, 30 * SECOND - 1, 30 * SECOND, 31 * SECOND])


@given(
    first=st.sampled_from([0, 1, 2, 2047, 2048, 2049, 100_000, 0xFFFFFFFF]),
    steps=st.lists(st.tuples(MOVES, PAUSES), max_size=80),
)
def test_window_does_what_the_plain_rules_say(make: Maker, first: int, steps: list[tuple[int, int]]) -> None:
    window, oracle = make.implementation.replay_window(), SlowWindow()
    now_ns = 5
    assert window.accept(first, now_ns) == oracle.accept(first, now_ns)
    for move, pause in steps:
        now_ns += pause
        packet_id = min(max(oracle.highest + move, 0), 0xFFFFFFFF)
        assert window.accept(packet_id, now_ns) == oracle.accept(packet_id, now_ns)
        assert window.highest == oracle.highest


@given(ids=st.lists(st.integers(0, 60), max_size=100), pause=st.sampled_from([1, 29 * SECOND, 31 * SECOND]))
def test_no_id_is_ever_accepted_twice(make: Maker, ids: list[int], pause: int) -> None:
    window = make.implementation.replay_window()
    accepted = [packet_id for step, packet_id in enumerate(ids) if window.accept(packet_id, step * pause) is None]
    assert len(accepted) == len(set(accepted))


def test_packet_id_zero_is_refused(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(0, 0) is DropReason.RX_PACKET_ID_ZERO
    assert window.highest == 0


def test_ids_in_order_are_accepted(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert [window.accept(packet_id, 0) for packet_id in range(1, 5000)] == [None] * 4999


def test_same_id_twice_is_a_replay(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(7, 0) is None
    assert window.accept(7, 0) is DropReason.RX_REPLAYED


def test_ids_before_the_first_one_heard_are_acceptable(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(2000, 0) is None
    assert window.accept(1, 0) is None


def test_oldest_acceptable_id_is_2047_behind(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(10_000, 0) is None
    assert window.accept(10_000 - 2048, 0) is DropReason.RX_TOO_OLD
    assert window.accept(10_000 - 2047, 0) is None


def test_jump_forgets_no_id_that_is_still_in_the_window(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(1, 0) is None
    assert window.accept(2048, 0) is None
    assert window.accept(1, 0) is DropReason.RX_REPLAYED


def test_jump_beyond_the_window_leaves_skipped_ids_acceptable(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(1, 0) is None
    assert window.accept(5000, 0) is None
    assert window.accept(4999, 0) is None


def test_late_id_is_accepted_just_before_30_seconds(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(10, 0) is None
    assert window.accept(9, 30 * SECOND - 1) is None


def test_late_id_is_refused_after_30_seconds(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(10, 0) is None
    assert window.accept(9, 30 * SECOND) is DropReason.RX_TOO_OLD


def test_floor_stays_when_new_ids_come(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(10, 0) is None
    assert window.accept(13, 30 * SECOND) is None
    assert window.accept(9, 30 * SECOND) is DropReason.RX_TOO_OLD
    assert window.accept(11, 30 * SECOND) is None


def test_refused_id_does_not_hold_off_the_expiry(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(10, 0) is None
    assert window.accept(10, 29 * SECOND) is DropReason.RX_REPLAYED
    assert window.accept(9, 30 * SECOND) is DropReason.RX_TOO_OLD


def test_late_id_holds_off_the_expiry(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(10, 0) is None
    assert window.accept(9, 29 * SECOND) is None
    assert window.accept(8, 58 * SECOND) is None


def test_highest_possible_id_is_accepted_once(make: Maker) -> None:
    window = make.implementation.replay_window()
    assert window.accept(0xFFFFFFFF, 0) is None
    assert window.accept(0xFFFFFFFF, 0) is DropReason.RX_REPLAYED
    assert window.accept(0xFFFFFFFE, 0) is None
