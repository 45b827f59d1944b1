"""The daemon's log: structlog over the standard library's logging, to one stream, without secrets.

Knows formats, levels and what must not be shown. Must not know who logs what. Records of libraries take
the same way, so that every line has the same form, but only from WARNING on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from enum import Enum, unique
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor


@unique
class LogLevel(Enum):
    """How much is logged; each level holds those after it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@unique
class LogFormat(Enum):
    """Form of a line. AUTO: for eyes on a terminal, JSON otherwise."""

    JSON = "json"
    CONSOLE = "console"
    AUTO = "auto"


REDACTED: Final = "<redacted>"
_SECRET_NAME: Final = re.compile(r"_key|nonce_tail|^keys?$|^encrypt$|^decrypt$|token$", re.IGNORECASE)


def set_up_log(level: LogLevel, log_format: LogFormat, stream: TextIO) -> None:
    """Sends every record of this process to `stream`."""
    shared: list[Processor] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                *_renderers(log_format, is_terminal=stream.isatty()),
            ],
        )
    )
    logging.getLogger().handlers = [handler]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=lambda *_: _own_logger(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    set_log_level(level)


def set_log_level(level: LogLevel) -> LogLevel:
    """Changes the level at once; returns the one before."""
    number = logging.getLevelNamesMapping()[level.name]
    previous = logging.getLevelName(_own_logger().getEffectiveLevel())
    _own_logger().setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING))
    return LogLevel[previous]


def redact(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    """Processor: hides bytes, values under the names of secrets, and protobuf messages, whose text shows all."""
    # exc_info is rendered later, without the values of local variables.
    return {name: value if name == "exc_info" else _shown(name, value) for name, value in event_dict.items()}


def _own_logger() -> logging.Logger:
    return logging.getLogger("dataplane")


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, Mapping):
        return {str(key): _shown(str(key), element) for key, element in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown("", element) for element in value]
    if hasattr(value, "DESCRIPTOR"):
        return f"<{type(value).__name__}>"
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _renderers(log_format: LogFormat, *, is_terminal: bool) -> list[Processor]:
    if log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and is_terminal):
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=plain)]
    return [structlog.processors.format_exc_info, _headed, structlog.processors.JSONRenderer()]


def _headed(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    """Processor: puts first what people look for first."""
    return {name: event_dict[name] for name in ("timestamp", "level", "event")} | dict(event_dict)
