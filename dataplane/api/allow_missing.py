"""What `allow_missing` means in every Delete call. Knows the kind of an error, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dataplane.engine.types import EngineError, ErrorKind


@contextmanager
def missing_is_error(*, unless: bool) -> Iterator[None]:
    """Lets NOT_FOUND pass, `unless` the request allows that what it deletes is missing."""
    try:
        yield
    except EngineError as error:
        if not (unless and error.kind is ErrorKind.NOT_FOUND):
            raise
