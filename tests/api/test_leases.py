"""Devices that live no longer than the hand-off connection that gave their TUN."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from ovpn.dataplane.v1 import device_pb2, event_pb2

from dataplane.messages import Configure, DeviceClosed, Reply
from tests.api.conftest import PATIENCE_S, Api, device_fd, device_fds, device_message, exchange, refusal_of


def create(token: str, name: str = "d") -> device_pb2.CreateDeviceRequest:
    return device_pb2.CreateDeviceRequest(
        device=device_message(name=name), tun_token=token, delete_on_handoff_close=True
    )


class Events:
    """What was created and deleted."""

    def __init__(self, api: Api) -> None:
        self._messages: AsyncIterator[event_pb2.WatchResponse] = aiter(api.events.Watch(event_pb2.WatchRequest()))

    async def wait_for(self, kind: str) -> event_pb2.WatchResponse:
        async with asyncio.timeout(PATIENCE_S):
            async for message in self._messages:
                if message.WhichOneof("event") == kind:
                    return message
        pytest.fail("the watch ended")


async def leased(api: Api, name: str = "d") -> Any:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    await api.devices.CreateDevice(create(token, name))
    return client


async def test_a_leased_device_is_deleted_when_its_connection_closes(api: Api) -> None:
    events = Events(api)
    client = await leased(api)
    client.close()
    assert (await events.wait_for("device_deleted")).device_deleted.device == "d"
    assert not api.engine.list_devices()


async def test_all_devices_of_a_connection_are_deleted_and_no_others(api: Api) -> None:
    events = Events(api)
    staying = await leased(api, "staying")
    client = await leased(api, "a")
    reply = await exchange(client, b"adopt", fd := device_fd())
    os.close(fd)
    await api.devices.CreateDevice(create(reply.removeprefix(b"token ").decode(), "b"))
    client.close()
    await events.wait_for("device_deleted")
    await events.wait_for("device_deleted")
    assert [device.name for device in api.engine.list_devices()] == ["staying"]
    staying.close()


async def test_a_device_without_a_lease_outlives_the_connection(api: Api) -> None:
    events = Events(api)
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    request = device_pb2.CreateDeviceRequest(device=device_message(), tun_token=token)
    await api.devices.CreateDevice(request)
    ended = await leased(api, "e")
    client.close()
    ended.close()
    assert (await events.wait_for("device_deleted")).device_deleted.device == "e"
    assert [device.name for device in api.engine.list_devices()] == ["d"]


async def test_a_token_of_a_closed_connection_gives_no_lease(api: Api) -> None:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    client.close()
    await api.devices.ListDevices(device_pb2.ListDevicesRequest())  # the channel is connected
    with api.connect() as other:
        await exchange(other, b"x")  # the close was seen before this
        before = device_fds()
        refusal = await refusal_of(api.devices.CreateDevice(create(token)))
        assert device_fds() == before - 1
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "HANDOFF_TOKEN_UNKNOWN")
    assert not api.engine.list_devices()


async def test_a_connection_that_closes_while_the_device_is_made_leaves_none(api: Api) -> None:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    api.launcher.prepare = lambda worker: worker.reactions.update({Configure: lambda _: close_and_go_on()})

    def close_and_go_on() -> None:
        client.close()
        asyncio.get_running_loop().create_task(answer_when_seen())

    async def answer_when_seen() -> None:
        with api.connect() as other:
            await exchange(other, b"x")  # the close was seen before this
        api.launcher.worker.say(Reply(1))

    refusal = await refusal_of(api.devices.CreateDevice(create(token)))
    assert refusal.reason == "HANDOFF_TOKEN_UNKNOWN"
    assert not api.engine.list_devices()


async def test_a_client_killed_during_its_call_leaves_no_device(api: Api) -> None:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    begun = asyncio.Event()
    api.launcher.prepare = lambda worker: worker.reactions.update({Configure: lambda _: begun.set()})
    call = asyncio.ensure_future(cancelled(api.devices.CreateDevice(create(token))))
    await begun.wait()
    call.cancel()
    await asyncio.wait((call,))
    events = Events(api)
    await events.wait_for("bookmark")
    api.launcher.worker.say(Reply(1))
    await events.wait_for("device_created")
    client.close()
    await events.wait_for("device_deleted")


async def cancelled(call: Any) -> None:
    await call


async def test_a_deleted_device_takes_its_lease_along(api: Api) -> None:
    client = await leased(api)
    await api.devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name="d"))
    await api.make_device("d")
    events = Events(api)
    other = await leased(api, "other")
    client.close()
    other.close()
    assert (await events.wait_for("device_deleted")).device_deleted.device == "other"
    assert [device.name for device in api.engine.list_devices()] == ["d"]


async def test_a_device_that_went_with_its_interface_leaves_no_lease_behind(api: Api) -> None:
    events = Events(api)
    client = await leased(api)
    api.launcher.worker.say(DeviceClosed(0))
    await events.wait_for("device_deleted")
    await api.make_device("d")
    other = await leased(api, "other")
    client.close()
    other.close()
    assert (await events.wait_for("device_deleted")).device_deleted.device == "other"
    assert [device.name for device in api.engine.list_devices()] == ["d"]


async def test_a_refused_creation_leaves_the_lease_of_the_device_that_is_there(api: Api) -> None:
    events = Events(api)
    client = await leased(api)
    await refusal_of(api.devices.CreateDevice(device_pb2.CreateDeviceRequest(device=device_message())))
    client.close()
    assert (await events.wait_for("device_deleted")).device_deleted.device == "d"
