"""The log: form, levels, and what it never shows."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from ovpn.dataplane.v1 import key_pb2

from dataplane.observability.log import REDACTED, LogFormat, LogLevel, redact, set_log_level, set_up_log

SECRET = b"sixteen secrets!"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log_to() -> Iterator[Callable[..., io.StringIO]]:
    """Sets the log up on a stream of ours; everything is as before afterwards."""
    root, own = logging.getLogger(), logging.getLogger("dataplane")
    before = (root.handlers, root.level, own.level)

    def set_up(
        level: LogLevel = LogLevel.INFO, log_format: LogFormat = LogFormat.JSON, stream: io.StringIO | None = None
    ) -> io.StringIO:
        stream = stream or io.StringIO()
        set_up_log(level, log_format, stream)
        return stream

    yield set_up
    root.handlers = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
    structlog.reset_defaults()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_line_of_json_with_time_in_utc(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to()
    structlog.get_logger().info("something", device="d\nx", count=3)
    (record,) = records(stream)
    time = datetime.fromisoformat(record.pop("timestamp"))
    assert time.utcoffset() == timedelta(0)
    assert record == {"level": "info", "event": "something", "device": "d\nx", "count": 3}


def test_a_record_begins_with_time_level_and_event(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to()
    structlog.get_logger().info("something", a=1)
    assert list(records(stream)[0]) == ["timestamp", "level", "event", "a"]


def test_auto_is_json_into_a_file_and_text_on_a_terminal(log_to: Callable[..., io.StringIO]) -> None:
    structlog_to_file = log_to(log_format=LogFormat.AUTO)
    structlog.get_logger().info("something")
    assert records(structlog_to_file)
    terminal = log_to(log_format=LogFormat.AUTO, stream=Terminal())
    structlog.get_logger().info("something")
    assert "something" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_the_console_format_has_no_colours_in_a_file(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to(log_format=LogFormat.CONSOLE)
    structlog.get_logger().warning("something", device="d")
    assert "something" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("level", LogLevel)
def test_a_level_holds_itself_and_what_is_graver(log_to: Callable[..., io.StringIO], level: LogLevel) -> None:
    stream = log_to(level)
    for each in LogLevel:
        getattr(structlog.get_logger(), each.value)("something")
    graver = list(LogLevel)[list(LogLevel).index(level) :]
    assert [record["level"] for record in records(stream)] == [each.value for each in graver]


def test_the_level_changes_at_once_also_for_loggers_that_are_in_use(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to(LogLevel.INFO)
    logger = structlog.get_logger().bind(device="d")
    logger.debug("before")
    assert set_log_level(LogLevel.DEBUG) is LogLevel.INFO
    logger.debug("after")
    assert set_log_level(LogLevel.ERROR) is LogLevel.DEBUG
    logger.warning("later")
    assert [record["event"] for record in records(stream)] == ["after"]


def test_libraries_are_heard_from_warnings_on_in_the_same_form(log_to: Callable[..., io.StringIO]) -> None:
    stream = log_to(LogLevel.DEBUG)
    library = logging.getLogger("some.library")
    library.info("chatter")
    library.warning("trouble %d", 7)
    (record,) = records(stream)
    assert (record["event"], record["level"]) == ("trouble 7", "warning")
    set_log_level(LogLevel.ERROR)
    library.warning("trouble")
    assert len(records(stream)) == 1


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.CONSOLE])
def test_an_exception_is_told_without_the_values_of_variables(
    log_to: Callable[..., io.StringIO], log_format: LogFormat
) -> None:
    stream = log_to(log_format=log_format)

    def fail(cipher_key: bytes) -> None:
        raise ValueError(f"no good: {len(cipher_key)}")

    try:
        fail(SECRET)
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "no good: 16" in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert "sixteen" not in stream.getvalue()


@dataclass
class Spec:
    device: str
    cipher: bytes = field(repr=False)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("cipher_key", SECRET, "<16 bytes>"),
        ("nonce_tail", b"12345678", "<8 bytes>"),
        ("encrypt_key", "text", REDACTED),
        ("decrypt_key", [1, 2], REDACTED),
        ("keys", {"a": 1}, REDACTED),
        ("encrypt", "x", REDACTED),
        ("tun_token", "0123", REDACTED),
        ("payload", SECRET, "<16 bytes>"),
        ("payload", bytearray(SECRET), "<16 bytes>"),
        ("payload", memoryview(SECRET), "<16 bytes>"),
        ("nested", {"a": [SECRET, {"cipher_key": "x"}]}, {"a": ["<16 bytes>", {"cipher_key": REDACTED}]}),
        ("nested", (SECRET,), ["<16 bytes>"]),
        ("request", key_pb2.KeyDirection(cipher_key=SECRET), "<KeyDirection>"),
        ("spec", Spec("d", SECRET), "Spec(device='d')"),
        ("key_id", 3, 3),
        ("device", "d", "d"),
        ("flag", None, None),
        ("ratio", 0.5, 0.5),
    ],
)
def test_secrets_are_hidden_and_the_rest_is_shown(name: str, value: object, shown: object) -> None:
    assert redact(None, "info", {"event": "e", name: value}) == {"event": "e", name: shown}


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.just(SECRET) | st.text(alphabet="xyz") | st.integers(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="xyz"), inner) | st.tuples(inner),
        ),
    )
)
def test_bytes_are_never_shown_however_deep(event: dict[str, Any]) -> None:
    event.pop("exc_info", None)
    assert "sixteen" not in json.dumps(redact(None, "info", event))
