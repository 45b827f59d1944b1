from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dataplane.fastpath.trains import trains_of

IPV4, IPV6 = (0, False), (1, True)
MAX = {IPV4: 65507, IPV6: 65487}

Address = tuple[int, bool]


def test_equal_datagrams_make_one_train() -> None:
    assert trains_of([(IPV4, 1000)] * 5) == [(0, [1000] * 5)]


def test_a_shorter_datagram_is_the_last_of_its_train() -> None:
    assert trains_of([(IPV4, 1000), (IPV4, 999), (IPV4, 999)]) == [
        (0, [1000, 999]),
        (0, [999]),
    ]


def test_a_longer_datagram_begins_a_train() -> None:
    assert trains_of([(IPV4, 999), (IPV4, 1000)]) == [(0, [999]), (0, [1000])]


def test_a_train_has_64_datagrams_at_most() -> None:
    assert [len(sizes) for _, sizes in trains_of([(IPV4, 100)] * 130)] == [64, 64, 2]


def test_a_train_fits_an_ip_packet() -> None:
    assert [len(sizes) for _, sizes in trains_of([(IPV4, 1444)] * 46)] == [45, 1]
    assert [len(sizes) for _, sizes in trains_of([(IPV4, 65507 // 4)] * 5)] == [4, 1]
    assert [len(sizes) for _, sizes in trains_of([(IPV6, 65507 // 4)] * 5)] == [3, 2]


def test_interleaved_peers_make_a_train_each() -> None:
    assert trains_of([(IPV4, 100), (IPV6, 200)] * 3) == [(0, [100] * 3), (1, [200] * 3)]


@given(st.lists(st.tuples(st.sampled_from([IPV4, IPV6]), st.integers(24, 3000)), max_size=60))
def test_each_peer_gets_its_datagrams_in_order_in_trains_that_the_kernel_takes(
    datagrams: list[tuple[Address, int]],
) -> None:
    trains = trains_of(datagrams)
    for peer in (IPV4, IPV6):
        sizes = [sizes for number, sizes in trains if number == peer[0]]
        assert [size for train in sizes for size in train] == [size for to, size in datagrams if to == peer]
        for train in sizes:
            assert set(train[:-1]) <= {train[0]}
            assert train[-1] <= train[0]
            assert sum(train) <= MAX[peer]
        # As long as can be: the first of a train could not have gone with the one before.
        for before, train in pairwise(sizes):
            assert (
                len(before) == 64
                or before[-1] < before[0]
                or train[0] > before[0]
                or sum(before) + train[0] > MAX[peer]
            )


def test_packets_of_another_tos_travel_in_another_train() -> None:
    trains = trains_of([(IPV4, 100, 0), (IPV4, 100, 0), (IPV4, 100, 8), (IPV6, 100, 8), (IPV4, 100, 8), (IPV4, 100, 0)])
    assert trains == [(0, [100, 100]), (0, [100, 100]), (1, [100]), (0, [100])]
