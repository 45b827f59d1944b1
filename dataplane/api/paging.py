"""Pages of a list: sizes and the opaque token that goes on where the page before ended.

Knows sorted keys. Must not know what is listed. A token holds the list's name and the last key of the
page, so that rows which come or go between two pages shift nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from dataplane.api.violations import Violations

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
_MAX_TOKEN = 512

Row = TypeVar("Row")


class PagedRequest(Protocol):
    """Any List request."""

    @property
    def page_size(self) -> int:
        """Rows wanted, 0 for the default."""

    @property
    def page_token(self) -> str:
        """Token of the page before, or empty."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was asked for: at most `size` rows of `list_name` whose key is greater than `after`."""

    list_name: str
    size: int
    after: str | None

    def token(self, last_key: str) -> str:
        """Token of the page that follows the row with this key."""
        return base64.urlsafe_b64encode(f"{self.list_name}\n{last_key}".encode()).decode().rstrip("=")

    def cut(self, rows: Sequence[Row], key: Callable[[Row], str]) -> tuple[Sequence[Row], str]:
        """The page out of all rows, which need no order, and the next page's token."""
        following = sorted((row for row in rows if self.after is None or key(row) > self.after), key=key)
        return self.first(following, key)

    def first(self, following: Sequence[Row], key: Callable[[Row], str]) -> tuple[Sequence[Row], str]:
        """The page out of ordered rows that follow `after`, and the next page's token (empty: the last)."""
        page = following[: self.size]
        return page, self.token(key(page[-1])) if len(following) > self.size else ""


def read_page(at: Violations, request: PagedRequest, list_name: str, key_pattern: str = ".*") -> Page:
    """The page that a request asks for. key_pattern: regular expression of what may be a key of this list."""
    if request.page_size > MAX_PAGE_SIZE:
        at.add("page_size", f"must be 0..{MAX_PAGE_SIZE}, 0 for {DEFAULT_PAGE_SIZE}; is {request.page_size}")
    size = request.page_size or DEFAULT_PAGE_SIZE
    if not request.page_token:
        return Page(list_name, size, None)
    after = _key_in(request.page_token, list_name)
    if after is None or not re.fullmatch(key_pattern, after):
        at.add("page_token", "must be the next_page_token of the page before of the same list, or empty")
    return Page(list_name, size, after)


def _key_in(token: str, list_name: str) -> str | None:
    if len(token) > _MAX_TOKEN:
        return None
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    found, separator, key = text.partition("\n")
    return key if separator and found == list_name else None
