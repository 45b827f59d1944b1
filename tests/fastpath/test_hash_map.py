"""The hash map of the packet path, against a dict."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.fastpath.hash_map import TestedMap as Map

# Few keys, so that they are found, replaced and removed, and stand in one another's way in a small table.
KEYS = st.integers(0, 30)
ACTIONS = st.lists(st.tuples(st.sampled_from(["put", "put", "remove"]), KEYS, st.integers(1, 2**64 - 1)), max_size=80)


def key_of(number: int, words: int) -> bytes:
    """A key that differs from others in its last word only."""
    return bytes(8 * (words - 1)) + struct.pack("=Q", number)


@given(actions=ACTIONS, words=st.sampled_from([1, 2, 4]))
def test_map_answers_as_a_dict(actions: list[tuple[str, int, int]], words: int) -> None:
    table, oracle = Map(words), dict[int, int]()
    for action, number, value in actions:
        key = key_of(number, words)
        if action == "put":
            table.reserve(len(oracle) + 1)
            assert table.put(key, value)
            oracle[number] = value
        else:
            assert table.remove(key) == (oracle.pop(number, None) is not None)
        assert len(table) == len(oracle)
    assert [table.find(key_of(number, words)) for number in range(31)] == [oracle.get(n, 0) for n in range(31)]


def test_all_words_of_a_key_count() -> None:
    table = Map(4)
    keys = [bytes(8 * word) + b"\1" + bytes(31 - 8 * word) for word in range(4)]
    table.reserve(len(keys))
    for value, key in enumerate(keys, start=1):
        table.put(key, value)
    assert [table.find(key) for key in keys] == [1, 2, 3, 4]
    assert table.find(bytes(32)) == 0


def test_reserved_entries_find_room_and_more_are_refused() -> None:
    table = Map(1)
    table.reserve(100)
    refused = [number for number in range(300) if not table.put(key_of(number, 1), number + 1)]
    assert len(table) + len(refused) == 300
    assert refused[0] >= 100
    assert all(table.find(key_of(number, 1)) == 0 for number in refused)


def test_full_map_still_takes_another_value_for_a_key_it_has() -> None:
    table = Map(1)
    kept = [number for number in range(100) if table.put(key_of(number, 1), 1)]
    assert all(table.put(key_of(number, 1), 2) for number in kept)
    assert all(table.find(key_of(number, 1)) == 2 for number in kept)


def test_growing_keeps_every_entry() -> None:
    table = Map(2)
    for number in range(10_000):
        table.reserve(number + 1)
        assert table.put(key_of(number, 2), number + 1)
    assert all(table.find(key_of(number, 2)) == number + 1 for number in range(10_000))


def test_each_map_has_a_seed_of_its_own() -> None:
    assert Map(1).seed != Map(1).seed


# As CPython, whose hash of bytes is SipHash-1-3, gives them under PYTHONHASHSEED=0 (a seed of zero).
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (bytes(8), 0xBD60ACB658C79E45),
        (bytes(16), 0x76BE999E3E25B2A0),
        (bytes(32), 0xB85BED2614339B3D),
        (bytes(range(1, 9)), 0x884CCC87CB0E5FB0),
        (bytes(range(1, 17)), 0xE05D12A0A4B2D063),
    ],
)
def test_hash_is_siphash_1_3(key: bytes, expected: int) -> None:
    table = Map(len(key) // 8)
    table.seed = (0, 0)
    assert table.hash(key) == expected


@pytest.mark.parametrize("seed", [(1, 0), (0, 1)])
def test_both_words_of_the_seed_change_the_hash(seed: tuple[int, int]) -> None:
    table = Map(1)
    table.seed = (0, 0)
    unseeded = table.hash(bytes(8))
    table.seed = seed
    assert table.hash(bytes(8)) != unseeded
