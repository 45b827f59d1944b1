"""Which rows of a statistics page are in use.

Knows rows as numbers and that a row is zero when it is given out. Must not know what is counted there.
"""

from __future__ import annotations

from dataplane.statistics_page import DEVICE_ROW, StatisticsPage


class RowAllocator:
    """Gives out the rows after the device's own. Freed rows are taken again first: untouched rows cost no memory."""

    def __init__(self, page: StatisticsPage) -> None:
        self._page = page
        self._freed: list[int] = []
        self._next_untouched = DEVICE_ROW + 1

    def take(self) -> int:
        """A zeroed row. Raises IndexError when all are in use."""
        if self._freed:
            row = self._freed.pop()
        elif self._next_untouched < self._page.rows:
            row = self._next_untouched
            self._next_untouched += 1
        else:
            raise IndexError(f"all {self._page.rows} rows of the statistics page are in use")
        self._page.clear(row)
        return row

    def free(self, row: int) -> None:
        """Takes a row back; nobody may write it any more."""
        self._freed.append(row)
