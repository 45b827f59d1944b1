"""Collecting what is wrong with a request."""

from __future__ import annotations

import pytest

from dataplane.api.violations import InvalidRequest, Violation, Violations


def test_nothing_is_raised_when_nothing_was_found() -> None:
    Violations().raise_if_any()


def test_nested_reports_carry_the_whole_path_and_come_in_order() -> None:
    found = Violations()
    peer = found.under("peer")
    peer.under("remote").add("port", "must be 1..65535")
    found.add("update_mask", "must not be empty")
    peer.add("device", "is required")
    with pytest.raises(InvalidRequest) as raised:
        found.raise_if_any()
    assert raised.value.violations == (
        Violation("peer.remote.port", "must be 1..65535"),
        Violation("update_mask", "must not be empty"),
        Violation("peer.device", "is required"),
    )
