"""Pages and their tokens."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ovpn.dataplane.v1 import device_pb2

from dataplane.api.paging import Page, read_page
from dataplane.api.violations import InvalidRequest, Violations


def page_of(page_size: int = 0, page_token: str = "", list_name: str = "devices", key_pattern: str = ".*") -> Page:
    found = Violations()
    request = device_pb2.ListDevicesRequest(page_size=page_size, page_token=page_token)
    page = read_page(found, request, list_name, key_pattern)
    found.raise_if_any()
    return page


@pytest.mark.parametrize(("asked", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_the_size_is_as_asked_or_100(asked: int, size: int) -> None:
    assert page_of(asked).size == size


def test_a_page_of_more_than_1000_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        page_of(1001)


@given(st.sets(st.text(min_size=1, alphabet="abcXYZ019._-")), st.integers(1, 7))
def test_the_pages_together_hold_every_row_once_in_order(names: set[str], size: int) -> None:
    seen: list[str] = []
    token = ""
    while True:
        rows, token = page_of(size, token).cut(list(names), str)
        assert len(rows) <= size
        seen += rows
        if not token:
            break
    assert seen == sorted(names)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_the_last_page_has_no_token_even_if_it_is_full(count: int) -> None:
    rows, token = page_of(4).cut([str(number) for number in range(count)], str)
    assert (len(rows), token) == (count, "")


@given(st.text(max_size=60))  # four bytes a character at most, and a token has 512
def test_a_token_goes_on_after_its_key(key: str) -> None:
    token = page_of().token(key)
    assert page_of(page_token=token, key_pattern="(?s).*").after == key


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "é",
        "=",
        "A",
        "x" * 10_000,
        base64.urlsafe_b64encode(b"\xff\n1").decode(),
        base64.urlsafe_b64encode(b"devices").decode(),
        base64.urlsafe_b64encode(b"other\nd").decode(),
        base64.urlsafe_b64encode(b"devices\nd").decode()[:-2] + "!!",
    ],
)
def test_a_token_that_was_not_given_for_this_list_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest):
        page_of(page_token=token)


def test_a_token_with_an_impossible_key_is_refused() -> None:
    token = page_of().token("x")
    with pytest.raises(InvalidRequest):
        page_of(page_token=token, key_pattern="[0-9]{1,8}")


@given(st.text(max_size=60))  # four bytes a character at most, and a token has 512
def test_no_token_fails_otherwise(token: str) -> None:
    with contextlib.suppress(InvalidRequest):
        page_of(page_token=token)
