"""The server as a whole: health, reflection, limits of transport, and how it ends."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from ovpn.dataplane.v1 import device_pb2, event_pb2, key_pb2

from dataplane.api.server import MAX_MESSAGE_BYTES, SERVICES
from dataplane.api.socket_path import SocketPathError
from tests.api.conftest import PATIENCE_S, Api, key_message

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_the_socket_is_for_owner_and_group(api: Api) -> None:
    assert stat.S_IMODE(api.control_path.stat().st_mode) == 0o660


@pytest.mark.parametrize("name", ["a b%41é#?.sock", "control.sock"])
async def test_any_path_may_be_served(directory: Path, name: str) -> None:
    api = Api(directory)
    api.control_path = directory / name
    await api.start()
    assert api.control_path.is_socket()
    await api.stop()
    assert not api.control_path.exists()


async def test_a_path_in_use_is_refused_and_goes_on_serving(api: Api, directory: Path) -> None:
    (directory / "other").mkdir()
    other = Api(directory / "other")
    with pytest.raises(SocketPathError, match="in use"):
        await other.server.start(api.control_path)
    other.handoff.close()
    await api.make_device()


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_is_serving_as_a_whole_and_by_service(api: Api, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(api.channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING


async def test_health_says_not_serving_when_the_server_ends(api: Api) -> None:
    stub: Any = health_pb2_grpc.HealthStub(api.channel)
    statuses = aiter(stub.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0])))
    assert (await anext(statuses)).status == SERVING
    stopping = asyncio.ensure_future(api.server.stop(3600, hurry := asyncio.Event()))
    assert (await asyncio.wait_for(anext(statuses), PATIENCE_S)).status == NOT_SERVING
    hurry.set()
    await stopping


async def test_the_end_waits_for_calls_but_not_for_watches(api: Api) -> None:
    watch = aiter(api.events.Watch(event_pb2.WatchRequest()))
    await anext(watch)
    async with asyncio.timeout(PATIENCE_S):
        await api.server.stop(3600, asyncio.Event())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await anext(watch)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_every_service_is_listed_by_reflection(api: Api) -> None:
    (reply,) = await ask_reflection(api, reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in reply.list_services_response.service}
    assert names == {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_client_that_knows_only_reflection_can_list_devices_and_peers(api: Api) -> None:
    await api.make_ready()
    await api.make_peer(7)
    client = ReflectionClient(api)
    devices = await client.call("ovpn.dataplane.v1.DeviceService", "ListDevices")
    assert [device.name for device in devices.devices] == ["d"]
    peers = await client.call("ovpn.dataplane.v1.PeerService", "ListPeers", device="d")
    assert [(peer.peer_id, peer.vpn_ipv4) for peer in peers.peers] == [(7, "10.8.0.7")]


async def test_a_message_of_more_than_4_mib_is_refused(api: Api) -> None:
    request = device_pb2.GetDeviceRequest(name="x" * (MAX_MESSAGE_BYTES + 1))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.devices.GetDevice(request)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_key_bytes_are_hidden_by_the_text_format_of_the_contract() -> None:
    secret = [field for field in key_pb2.KeyDirection.DESCRIPTOR.fields if field.type == field.TYPE_BYTES]
    assert [field.name for field in secret] == ["cipher_key", "nonce_tail", "epoch_secret"]
    assert all(field.GetOptions().debug_redact for field in secret)
    assert key_message().ByteSize() > 80


async def ask_reflection(
    api: Api, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    channel: Any = api.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    return [reply async for reply in stub.ServerReflectionInfo(iter(requests))]


class ReflectionClient:
    """Calls methods by name, with messages made from what reflection tells and nothing else."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._pool = DescriptorPool()
        self._files: set[str] = set()

    async def call(self, service: str, method: str, **fields: object) -> Any:
        await self._learn(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        found = self._pool.FindServiceByName(service).FindMethodByName(method)
        request: Message = message_factory.GetMessageClass(found.input_type)(**fields)
        reply_class = message_factory.GetMessageClass(found.output_type)
        channel: Any = self._api.channel
        return reply_class.FromString(await channel.unary_unary(f"/{service}/{method}")(request.SerializeToString()))

    async def _learn(self, request: reflection_pb2.ServerReflectionRequest) -> None:
        (reply,) = await ask_reflection(self._api, request)
        for data in reply.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name in self._files:
                continue
            self._files.add(file.name)
            for dependency in file.dependency:
                await self._learn(reflection_pb2.ServerReflectionRequest(file_by_filename=dependency))
            self._pool.Add(file)
