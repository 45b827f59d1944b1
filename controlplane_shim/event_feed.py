"""Events of the data plane, brought from gRPC's threads to the supervisor's one thread.

Each followed device has a Watch call and a thread that reads it. The threads do nothing but put what they
read into one queue and ring a bell, a descriptor that the supervisor polls. Knows the Watch call. Must not know
what an event means.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ovpn.dataplane.v1 import event_pb2

from controlplane_shim.dataplane_client import DataPlane, DataPlaneError, Watch

JOIN_SECONDS: Final = 1.0
"""Longest wait for a reading thread after its call was cancelled."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A device is being watched. peers: create_revision by peer_id, of those that were there at the start."""

    stream: int
    peers: dict[int, int]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A change came in."""

    stream: int
    event: event_pb2.WatchResponse


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream broke; nothing more comes from it."""

    stream: int
    error: DataPlaneError


class Bell:
    """A descriptor that is readable between ring() and silence(). Only ring() may be called from any thread."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._sources = select.epoll()
        self._sources.register(self._fd, select.EPOLLIN)
        self._closed = False
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._sources.fileno()

    def ring_at_hang_up(self, stream: int) -> None:
        """Rings once when the other end of this stream socket is closed, unless the socket is before."""
        self._sources.register(stream, select.EPOLLONESHOT)  # a hang-up is always told

    def ring(self) -> None:
        """Makes the descriptor readable."""
        # The lock: a thread that rings late must not write to a descriptor that has got the same number.
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._fd, 1)

    def silence(self) -> None:
        """Makes it unreadable until the next ring()."""
        self._sources.poll(0)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        """Closes the descriptor; a later ring() does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._sources.close()
                os.close(self._fd)


class EventFeed:
    """All streams of a session. Methods are for the supervisor's thread."""

    def __init__(self, dataplane: DataPlane, instance_id: str, ring: Callable[[], None]) -> None:
        """instance_id: of the daemon that the session began with; events of another one break the stream."""
        self._dataplane = dataplane
        self._instance_id = instance_id
        self._ring = ring
        self._queue: queue.SimpleQueue[Arrived | Ended] = queue.SimpleQueue()
        self._streams: dict[int, tuple[Watch, threading.Thread]] = {}
        self._last_stream = 0

    def follow(self, device: str, timeout_seconds: float) -> Followed:
        """Watches a device; returns when the snapshot is complete. Raises DataPlaneError, also if it takes too long."""
        self._last_stream += 1
        stream = self._last_stream
        watch = self._dataplane.watch(device)
        snapshot: queue.SimpleQueue[dict[int, int] | DataPlaneError] = queue.SimpleQueue()
        thread = threading.Thread(
            target=self._read, args=(stream, watch, snapshot), name=f"watch {device}", daemon=True
        )
        self._streams[stream] = (watch, thread)
        thread.start()
        try:
            outcome = snapshot.get(timeout=timeout_seconds)
        except queue.Empty:
            outcome = DataPlaneError("DEADLINE_EXCEEDED", "", "Watch did not deliver its bookmark")
        if isinstance(outcome, DataPlaneError):
            self.unfollow(stream)
            raise outcome
        return Followed(stream, outcome)

    def unfollow(self, stream: int) -> None:
        """Ends a stream; what it still has in the queue is forgotten. A stream that is gone is not an error."""
        if entry := self._streams.pop(stream, None):
            entry[0].cancel()

    def take(self) -> list[Arrived | Ended]:
        """What came in since the last time, in order."""
        items = []
        while not self._queue.empty():
            item = self._queue.get()
            if item.stream not in self._streams:
                continue
            if isinstance(item, Ended):
                del self._streams[item.stream]
            items.append(item)
        return items

    def close(self) -> None:
        """Ends all streams and their threads, in about a second at most."""
        threads = [thread for _, thread in self._streams.values()]
        for stream in list(self._streams):
            self.unfollow(stream)
        for thread in threads:
            thread.join(JOIN_SECONDS / len(threads))

    def _read(self, stream: int, watch: Watch, snapshot: queue.SimpleQueue[dict[int, int] | DataPlaneError]) -> None:
        peers: dict[int, int] = {}
        try:
            for event in watch:
                self._check_instance(event)
                match event.WhichOneof("event"):
                    case "peer_snapshot":
                        peers[event.peer_snapshot.peer_id] = event.peer_snapshot.create_revision
                    case "bookmark":
                        snapshot.put(peers)
                    case "device_snapshot":
                        pass
                    case _:
                        self._put(Arrived(stream, event))
            error = DataPlaneError("UNAVAILABLE", "", "the data plane ended the event stream")
        except DataPlaneError as failure:
            error = failure
        snapshot.put(error)
        self._put(Ended(stream, error))

    def _check_instance(self, event: event_pb2.WatchResponse) -> None:
        if event.instance_id != self._instance_id:
            raise DataPlaneError("UNAVAILABLE", "", "the data plane was restarted")

    def _put(self, item: Arrived | Ended) -> None:
        self._queue.put(item)
        self._ring()
