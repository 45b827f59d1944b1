"""The compiled replay window, against the readable one."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.key_direction import KeyDirection
from dataplane.datachannel.replay_window import ReplayWindow as ReadableWindow
from dataplane.fastpath.aead import DataKey
from dataplane.fastpath.replay_window import ReplayWindow
from dataplane.vocabulary import Cipher

SECOND = 1_000_000_000
PACKET_ID_MAX = 0xFFFFFFFF

FIRST = st.one_of(
    st.integers(0, 5000),
    st.integers(PACKET_ID_MAX - 5000, PACKET_ID_MAX),
    st.integers(0, PACKET_ID_MAX),
)
# Steps from the newest id that cluster at the edges: of words, of the window (2,048 ids), of the ring (4,096).
MOVES = st.one_of(
    st.integers(-3, 3),
    st.integers(-130, 130),
    st.integers(-2050, 2050),
    st.builds(int.__add__, st.sampled_from([-8192, -4096, -2048, -64, 64, 2048, 4096, 8192]), st.integers(-65, 65)),
    st.integers(0, PACKET_ID_MAX),
)
PAUSES = st.sampled_from([0, 0, 0, 1, SECOND, 15 * SECOND, 30 * SECOND - 1, 30 * SECOND, 31 * SECOND])


@given(first=FIRST, steps=st.lists(st.tuples(MOVES, PAUSES), max_size=150), start_ns=st.sampled_from([0, 5, 10**15]))
def test_window_accepts_what_the_readable_one_accepts(first: int, steps: list[tuple[int, int]], start_ns: int) -> None:
    window, readable = ReplayWindow(), ReadableWindow()
    now_ns = start_ns
    for move, pause in [(first, 0), *steps]:
        now_ns += pause
        packet_id = min(max(readable.highest + move, 0), PACKET_ID_MAX)
        assert window.accept(packet_id, now_ns) is readable.accept(packet_id, now_ns)
        assert window.highest == readable.highest


@given(start=FIRST, jump=st.integers(1, 10_000), accepted=st.sets(st.integers(0, 4200), max_size=100))
def test_jump_forgets_and_keeps_what_the_readable_one_does(start: int, jump: int, accepted: set[int]) -> None:
    window, readable = ReplayWindow(), ReadableWindow()
    ids = [packet_id for step in sorted(accepted) if (packet_id := start + step) <= PACKET_ID_MAX]
    target = min(start + 4200 + jump, PACKET_ID_MAX)
    for packet_id in [*ids, target, *range(max(target - 2100, 0), target + 1)]:
        assert window.accept(packet_id, 0) is readable.accept(packet_id, 0)


@pytest.mark.parametrize("packet_id", [-1, 1 << 64])
def test_what_is_no_packet_id_is_an_error(packet_id: int) -> None:
    with pytest.raises(OverflowError):
        ReplayWindow().accept(packet_id, 0)


def test_window_of_a_key_is_the_same_every_time_and_keeps_the_key_alive() -> None:
    material = KeyDirection(bytes(32), bytes(8))
    key = DataKey(0, Cipher.AES_GCM, material, material)
    window = key.replay_window
    assert window.accept(7, 0) is None
    assert key.replay_window.highest == 7
    del key
    gc.collect()
    assert window.accept(8, 0) is None
    assert window.highest == 8
