from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataplane.transport.segment_runs import segment_runs


def runs(sizes: list[tuple[str, int]], bytes_max: int = 65507) -> list[tuple[str, list[int]]]:
    packets = [(destination, bytes(size)) for destination, size in sizes]
    return [(to, [len(packet) for packet in run]) for to, run in segment_runs(packets, bytes_max)]


def test_packets_of_one_size_and_a_shorter_last_are_a_run() -> None:
    assert runs([("a", 9), ("a", 9), ("a", 4)]) == [("a", [9, 9, 4])]


def test_shorter_packet_ends_a_run_and_a_longer_one_begins_another() -> None:
    assert runs([("a", 9), ("a", 4), ("a", 4), ("a", 9)]) == [("a", [9, 4]), ("a", [4]), ("a", [9])]


def test_another_destination_begins_another_run() -> None:
    assert runs([("a", 9), ("b", 9), ("b", 9), ("a", 9)]) == [("a", [9]), ("b", [9, 9]), ("a", [9])]


def test_run_has_64_packets_at_most() -> None:
    assert [len(run) for _, run in runs([("a", 9)] * 130)] == [64, 64, 2]


def test_run_has_no_more_bytes_than_allowed() -> None:
    assert runs([("a", 9), ("a", 9), ("a", 2)], bytes_max=20) == [("a", [9, 9, 2])]
    assert runs([("a", 9), ("a", 9), ("a", 2)], bytes_max=19) == [("a", [9, 9]), ("a", [2])]


def test_nothing_is_joined_when_nothing_may_be() -> None:
    assert runs([("a", 9), ("a", 9)], bytes_max=0) == [("a", [9]), ("a", [9])]


def test_empty_packet_is_a_run_of_its_own() -> None:
    assert runs([("a", 9), ("a", 0), ("a", 0)]) == [("a", [9]), ("a", [0]), ("a", [0])]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4)), max_size=200), st.integers(0, 100))
def test_every_packet_is_in_one_run_in_order(sizes: list[tuple[str, int]], bytes_max: int) -> None:
    result = runs(sizes, bytes_max)
    assert [(to, size) for to, run in result for size in run] == sizes
    for _, run in result:
        assert len(run) == 1 or sum(run) <= bytes_max
        assert all(size == run[0] for size in run[:-1])
        assert run[-1] <= run[0]
