"""The supervisor's log: one line an event, to standard error or a file.

Knows structlog. Not for the front, which writes its few lines itself. Each line begins with "ovpn-shim: ", for the
program writes to the same terminal.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

PREFIX = "ovpn-shim: "

_SECRETS = frozenset(
    {"encrypt_key", "decrypt_key", "cipher_key", "nonce_tail", "encrypt_nonce_tail", "decrypt_nonce_tail"}
)


def open_log(level: str, path: Path | None) -> FilteringBoundLogger:
    """A logger of this level ("debug" to "error"); appends to the file, or writes to standard error. Raises OSError."""
    stream = sys.stderr if path is None else path.open("a", encoding="utf-8", buffering=1)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(stream),
        processors=[
            _drop_secrets,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _describe_exception,
            structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"], bool_as_flag=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        context_class=dict,
    )
    return logger


def _drop_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name in _SECRETS & event.keys():
        event[name] = "(secret)"
    return event


def _describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The kind of the exception and where it came from, innermost last; its text might quote a message with keys."""
    error = sys.exc_info()[1]
    if event.pop("exc_info", None) and error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        places = " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
        event["exception"] = f"{type(error).__name__} {places}"
    return event


class _Lines:
    """Writes lines; a log that cannot be written is no reason to let the program down."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(f"{PREFIX}{line}\n")
            self._stream.flush()

    debug = info = warning = error = msg
