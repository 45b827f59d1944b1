"""SocketService: requests to the engine and its views back.

Knows which call asks the engine for what. Must not know how requests are checked or errors are sent.
"""
# ruff: noqa: N802 - gRPC calls the methods as the contract names them

from __future__ import annotations

import time

from ovpn.dataplane.v1 import socket_pb2, socket_pb2_grpc

from dataplane.api import decode_socket
from dataplane.api.allow_missing import missing_is_error
from dataplane.api.encode import encode_socket
from dataplane.api.handoff_vault import HandoffVault
from dataplane.engine.engine import Engine


class SocketService(socket_pb2_grpc.SocketServiceServicer):
    """See proto/ovpn/dataplane/v1/socket.proto."""

    def __init__(self, engine: Engine, vault: HandoffVault) -> None:
        self._engine = engine
        self._vault = vault

    async def CreateSocket(
        self, request: socket_pb2.CreateSocketRequest, _context: object
    ) -> socket_pb2.CreateSocketResponse:
        """Makes and binds a UDP socket."""
        view = await self._engine.create_socket(decode_socket.decode_creation(request))
        return socket_pb2.CreateSocketResponse(socket=encode_socket(view))

    async def AdoptSocket(
        self, request: socket_pb2.AdoptSocketRequest, _context: object
    ) -> socket_pb2.AdoptSocketResponse:
        """Takes over a bound UDP or connected TCP socket; spends the tokens whatever the outcome."""
        device, name, *tokens = decode_socket.decode_adoption(request)
        fd, *outlet_fd = self._vault.take_all(filter(None, tokens), time.monotonic())
        view = await self._engine.adopt_socket(device, name, fd, *outlet_fd, copy_dscp=request.copy_dscp)
        return socket_pb2.AdoptSocketResponse(socket=encode_socket(view))

    async def GetSocket(self, request: socket_pb2.GetSocketRequest, _context: object) -> socket_pb2.GetSocketResponse:
        """Returns one socket."""
        view = self._engine.get_socket(*decode_socket.decode_names(request))
        return socket_pb2.GetSocketResponse(socket=encode_socket(view))

    async def ListSockets(
        self, request: socket_pb2.ListSocketsRequest, _context: object
    ) -> socket_pb2.ListSocketsResponse:
        """Lists the sockets of a device, by name."""
        device, page = decode_socket.decode_list(request)
        views, next_page_token = page.cut(self._engine.list_sockets(device), lambda view: view.name)
        return socket_pb2.ListSocketsResponse(sockets=map(encode_socket, views), next_page_token=next_page_token)

    async def DeleteSocket(
        self, request: socket_pb2.DeleteSocketRequest, _context: object
    ) -> socket_pb2.DeleteSocketResponse:
        """Closes a socket and deletes its peers."""
        device, name = decode_socket.decode_names(request)
        with missing_is_error(unless=request.allow_missing):
            await self._engine.delete_socket(device, name)
        return socket_pb2.DeleteSocketResponse()
