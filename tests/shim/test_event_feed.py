"""From Watch calls in threads to one queue."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from ovpn.dataplane.v1 import event_pb2, peer_pb2

from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.event_feed import Arrived, Bell, Ended, EventFeed
from tests.shim.conftest import GONE, INSTANCE, FakeDataPlane, is_readable

DELETED = event_pb2.DeviceDeleted(device="a")


@pytest.fixture
def feed(dataplane: FakeDataPlane, bell: Bell) -> Iterator[EventFeed]:
    feed = EventFeed(dataplane, INSTANCE, bell.ring)
    yield feed
    feed.close()


def kinds(items: list[Arrived | Ended]) -> list[tuple[int, str | None]]:
    return [
        (item.stream, item.event.WhichOneof("event") if isinstance(item, Arrived) else item.error.code)
        for item in items
    ]


def test_following_returns_the_snapshot(dataplane: FakeDataPlane, feed: EventFeed, bell: Bell) -> None:
    dataplane.peers = {3: peer_pb2.Peer(peer_id=3, create_revision=30), 4: peer_pb2.Peer(peer_id=4, create_revision=41)}
    assert feed.follow("a", 5).peers == {3: 30, 4: 41}
    assert feed.take() == []
    assert not is_readable(bell.fileno())


def test_changes_arrive_in_order_and_ring_the_bell(dataplane: FakeDataPlane, feed: EventFeed, bell: Bell) -> None:
    stream = feed.follow("a", 5).stream
    dataplane.emit("a", peer_deleted=event_pb2.PeerDeleted(device="a"))
    dataplane.emit("a", device_deleted=DELETED)
    assert is_readable(bell.fileno(), 5)
    assert kinds(feed.take()) == [(stream, "peer_deleted"), (stream, "device_deleted")]
    assert feed.take() == []


def test_each_stream_has_its_own_number(dataplane: FakeDataPlane, feed: EventFeed) -> None:
    first, second = feed.follow("a", 5).stream, feed.follow("a", 5).stream
    dataplane.emit("a", device_deleted=DELETED)
    assert first != second
    assert kinds(feed.take()) == [(second, "device_deleted")]


def test_what_an_unfollowed_stream_had_in_the_queue_is_forgotten(dataplane: FakeDataPlane, feed: EventFeed) -> None:
    stream = feed.follow("a", 5).stream
    dataplane.emit("a", device_deleted=DELETED)
    feed.unfollow(stream)
    dataplane.watches["a"][0].flush()
    assert feed.take() == []
    assert dataplane.watches["a"][0].cancelled


def test_a_broken_stream_is_reported_once_and_ends(dataplane: FakeDataPlane, feed: EventFeed, bell: Bell) -> None:
    stream = feed.follow("a", 5).stream
    dataplane.watches["a"][0].send(GONE)
    assert is_readable(bell.fileno(), 5)
    (item,) = feed.take()
    assert item == Ended(stream, GONE)
    feed.unfollow(stream)


def test_an_event_of_another_instance_breaks_the_stream(dataplane: FakeDataPlane, feed: EventFeed, bell: Bell) -> None:
    feed.follow("a", 5)
    dataplane.instance_id = "restarted"
    dataplane.emit("a", device_deleted=DELETED)
    assert is_readable(bell.fileno(), 5)
    (item,) = feed.take()
    assert isinstance(item, Ended)
    assert item.error.gone


def test_following_raises_what_the_call_raises(dataplane: FakeDataPlane, feed: EventFeed) -> None:
    dataplane.gives_bookmark = False
    dataplane.peers = {3: peer_pb2.Peer(peer_id=3)}
    dataplane.instance_id = "another"
    with pytest.raises(DataPlaneError, match="restarted"):
        feed.follow("a", 5)


def test_following_ends_in_time_without_a_bookmark(dataplane: FakeDataPlane, feed: EventFeed) -> None:
    dataplane.gives_bookmark = False
    with pytest.raises(DataPlaneError, match="bookmark") as caught:
        feed.follow("a", 0.01)
    assert caught.value.gone
    assert dataplane.watches["a"][0].cancelled


def test_closing_ends_the_threads(feed: EventFeed) -> None:
    feed.follow("a", 5)
    feed.follow("b", 5)
    threads = [thread for _, thread in feed._streams.values()]
    feed.close()
    assert not any(thread.is_alive() for thread in threads)


def test_a_bell_is_readable_between_ring_and_silence(bell: Bell) -> None:
    assert not is_readable(bell.fileno())
    bell.ring()
    bell.ring()
    assert is_readable(bell.fileno())
    bell.silence()
    bell.silence()
    assert not is_readable(bell.fileno())


def test_a_bell_rung_after_it_was_closed_writes_nowhere() -> None:
    reader, writer = os.pipe()
    bell = Bell()
    bell.close()
    successors = [os.dup(writer) for _ in range(4)]  # they get the lowest numbers, and so the bell's
    try:
        bell.ring()
        assert not is_readable(reader)
    finally:
        for fd in (reader, writer, *successors):
            os.close(fd)


def test_a_bell_rings_once_when_the_other_end_of_a_stream_is_closed(bell: Bell) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        bell.ring_at_hang_up(ours.fileno())
        theirs.send(b"data do not matter")
        assert not is_readable(bell.fileno())
        theirs.close()
        assert is_readable(bell.fileno())
        bell.silence()
        assert not is_readable(bell.fileno())
        bell.ring()
        assert is_readable(bell.fileno())


def test_a_bell_rings_for_a_stream_that_was_closed_before(bell: Bell) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        bell.ring_at_hang_up(ours.fileno())
        assert is_readable(bell.fileno())
