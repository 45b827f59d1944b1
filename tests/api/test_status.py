"""What a refusal looks like to a client, and that it always fits into the trailers."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from ovpn.dataplane.v1 import device_pb2

from dataplane.api.status import status_of_refusal
from dataplane.api.violations import InvalidRequest, Violation
from dataplane.engine.types import EngineError, ErrorKind
from tests.api.conftest import Api, device_message, refusal_of


def details(status: grpc.Status) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    trailers = dict(status.trailing_metadata or ())
    parsed = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    parsed.details[0].Unpack(info)
    if len(parsed.details) > 1:
        parsed.details[1].Unpack(bad_request)
    return info, bad_request


@pytest.mark.parametrize("kind", ErrorKind)
def test_each_kind_of_engine_error_has_the_code_of_its_name(kind: ErrorKind) -> None:
    status = status_of_refusal(EngineError(kind, "SOME_REASON", "text", device="d"))
    info, _ = details(status)
    assert status.code is grpc.StatusCode[kind.name]
    assert (info.reason, info.domain, dict(info.metadata)) == ("SOME_REASON", "dataplane.ovpn", {"device": "d"})
    assert status.details == "text"


def test_violations_are_all_listed_and_the_first_is_in_the_message() -> None:
    status = status_of_refusal(InvalidRequest((Violation("a.b", "must be 1"), Violation("c", "must be 2"))))
    info, bad_request = details(status)
    assert status.code is grpc.StatusCode.INVALID_ARGUMENT
    assert status.details == "a.b: must be 1 (and 1 more, see the details)"
    assert (info.reason, dict(info.metadata)) == ("FIELD_INVALID", {"field": "a.b", "violations": "2"})
    assert [(item.field, item.description) for item in bad_request.field_violations] == [
        ("a.b", "must be 1"),
        ("c", "must be 2"),
    ]


def test_a_list_that_is_too_long_ends_with_the_number_of_the_others() -> None:
    status = status_of_refusal(InvalidRequest(tuple(Violation(f"f[{i}]", "é" * 50) for i in range(100))))
    _, bad_request = details(status)
    listed = bad_request.field_violations
    assert listed[-1].description.startswith(f"{100 - (len(listed) - 1)} more violations")
    assert bad_request.ByteSize() < 4096


def test_long_texts_are_cut() -> None:
    status = status_of_refusal(EngineError(ErrorKind.INTERNAL, "R", "x" * 10_000, detail="y" * 10_000))
    info, _ = details(status)
    assert len(status.details) == len(info.metadata["detail"]) == 512


async def test_the_worst_request_still_gets_its_answer(api: Api) -> None:
    device = device_message(
        name="\U0001f600" * 1000,
        interface_name="\U0001f600" * 1000,
        addresses=["\U0001f600" * 1000] * 64,
        network_namespace="\U0001f600" * 1000,
    )
    refusal = await refusal_of(api.devices.CreateDevice(device_pb2.CreateDeviceRequest(device=device)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.metadata["violations"] == "67"
    assert refusal.trailers_bytes < 6000
