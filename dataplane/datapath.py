"""Which of the two implementations of the packet path this installation can run.

Knows how to find out whether dataplane.fastpath was built and can be loaded. Must not know what either does.
"""

from __future__ import annotations

from enum import StrEnum, unique
from importlib import import_module

from dataplane.vocabulary import DatapathKind


@unique
class DatapathChoice(StrEnum):
    """What an operator may ask for."""

    AUTO = "auto"
    COMPILED = "compiled"
    PYTHON = "python"


class DatapathUnavailable(Exception):
    """The compiled datapath cannot be loaded; says why."""


def choose_datapath(choice: DatapathChoice) -> tuple[DatapathKind, str]:
    """The datapath to run and, if AUTO had to be content with the readable one, the reason (else "").

    Raises DatapathUnavailable if the compiled one was asked for by name.
    """
    if choice is DatapathChoice.PYTHON:
        return DatapathKind.PYTHON, ""
    try:
        load_compiled()
    except DatapathUnavailable as error:
        if choice is DatapathChoice.COMPILED:
            raise
        return DatapathKind.PYTHON, str(error)
    return DatapathKind.COMPILED, ""


def load_compiled() -> None:
    """Loads the compiled datapath as a worker would. Raises DatapathUnavailable."""
    try:
        import_module("dataplane.fastpath.packet_path")
    except (ImportError, TypeError, ValueError) as error:
        # ImportError: it was not built, or libcrypto is missing. TypeError, ValueError: modules of two builds met.
        raise DatapathUnavailable(f"the compiled datapath cannot be loaded: {error}") from error
