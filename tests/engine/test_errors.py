"""The words of the engine's refusals."""

from __future__ import annotations

import errno
import inspect
from ipaddress import ip_address, ip_network

import pytest

from dataplane.engine import errors
from dataplane.engine.types import EngineError, ErrorKind
from dataplane.messages import Reply
from dataplane.vocabulary import KeySlot

ARGUMENTS = {
    "device": "blue",
    "socket": "wan",
    "interface": "tun7",
    "path": "/run/netns/x",
    "deed": "fly",
    "detail": "a file",
    "peer_id": 42,
    "owner": 43,
    "limit": 256,
    "option": "mark",
    "direction": "encrypt",
    "port": 1194,
    "slot": KeySlot.SECONDARY,
    "address": ip_address("192.0.2.1"),
    "remote": ip_address("198.51.100.1"),
    "other": ip_address("2001:db8::1"),
    "network": ip_network("198.51.100.0/24"),
    "error": OSError(errno.EADDRINUSE, "Address already in use"),
    "reply": Reply(1, "PEER_EXISTS", "twice"),
}

REFUSALS = [
    function
    for name, function in inspect.getmembers(errors, inspect.isfunction)
    if function.__module__ == errors.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda function: function.__name__)
def test_metadata_repeats_what_the_message_says(refusal) -> None:  # type: ignore[no-untyped-def]
    arguments = {name: ARGUMENTS[name] for name in inspect.signature(refusal).parameters}
    error = refusal(**arguments)
    assert isinstance(error, EngineError)
    assert error.reason == error.reason.upper()
    for name, value in arguments.items():
        if name not in {"error", "reply", "slot"}:
            assert str(value) in str(error)
            assert str(value) in error.metadata.values()


def test_an_errno_is_given_by_name() -> None:
    assert errors.bind_failed(ip_address("::"), 1, OSError(errno.EADDRINUSE, "x")).metadata["errno"] == "EADDRINUSE"
    assert errors.bind_failed(ip_address("::"), 1, OSError(-2, "x")).metadata["errno"] == "-2"


def test_an_unknown_refusal_of_a_worker_is_internal() -> None:
    strange = errors.worker_refused("blue", Reply(1, "STRANGE"))
    assert (strange.kind, strange.reason, strange.metadata["detail"]) == (ErrorKind.INTERNAL, "INTERNAL", "STRANGE")
    known = errors.worker_refused("blue", Reply(1, "PEER_NOT_FOUND"))
    assert (known.kind, known.reason) == (ErrorKind.NOT_FOUND, "PEER_NOT_FOUND")
