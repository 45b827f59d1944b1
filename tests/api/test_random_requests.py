"""Random requests to every method: refused or carried out, never failed."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ovpn.dataplane.v1 import device_pb2, event_pb2, key_pb2, peer_pb2, server_pb2, socket_pb2

from tests.api.conftest import Api, key_message

EXPECTED: Final = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
METHODS: Final = [
    method
    for module in (device_pb2, event_pb2, key_pb2, peer_pb2, server_pb2, socket_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name != "SetLogLevel"  # it would change the log of other tests
]
# Values that lead past the first check, among those that do not.
TEXTS: Final = st.sampled_from(
    ["d", "s", "10.8.0.2", "192.0.2.1", "::1", "fd00::2", "fe80::1", "10.8.0.1/24", "mtu", "remote", "a" * 32, "/n"]
) | st.text(max_size=8)
NUMBERS: Final = st.integers(0, 3) | st.sampled_from([1194, 1280, 0xFFFFFF, 2**31 - 1])


def messages(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Messages of a type, with any of their fields set."""
    message_class = message_factory.GetMessageClass(descriptor)
    fields = {field.name: values(field) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: message_class(**chosen))


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    single = single_values(field)
    return st.lists(single, max_size=4) if field.is_repeated else single


def single_values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            return messages(field.message_type)
        case FieldDescriptor.TYPE_STRING:
            return TEXTS
        case FieldDescriptor.TYPE_BYTES:
            return st.sampled_from([b"", bytes(8), bytes(16), bytes(32)])
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            return st.integers(-1, 6)
        case _:
            return NUMBERS


async def call(api: Api, method: MethodDescriptor, request: bytes) -> grpc.StatusCode:
    assert method.containing_service is not None
    channel: Any = api.channel
    path = f"/{method.containing_service.full_name}/{method.name}"
    if not method.server_streaming:
        return await channel.unary_unary(path)(request).code()  # type: ignore[no-any-return]
    stream = channel.unary_stream(path)(request)
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    stream.cancel()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_random_request_is_carried_out_or_refused(method: MethodDescriptor, data: st.DataObject) -> None:
    requests = data.draw(
        st.lists(
            messages(method.input_type).map(lambda message: message.SerializeToString()) | st.binary(max_size=64),
            max_size=8,
        )
    )

    async def run() -> None:
        directory = Path(tempfile.mkdtemp(prefix="ovpn-"))
        api = Api(directory)
        await api.start()
        try:
            await api.make_ready()
            await api.make_peer(1)
            await api.keys.InstallKey(key_message())
            for request in requests:
                assert await asyncio.wait_for(call(api, method, request), 10) in EXPECTED
        finally:
            await api.stop()
            shutil.rmtree(directory)

    asyncio.run(run())
