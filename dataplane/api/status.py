"""From refusals to google.rpc.Status: the only place that makes one.

Knows codes and details. Must not know requests. A Status travels in HTTP/2 trailers, which clients take
up to 8 KiB of by default, so its size is bounded here; nothing of an unexpected exception gets into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from dataplane.api.violations import InvalidRequest, Violation
from dataplane.engine.types import EngineError, ErrorKind

DOMAIN: Final = "dataplane.ovpn"

_CODES: Final = {
    ErrorKind.NOT_FOUND: code_pb2.NOT_FOUND,
    ErrorKind.ALREADY_EXISTS: code_pb2.ALREADY_EXISTS,
    ErrorKind.FAILED_PRECONDITION: code_pb2.FAILED_PRECONDITION,
    ErrorKind.RESOURCE_EXHAUSTED: code_pb2.RESOURCE_EXHAUSTED,
    ErrorKind.UNAVAILABLE: code_pb2.UNAVAILABLE,
    ErrorKind.PERMISSION_DENIED: code_pb2.PERMISSION_DENIED,
    ErrorKind.INTERNAL: code_pb2.INTERNAL,
}
_VIOLATIONS_MAX_BYTES: Final = 3072
_TEXT_MAX: Final = 512


def status_of_refusal(error: EngineError | InvalidRequest) -> grpc.Status:
    """Status of a request that was refused."""
    if isinstance(error, EngineError):
        return _status(_CODES[error.kind], error.reason, str(error), error.metadata)
    first, count = error.violations[0], len(error.violations)
    others = f" (and {count - 1} more, see the details)" if count > 1 else ""
    return _status(
        code_pb2.INVALID_ARGUMENT,
        "FIELD_INVALID",
        f"{first.field}: {first.description}{others}",
        {"field": first.field, "violations": str(count)},
        _bad_request(error.violations),
    )


def status_of_malformed_message() -> grpc.Status:
    """Status of a request that is no protobuf message of its type."""
    text = "the request is no message of its type: call with a client made from the same contract"
    return _status(code_pb2.INVALID_ARGUMENT, "MESSAGE_MALFORMED", text, {})


def status_of_defect() -> grpc.Status:
    """Status of a call that failed by a defect of the daemon; its log tells more."""
    return _status(code_pb2.INTERNAL, "INTERNAL", "internal error; see the log of the daemon", {})


def _bad_request(violations: Sequence[Violation]) -> Message:
    """All violations or, of long lists, as many as fit and one that counts the rest."""
    listed = list(violations)
    size = 0
    for index, violation in enumerate(violations):
        size += len(violation.field.encode()) + len(violation.description.encode())
        if size > _VIOLATIONS_MAX_BYTES:
            rest = f"{len(violations) - index} more violations; correct the others and call again"
            listed[index:] = [Violation(violation.field, rest)]
            break
    bad_request: Message = error_details_pb2.BadRequest(
        field_violations=[{"field": violation.field, "description": violation.description} for violation in listed]
    )
    return bad_request


def _status(code: int, reason: str, message: str, metadata: Mapping[str, str], *more_details: Message) -> grpc.Status:
    bounded = {key: value[:_TEXT_MAX] for key, value in metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=bounded)
    status = status_pb2.Status(code=code, message=message[:_TEXT_MAX])
    for detail in (info, *more_details):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)
