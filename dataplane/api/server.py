"""The gRPC server: all services, health and reflection on one Unix socket.

Knows how they are put together and taken apart. Must not know what a service does.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Final
from urllib.parse import quote

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from ovpn.dataplane.v1 import (
    device_pb2_grpc,
    event_pb2_grpc,
    key_pb2_grpc,
    peer_pb2_grpc,
    server_pb2_grpc,
    socket_pb2_grpc,
)

from dataplane.api.device_service import DeviceService
from dataplane.api.event_service import EventService
from dataplane.api.handoff_vault import HandoffVault
from dataplane.api.interceptors import CallInterceptor
from dataplane.api.key_service import KeyService
from dataplane.api.leases import Leases
from dataplane.api.peer_service import PeerService
from dataplane.api.server_service import DaemonFacts, ServerService
from dataplane.api.socket_path import SocketPathError, claim_socket_path, socket_umask
from dataplane.api.socket_service import SocketService
from dataplane.engine.engine import Engine

SERVICES: Final = tuple(
    f"ovpn.dataplane.v1.{name}Service" for name in ("Device", "Socket", "Peer", "Key", "Event", "Server")
)
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_CALLS: Final = 1024
"""Calls at the same time, watches included; further ones get RESOURCE_EXHAUSTED from gRPC."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A client may ping a quiet watch every 10 s; one that does so more often is disconnected.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)


class ApiServer:
    """Serves from start() to stop(). To be made where an event loop runs."""

    def __init__(self, engine: Engine, vault: HandoffVault, leases: Leases, facts: DaemonFacts) -> None:
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor()], options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS
        )
        self._events = EventService(engine)
        self._health = health.aio.HealthServicer()
        device_pb2_grpc.add_DeviceServiceServicer_to_server(DeviceService(engine, vault, leases), self._server)
        socket_pb2_grpc.add_SocketServiceServicer_to_server(SocketService(engine, vault), self._server)
        peer_pb2_grpc.add_PeerServiceServicer_to_server(PeerService(engine), self._server)
        key_pb2_grpc.add_KeyServiceServicer_to_server(KeyService(engine), self._server)
        event_pb2_grpc.add_EventServiceServicer_to_server(self._events, self._server)
        server_pb2_grpc.add_ServerServiceServicer_to_server(ServerService(engine, facts), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, path: Path) -> None:
        """Serves at a Unix socket, mode 0660. Raises SocketPathError."""
        claim_socket_path(path, socket.SOCK_STREAM)
        try:
            with socket_umask():
                self._server.add_insecure_port(f"unix:{quote(str(path))}")
        except RuntimeError as error:
            raise SocketPathError(f"cannot listen at {path}: {error}") from error
        self._path = path
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def stop(self, grace_seconds: float, hurry: asyncio.Event) -> None:
        """Says NOT_SERVING, ends the watches, lets other calls end for `grace_seconds` or until `hurry` is set."""
        await self._health.enter_graceful_shutdown()
        self._events.end_watches()
        stopping = asyncio.ensure_future(self._server.stop(grace_seconds))
        hurrying = asyncio.ensure_future(hurry.wait())
        await asyncio.wait((stopping, hurrying), return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if stopping.done():
            await stopping
        else:
            # One after the other: two stop() at the same time crash gRPC.
            stopping.cancel()
            await asyncio.wait((stopping,))
            await self._server.stop(None)
        self._path.unlink(missing_ok=True)
