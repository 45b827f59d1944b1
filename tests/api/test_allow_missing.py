"""What `allow_missing` lets pass."""

from __future__ import annotations

import pytest

from dataplane.api.allow_missing import missing_is_error
from dataplane.engine import errors
from dataplane.engine.types import EngineError


def test_not_found_passes_when_that_is_allowed() -> None:
    with missing_is_error(unless=True):
        raise errors.device_not_found("d")


def test_not_found_is_an_error_otherwise() -> None:
    with pytest.raises(EngineError), missing_is_error(unless=False):
        raise errors.device_not_found("d")


def test_other_errors_never_pass() -> None:
    with pytest.raises(EngineError), missing_is_error(unless=True):
        raise errors.worker_restarting("d")
