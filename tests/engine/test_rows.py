"""Rows of the statistics page."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.engine.rows import RowAllocator
from dataplane.statistics_page import StatisticsPage
from dataplane.vocabulary import ROW_WORDS

ROWS = 6


@pytest.fixture(scope="module")
def page() -> Iterator[StatisticsPage]:
    fd = StatisticsPage.create_memfd(ROWS)
    yield (page := StatisticsPage(fd, ROWS))
    page.close()
    os.close(fd)


def test_rows_are_given_from_1_on(page: StatisticsPage) -> None:
    rows = RowAllocator(page)
    assert [rows.take() for _ in range(ROWS - 1)] == [1, 2, 3, 4, 5]


def test_no_row_is_given_twice(page: StatisticsPage) -> None:
    rows = RowAllocator(page)
    for _ in range(ROWS - 1):
        rows.take()
    with pytest.raises(IndexError):
        rows.take()
    rows.free(3)
    assert rows.take() == 3


def test_freed_rows_are_taken_before_untouched_ones(page: StatisticsPage) -> None:
    rows = RowAllocator(page)
    first = rows.take()
    rows.free(first)
    assert rows.take() == first


@given(takes=st.lists(st.booleans(), max_size=40))
def test_a_taken_row_is_free_and_zero(page: StatisticsPage, takes: list[bool]) -> None:
    rows = RowAllocator(page)
    in_use: list[int] = []
    for is_take in takes:
        if is_take and len(in_use) < ROWS - 1:
            row = rows.take()
            assert row not in in_use
            assert page.snapshot(row) == (0,) * ROW_WORDS
            page.row(row)[ROW_WORDS - 1] = 2**64 - 1
            in_use.append(row)
        elif in_use:
            rows.free(in_use.pop(0))
