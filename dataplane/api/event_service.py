"""EventService: the engine's watch as a stream.

Knows the order: snapshot, bookmark, changes. Must not know how events come about.
"""
# ruff: noqa: N802 - gRPC calls the methods as the contract names them

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from ovpn.dataplane.v1 import event_pb2, event_pb2_grpc

from dataplane.api.encode import encode_device, encode_event, encode_peer
from dataplane.api.validation import read_name
from dataplane.api.violations import Violations
from dataplane.engine import errors, watch
from dataplane.engine.engine import Engine
from dataplane.engine.types import EngineError, ErrorKind, Event


class EventService(event_pb2_grpc.EventServiceServicer):
    """See proto/ovpn/dataplane/v1/event.proto."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ending = asyncio.Event()

    def end_watches(self) -> None:
        """Ends every watch with UNAVAILABLE, once it has sent what there is."""
        self._ending.set()

    async def Watch(
        self, request: event_pb2.WatchRequest, _context: object
    ) -> AsyncGenerator[event_pb2.WatchResponse, None]:
        """Sends what exists, a bookmark, then every change in order."""
        if request.device:
            found = Violations()
            read_name(found, "device", request.device)
            found.raise_if_any()
        instance_id = self._engine.instance_id
        async with self._engine.watch(request.device) as watched:
            revision = watched.snapshot_revision
            for device in watched.devices:
                yield event_pb2.WatchResponse(
                    instance_id=instance_id, revision=revision, device_snapshot=encode_device(device)
                )
            for peer in watched.peers:
                yield event_pb2.WatchResponse(
                    instance_id=instance_id, revision=revision, peer_snapshot=encode_peer(peer)
                )
            yield event_pb2.WatchResponse(instance_id=instance_id, revision=revision, bookmark=event_pb2.Bookmark())
            while True:
                yield encode_event(instance_id, await self._next_event(watched))

    async def _next_event(self, watched: watch.Watch) -> Event:
        """The next event. Raises EngineError SHUTTING_DOWN and WATCH_TOO_SLOW."""
        event = asyncio.ensure_future(anext(watched))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((event, ending), return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                return event.result()
            raise errors.shutting_down()
        except StopAsyncIteration:
            raise errors.shutting_down() from None
        except watch.WatchTooSlow:
            raise EngineError(
                ErrorKind.RESOURCE_EXHAUSTED,
                "WATCH_TOO_SLOW",
                f"the reader fell {watch.BACKLOG_MAX} events behind; watch again for a new snapshot",
                backlog=str(watch.BACKLOG_MAX),
            ) from None
        finally:
            event.cancel()
            ending.cancel()
