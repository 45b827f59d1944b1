"""The root of each call: defects, malformed messages, and what is logged."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.descriptor import Descriptor
from ovpn.dataplane.v1 import device_pb2, event_pb2, key_pb2, peer_pb2, server_pb2, socket_pb2

from dataplane.api.interceptors import SECRET_METHODS
from dataplane.messages import InstallKey, SwapKeys
from tests.api.conftest import PATIENCE_S, Api, key_message, refusal_of, shows_secrets

INSTALL = "/ovpn.dataplane.v1.KeyService/InstallKey"
GET_DEVICE = "/ovpn.dataplane.v1.DeviceService/GetDevice"


async def test_a_call_is_logged_with_method_code_and_duration_only(api: Api) -> None:
    with structlog.testing.capture_logs() as records:
        await refusal_of(api.devices.GetDevice(device_pb2.GetDeviceRequest(name="some-name")))
    (record,) = records
    assert record.pop("duration_ms") >= 0
    assert record == {"event": "rpc", "log_level": "debug", "method": GET_DEVICE, "code": "NOT_FOUND"}


async def test_a_successful_stream_is_logged_once(api: Api) -> None:
    await api.make_device()
    with structlog.testing.capture_logs() as records:
        assert [reply async for reply in api.peers.StreamPeers(peer_pb2.StreamPeersRequest(device="d"))] == []
    assert [(record["event"], record["code"]) for record in records] == [("rpc", "OK")]


async def test_a_cancelled_call_is_logged_as_such(api: Api) -> None:
    with structlog.testing.capture_logs() as records:
        call = api.events.Watch(event_pb2.WatchRequest())
        await asyncio.wait_for(anext(aiter(call)), PATIENCE_S)
        call.cancel()
        async with asyncio.timeout(PATIENCE_S):
            while not records:  # noqa: ASYNC110 - nobody tells when gRPC has ended a call
                await asyncio.sleep(0.001)
    assert [record["code"] for record in records] == ["CANCELLED"]


async def test_a_defect_tells_the_client_nothing_and_the_log_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.engine, "get_device", fails("the inner workings"))
    with structlog.testing.capture_logs() as records:
        refusal = await refusal_of(api.devices.GetDevice(device_pb2.GetDeviceRequest(name="d")))
    assert (refusal.code, refusal.reason, refusal.domain) == (grpc.StatusCode.INTERNAL, "INTERNAL", "dataplane.ovpn")
    assert "inner workings" not in str(refusal)
    assert "Traceback" not in str(refusal)
    defects = [record for record in records if record["event"] == "rpc_defect"]
    assert [(record["log_level"], record["error"]) for record in defects] == [("error", "RuntimeError")]
    assert str(defects[0]["exc_info"]) == "the inner workings"


async def test_a_defect_in_a_stream_ends_it_likewise(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.engine, "list_peers", fails("the inner workings"))
    refusal = await refusal_of(api.peers.StreamPeers(peer_pb2.StreamPeersRequest(device="d")).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_a_defect_that_quotes_a_key_shows_it_nowhere(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def quotes_it(spec: Any) -> None:
        raise RuntimeError(f"bad key {spec.encrypt_key!r}")

    monkeypatch.setattr(api.engine, "install_key", quotes_it)
    with structlog.testing.capture_logs() as records:
        refusal = await refusal_of(api.keys.InstallKey(key_message()))
    assert refusal.reason == "INTERNAL"
    assert not shows_secrets(str(refusal))
    assert [record["error"] for record in records if record["event"] == "rpc_defect"] == ["RuntimeError"]
    assert not shows_secrets(str(records))


async def test_a_worker_that_refuses_for_no_known_reason_is_a_defect(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    api.launcher.worker.reactions[SwapKeys] = lambda _: "SOMETHING"
    with structlog.testing.capture_logs() as records:
        refusal = await refusal_of(api.keys.SwapKeys(key_pb2.SwapKeysRequest(device="d", peer_id=1)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "SOMETHING" not in str(refusal)
    assert [record["error"] for record in records if record["event"] == "rpc_defect"] == ["EngineError"]


def test_every_method_whose_request_holds_secrets_is_known() -> None:
    files = (module.DESCRIPTOR for module in (device_pb2, event_pb2, key_pb2, peer_pb2, server_pb2, socket_pb2))
    secret = {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        if holds_secrets(method.input_type)
    }
    assert secret == SECRET_METHODS == {INSTALL}


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x01\xff", b"\x08"])
@pytest.mark.parametrize("method", [GET_DEVICE, INSTALL, "/ovpn.dataplane.v1.EventService/Watch"])
async def test_bytes_that_are_no_message_are_refused(api: Api, method: str, data: bytes) -> None:
    is_stream = method.endswith("Watch")
    channel: Any = api.channel
    call = (channel.unary_stream if is_stream else channel.unary_unary)(method)(data)
    refusal = await refusal_of(call.read() if is_stream else call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED")


async def test_unknown_fields_are_ignored(api: Api) -> None:
    await api.make_device()
    newer = device_pb2.GetDeviceRequest(name="d").SerializeToString() + b"\x9a\x06\x03new"
    channel: Any = api.channel
    assert b"d" in await channel.unary_unary(GET_DEVICE)(newer)


async def test_a_key_that_the_worker_gets_was_not_logged_on_its_way(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    with structlog.testing.capture_logs() as records:
        await api.keys.InstallKey(key_message())
    assert any(isinstance(command, InstallKey) for command in api.launcher.worker.commands)
    assert [record["method"] for record in records] == [INSTALL]
    assert not shows_secrets(str(records))


def fails(text: str) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(text)

    return fail


def holds_secrets(message: Descriptor) -> bool:
    return any(
        field.GetOptions().debug_redact or (field.message_type is not None and holds_secrets(field.message_type))
        for field in message.fields
    )
