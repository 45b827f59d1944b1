"""The page of counters that a worker writes and the daemon reads without disturbing it.

Knows the layout: a memfd of rows of ROW_WORDS unsigned 64-bit words (native order), row 0 for the
device, one row a peer from 1 on; columns as vocabulary.Column. Must not know what a count means.

The worker is the only writer of a row in use. Words are aligned, so a reader never sees a torn word;
two words of a row may be a packet apart. The daemon zeroes a row before it gives it to a peer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

from dataplane.vocabulary import ROW_WORDS, Column, DropReason

DEVICE_ROW = 0


class StatisticsPage:
    """A mapped page. `fd` stays the caller's; close() unmaps."""

    def __init__(self, fd: int, rows: int) -> None:
        self._map = mmap.mmap(fd, rows * ROW_WORDS * 8)
        self._words = memoryview(self._map).cast("Q")
        self.rows = rows

    @staticmethod
    def create_memfd(rows: int) -> int:
        """Makes a zeroed page of `rows` rows, fixed in size; memory is taken only for rows that are touched."""
        fd = os.memfd_create("ovpn-statistics", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, rows * ROW_WORDS * 8)
        # A worker that was taken over could otherwise shorten the page and so end the daemon by SIGBUS.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd

    def row(self, index: int) -> memoryview:
        """The live words of a row. Raises IndexError outside 0..rows-1."""
        if not 0 <= index < self.rows:
            raise IndexError(f"row {index} of the statistics page, which has {self.rows}")
        return self._words[index * ROW_WORDS : (index + 1) * ROW_WORDS]

    def snapshot(self, index: int) -> tuple[int, ...]:
        """A copy of a row."""
        return tuple(self.row(index))

    def clear(self, index: int) -> None:
        """Zeroes a row."""
        row = self.row(index)
        for word in range(ROW_WORDS):
            row[word] = 0

    def close(self) -> None:
        """Unmaps. Rows given out must not be used any more; those still referenced keep the mapping."""
        self._words.release()
        try:
            self._map.close()
        except BufferError:
            # A row is still referenced; the mapping goes with the last one.
            return


def drops_of(row: Sequence[int]) -> dict[DropReason, int]:
    """The drop counters of a row that are not zero."""
    return {reason: row[Column.DROPS + reason] for reason in DropReason if row[Column.DROPS + reason]}
