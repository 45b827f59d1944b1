"""The events of the service in order, and those who watch them.

Knows revisions and queues. Must not know why something happened, nor wait for a reader: one that is too
far behind is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Protocol, Self

from dataplane.engine.types import DeviceView, Event, PeerView

BACKLOG_MAX: Final = 10_000
"""Events that a watch may have unread; the next one ends it."""

_PATIENCE_S: Final = 1.0
_PAUSE_S: Final = 0.005


class WatchTooSlow(Exception):
    """The reader fell too far behind and has missed events; a new watch begins with a new snapshot."""


class Inventory(Protocol):
    """What a watch takes its snapshot from."""

    def list_devices(self) -> list[DeviceView]:
        """All devices, by name."""

    def peer_views(self, device: str) -> Iterable[PeerView]:
        """The peers that the device has now; the views are made when they are asked for."""


class EventLog:
    """Numbers the events and hands them to the watches."""

    def __init__(self) -> None:
        self.revision = 0
        self._watches: set[Watch] = set()
        self._closed = False

    def publish(self, device: str, make_event: Callable[[int], Event]) -> None:
        """Makes the next event, which concerns `device`, with its revision."""
        self.revision += 1
        event = make_event(self.revision)
        for watch in list(self._watches):
            watch.put(device, event)

    async def pace(self) -> None:
        """Gives readers a moment to catch up, between the events of something that makes thousands of them."""
        await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while any(watch.backlog > BACKLOG_MAX // 2 for watch in self._watches):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_PAUSE_S)

    def attach(self, watch: Watch) -> None:
        """Begins to hand events to a watch."""
        if self._closed:
            watch.end()
        else:
            self._watches.add(watch)

    def detach(self, watch: Watch) -> None:
        """Stops that."""
        self._watches.discard(watch)

    def close(self) -> None:
        """Ends all watches, once they have read what there is."""
        self._closed = True
        for watch in self._watches:
            watch.end()
        self._watches.clear()


class Watch:
    """A snapshot, then every change since. To be entered with `async with`; read by `async for`, by one task.

    snapshot_revision: the revision of the snapshot. devices and peers: what existed then; the views of
    the peers are made while one iterates, so they may be newer than the snapshot (never older), and the
    changes that made them so follow as events. The iteration ends with the engine, or with WatchTooSlow.
    """

    def __init__(self, device: str, log: EventLog, inventory: Inventory) -> None:
        self.snapshot_revision = 0
        self.devices: list[DeviceView] = []
        self.peers: Iterable[PeerView] = ()
        self._device = device
        self._log = log
        self._inventory = inventory
        self._unread: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._is_too_slow = False
        self._is_ended = False

    @property
    def backlog(self) -> int:
        """Unread events."""
        return len(self._unread)

    async def __aenter__(self) -> Self:
        self._log.attach(self)
        self.snapshot_revision = self._log.revision
        self.devices = [view for view in self._inventory.list_devices() if self._device in {"", view.name}]
        peers = [self._inventory.peer_views(view.name) for view in self.devices]
        self.peers = (peer for device_peers in peers for peer in device_peers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._log.detach(self)
        self._unread.clear()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._unread:
            if self._is_too_slow:
                raise WatchTooSlow
            if self._is_ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._unread.popleft()

    def put(self, device: str, event: Event) -> None:
        """Takes an event, if it is of the watched device."""
        if self._device not in {"", device}:
            return
        if len(self._unread) == BACKLOG_MAX:
            self._is_too_slow = True
            self._unread.clear()
            self._log.detach(self)
        else:
            self._unread.append(event)
        self._changed.set()

    def end(self) -> None:
        """No more events will come."""
        self._is_ended = True
        self._changed.set()
