"""EventService over a real server: order, filter, and how a watch ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from ovpn.dataplane.v1 import common_pb2, device_pb2, event_pb2, peer_pb2

from dataplane.engine.types import DeviceCreated
from dataplane.engine.watch import BACKLOG_MAX
from dataplane.messages import Endpoint, KeyExhausted, PeerExpired, PeerFloatAsked, PeerFloated
from tests.api.conftest import PATIENCE_S, Api, key_message, refusal_of
from tests.engine.conftest import fill_row


class Reader:
    """A watch that has begun; `next()` gives its messages."""

    def __init__(self, api: Api, device: str = "") -> None:
        self.call = api.events.Watch(event_pb2.WatchRequest(device=device))
        self._messages: AsyncIterator[event_pb2.WatchResponse] = aiter(self.call)

    async def next(self) -> event_pb2.WatchResponse:
        return await asyncio.wait_for(anext(self._messages), PATIENCE_S)

    async def read_to_the_end(self) -> None:
        async for _ in self._messages:
            pass

    async def up_to_bookmark(self) -> list[event_pb2.WatchResponse]:
        messages = [await self.next()]
        while kind(messages[-1]) != "bookmark":
            messages.append(await self.next())
        return messages


@pytest.fixture
async def reader(api: Api) -> AsyncIterator[Reader]:
    """A watch over a device "d" with a peer 1, past its bookmark."""
    await api.make_ready()
    await api.make_peer()
    reader = Reader(api)
    await reader.up_to_bookmark()
    yield reader
    reader.call.cancel()


def kind(message: event_pb2.WatchResponse) -> str:
    return message.WhichOneof("event") or ""


async def test_an_empty_service_sends_a_bookmark_at_once(api: Api) -> None:
    (bookmark,) = await Reader(api).up_to_bookmark()
    assert bookmark.revision == 0
    assert bookmark.instance_id == api.engine.instance_id


async def test_the_snapshot_comes_first_then_the_bookmark_then_changes(api: Api) -> None:
    await api.make_ready()
    await api.make_peer(1)
    await api.make_peer(2)
    revision = api.engine.revision
    reader = Reader(api)
    messages = await reader.up_to_bookmark()
    assert [kind(message) for message in messages] == ["device_snapshot", "peer_snapshot", "peer_snapshot", "bookmark"]
    assert {message.revision for message in messages} == {revision}
    assert messages[0].device_snapshot.name == "d"
    assert [message.peer_snapshot.peer_id for message in messages[1:3]] == [1, 2]
    peer = await api.make_peer(3)
    message = await reader.next()
    assert (message.revision, message.peer_created) == (revision + 1, peer)


async def test_changes_come_in_order_with_growing_revisions(api: Api, reader: Reader) -> None:
    await api.make_device("e")
    await api.make_peer(2)
    await api.devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name="d"))
    messages = [await reader.next() for _ in range(5)]
    assert [kind(message) for message in messages] == [
        "device_created",
        "peer_created",
        "peer_deleted",
        "peer_deleted",
        "device_deleted",
    ]
    first = messages[0].revision
    assert [message.revision for message in messages] == list(range(first, first + 5))
    assert messages[-1].device_deleted.device == "d"


async def test_a_deleted_peer_is_told_with_reason_counters_and_its_revision(api: Api, reader: Reader) -> None:
    peer = (await api.peers.GetPeer(peer_pb2.GetPeerRequest(device="d", peer_id=1))).peer
    fill_row(api.launcher.worker, 1, 10)
    final = (await api.peers.DeletePeer(peer_pb2.DeletePeerRequest(device="d", peer_id=1))).final_counters
    assert (await reader.next()).peer_deleted == event_pb2.PeerDeleted(
        device="d",
        peer_id=1,
        reason=common_pb2.DEL_REASON_USERSPACE,
        final_counters=final,
        create_revision=peer.create_revision,
    )


async def test_what_the_worker_reports_is_told(api: Api, reader: Reader) -> None:
    await api.keys.InstallKey(key_message(key_id=3))
    worker = api.launcher.worker
    uid = worker.peers[1].uid
    worker.say(
        PeerFloated(1, uid, Endpoint(bytes([203, 0, 113, 5]), 7), 1), KeyExhausted(1, uid, 3), PeerExpired(1, uid)
    )
    remote = common_pb2.Endpoint(address="203.0.113.5", port=7)
    assert (await reader.next()).peer_floated == event_pb2.PeerFloated(device="d", peer_id=1, remote=remote)
    assert (await reader.next()).key_swap_needed == event_pb2.KeySwapNeeded(device="d", peer_id=1, key_id=3)
    assert (await reader.next()).peer_deleted.reason == common_pb2.DEL_REASON_EXPIRED


async def test_a_peer_that_asks_to_float_is_told_with_both_places(api: Api, reader: Reader) -> None:
    peer = (await api.peers.GetPeer(peer_pb2.GetPeerRequest(device="d", peer_id=1))).peer
    worker = api.launcher.worker
    worker.say(PeerFloatAsked(1, worker.peers[1].uid, Endpoint(bytes([203, 0, 113, 5]), 7), 1))
    assert (await reader.next()).peer_float_asked == event_pb2.PeerFloatAsked(
        device="d",
        peer_id=1,
        remote=peer.remote,
        asked_remote=common_pb2.Endpoint(address="203.0.113.5", port=7),
        asked_socket=peer.socket,
    )


async def test_a_dead_worker_is_told_after_its_peers(api: Api, reader: Reader) -> None:
    api.launcher.worker.kill()
    assert (await reader.next()).peer_deleted.reason == common_pb2.DEL_REASON_TRANSPORT_ERROR
    restarted = (await reader.next()).worker_restarted
    assert restarted == event_pb2.WorkerRestarted(device="d", worker_pid=1001)


async def test_a_watch_of_one_device_tells_nothing_of_others(api: Api) -> None:
    await api.make_device("other")
    reader = Reader(api, "d")
    assert [kind(message) for message in await reader.up_to_bookmark()] == ["bookmark"]
    await api.make_device("another")
    await api.make_device("d")
    message = await reader.next()
    assert (kind(message), message.device_created.name) == ("device_created", "d")


async def test_a_malformed_device_name_is_refused(api: Api) -> None:
    refusal = await refusal_of(Reader(api, "a b").next())
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"device"}


async def test_a_reader_that_falls_behind_is_ended(api: Api, reader: Reader) -> None:
    # Many events at once, without giving the loop a turn in which they could be sent.
    publish: Any = api.engine._events.publish
    device = api.engine.get_device("d")
    for _ in range(BACKLOG_MAX + 1):
        publish("d", lambda revision: DeviceCreated(revision, device))
    refusal = await refusal_of(reader.read_to_the_end())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCH_TOO_SLOW")
    assert refusal.metadata == {"backlog": "10000"}


async def test_the_end_of_the_service_ends_watches_after_what_there_was(api: Api, reader: Reader) -> None:
    await api.make_peer(2)
    api.server._events.end_watches()
    assert kind(await reader.next()) == "peer_created"
    refusal = await refusal_of(reader.next())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_the_end_of_the_engine_ends_watches(api: Api, reader: Reader) -> None:
    await api.engine.close()
    assert kind(await reader.next()) == "peer_deleted"
    assert kind(await reader.next()) == "device_deleted"
    assert (await refusal_of(reader.next())).reason == "SHUTTING_DOWN"


async def test_a_cancelled_watch_leaves_nothing_behind(api: Api, reader: Reader) -> None:
    watches: Any = api.engine._events._watches
    assert len(watches) == 1
    reader.call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        while watches:  # noqa: ASYNC110 - nobody tells when gRPC has ended a call
            await asyncio.sleep(0.001)
