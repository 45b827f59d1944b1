"""From refusals to google.rpc.Status: the only place that makes one.

Knows codes and details. Must not know requests. A Status travels in HTTP/2 trailers, which clients take
up to 8 KiB of by default, so its size is bounded here; nothing of an unexpected exception gets into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.any_pb2 import Any
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from dataplane.api.violations import InvalidRequest, Violation
from dataplane.engine.types import EngineError, ErrorKind

DOMAIN: Final = "dataplane.ovpn"

_CODES: Final = {
    ErrorKind.NOT_FOUND: Code.NOT_FOUND,
    ErrorKind.ALREADY_EXISTS: Code.ALREADY_EXISTS,
    ErrorKind.FAILED_PRECONDITION: Code.FAILED_PRECONDITION,
    ErrorKind.RESOURCE_EXHAUSTED: Code.RESOURCE_EXHAUSTED,
    ErrorKind.UNAVAILABLE: Code.UNAVAILABLE,
    ErrorKind.PERMISSION_DENIED: Code.PERMISSION_DENIED,
    ErrorKind.INTERNAL: Code.INTERNAL,
}
_VIOLATIONS_MAX_BYTES: Final = 3072
_TEXT_MAX: Final = 512


def status_of_refusal(error: EngineError | InvalidRequest) -> Status:
    """Status of a request that was refused."""
    if isinstance(error, InvalidRequest):
        return _status_of_violations(error.violations)
    return _status(_CODES[error.kind], error.reason, str(error), error.metadata)


def status_of_malformed_message() -> Status:
    """Status of a request that is no protobuf message of its type."""
    return _status(Code.INVALID_ARGUMENT, "MESSAGE_MALFORMED", "the request is not a message of its type", {})


def status_of_defect() -> Status:
    """Status of a call that failed by a defect of the daemon, whose log tells more."""
    return _status(Code.INTERNAL, "INTERNAL", "internal error; see the log of the daemon", {})


def _status_of_violations(violations: tuple[Violation, ...]) -> Status:
    first = violations[0]
    others = f" (and {len(violations) - 1} more, see the details)" if len(violations) > 1 else ""
    status = _status(
        Code.INVALID_ARGUMENT,
        "FIELD_INVALID",
        f"{first.field}: {first.description}{others}",
        {"field": first.field, "violations": str(len(violations))},
    )
    _attach(status, _bad_request(violations))
    return status


def _bad_request(violations: tuple[Violation, ...]) -> BadRequest:
    """All violations, or as many as fit and one that counts the rest (only long lists come to that)."""
    details = BadRequest()
    size = 0
    for index, violation in enumerate(violations):
        size += len(violation.field.encode()) + len(violation.description.encode())
        if size > _VIOLATIONS_MAX_BYTES:
            rest = f"{len(violations) - index} more violations; correct these and call again"
            details.field_violations.add(field=violation.field, description=rest)
            break
        details.field_violations.add(field=violation.field, description=violation.description)
    return details


def _status(code: int, reason: str, message: str, metadata: Mapping[str, str]) -> Status:
    status = Status(code=code, message=message[:_TEXT_MAX])
    bounded = {key: value[:_TEXT_MAX] for key, value in metadata.items()}
    _attach(status, ErrorInfo(reason=reason, domain=DOMAIN, metadata=bounded))
    return status


def _attach(status: Status, detail: ErrorInfo | BadRequest) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)
