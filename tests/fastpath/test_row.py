"""Rows of the statistics page, as the compiled package sees them."""

from __future__ import annotations

import mmap
import os
from array import array

import pytest

from dataplane.fastpath.key_slots import KeySlots
from dataplane.fastpath.row import Row, columns
from dataplane.statistics_page import StatisticsPage
from dataplane.vocabulary import ROW_WORDS, Column, DropReason

SIZE = ROW_WORDS * 8


def test_columns_are_those_of_the_vocabulary() -> None:
    assert columns() == {column.name: column.value for column in Column}


def test_every_drop_reason_has_a_word() -> None:
    assert Column.DROPS + max(DropReason) < ROW_WORDS


@pytest.mark.parametrize("size", [0, SIZE - 8, SIZE + 8])
def test_buffer_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"no row: {size} bytes"):
        Row(bytearray(size))


def test_words_that_are_not_aligned_are_refused() -> None:
    with pytest.raises(ValueError, match="no row"):
        Row(memoryview(array("Q", bytes(SIZE + 8))).cast("B")[1 : SIZE + 1])


def test_buffer_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(BufferError):
        Row(bytes(SIZE))


def test_what_is_no_buffer_is_refused() -> None:
    with pytest.raises(TypeError):
        Row([0] * ROW_WORDS)


def test_row_of_a_page_is_written_in_place_and_let_go_in_the_end() -> None:
    memfd = StatisticsPage.create_memfd(2)
    page = StatisticsPage(memfd, 2)
    page.row(1)[Column.SENT_PRIMARY] = 9
    slots = KeySlots(page.row(1))
    slots.swap()
    assert page.row(1)[Column.SENT_PRIMARY] == 0
    del slots
    page.close()
    with mmap.mmap(memfd, 2 * SIZE) as words:
        assert not any(words[:])
    os.close(memfd)
