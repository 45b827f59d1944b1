"""Deadlines of many peers, by virtual time and against a scan of a dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.deadlines import Deadlines

PEERS = st.integers(0, 4)
ARMS = st.tuples(st.just("arm"), PEERS, st.integers(0, 30))
DISARMS = st.tuples(st.just("disarm"), PEERS, st.just(0))
POPS = st.tuples(st.just("pop"), st.just(0), st.integers(0, 30))


@given(steps=st.lists(st.one_of(ARMS, DISARMS, POPS), max_size=60))
def test_deadlines_do_what_a_scan_would(steps: list[tuple[str, int, int]]) -> None:
    deadlines, oracle = Deadlines(), dict[int, int]()
    for step, peer_id, time_ns in steps:
        if step == "arm":
            deadlines.arm(peer_id, time_ns)
            oracle[peer_id] = min(time_ns, oracle.get(peer_id, time_ns))
        elif step == "disarm":
            deadlines.disarm(peer_id)
            oracle.pop(peer_id, None)
        else:
            due = sorted((at_ns, peer) for peer, at_ns in oracle.items() if at_ns <= time_ns)
            assert deadlines.pop_due(time_ns) == [peer for _, peer in due]
            for _, peer in due:
                del oracle[peer]
        assert deadlines.earliest_ns() == min(oracle.values(), default=None)


def test_nothing_armed_is_never_due() -> None:
    assert Deadlines().earliest_ns() is None
    assert Deadlines().pop_due(10**18) == []


def test_deadline_is_due_at_its_very_time() -> None:
    deadlines = Deadlines()
    deadlines.arm(1, 100)
    assert deadlines.pop_due(99) == []
    assert deadlines.pop_due(100) == [1]
    assert deadlines.pop_due(100) == []


def test_later_deadline_does_not_replace_an_earlier_one() -> None:
    deadlines = Deadlines()
    deadlines.arm(1, 100)
    deadlines.arm(1, 200)
    assert deadlines.earliest_ns() == 100


def test_arming_the_same_peer_again_and_again_costs_no_memory() -> None:
    deadlines = Deadlines()
    for time_ns in range(100, 200):
        deadlines.arm(1, time_ns)
    assert len(deadlines._heap) == 1
