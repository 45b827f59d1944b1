"""PeerService: requests to the engine and its views back.

Knows which call asks the engine for what, and what of its state a request is checked against. Must not
know the checks themselves, nor how errors are sent.
"""
# ruff: noqa: N802 - gRPC calls the methods as the contract names them

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from ovpn.dataplane.v1 import peer_pb2, peer_pb2_grpc

from dataplane.api import decode_peer
from dataplane.api.allow_missing import missing_is_error
from dataplane.api.encode import encode_counters, encode_peer
from dataplane.api.validation import is_name, is_peer_id
from dataplane.engine.engine import Engine
from dataplane.engine.types import EngineError, PeerSpec
from dataplane.vocabulary import Mode, SocketProtocol

_STREAM_BATCH: Final = 256
"""Peers read from the engine at once: some ms of work, between which other calls run."""


class PeerService(peer_pb2_grpc.PeerServiceServicer):
    """See proto/ovpn/dataplane/v1/peer.proto."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def CreatePeer(self, request: peer_pb2.CreatePeerRequest, _context: object) -> peer_pb2.CreatePeerResponse:
        """Creates a peer."""
        peer = request.peer
        spec = decode_peer.decode_creation(
            peer, self._mode_of(peer.device), self._protocol_of(peer.device, peer.socket)
        )
        return peer_pb2.CreatePeerResponse(peer=encode_peer(await self._engine.create_peer(spec)))

    async def GetPeer(self, request: peer_pb2.GetPeerRequest, _context: object) -> peer_pb2.GetPeerResponse:
        """Returns one peer with its counters."""
        view = self._engine.get_peer(*decode_peer.decode_reference(request))
        return peer_pb2.GetPeerResponse(peer=encode_peer(view))

    async def ListPeers(self, request: peer_pb2.ListPeersRequest, _context: object) -> peer_pb2.ListPeersResponse:
        """Lists the peers of a device with their counters, by peer_id."""
        device, page = decode_peer.decode_list(request)
        # One more than the page holds tells whether there is a next one.
        following = self._engine.list_peers(device, after=int(page.after or -1), limit=page.size + 1)
        views, next_page_token = page.first(following, lambda view: str(view.spec.peer_id))
        return peer_pb2.ListPeersResponse(peers=map(encode_peer, views), next_page_token=next_page_token)

    async def StreamPeers(
        self, request: peer_pb2.StreamPeersRequest, _context: object
    ) -> AsyncGenerator[peer_pb2.StreamPeersResponse, None]:
        """Sends the peers of a device one by one, by peer_id."""
        device = decode_peer.decode_stream(request)
        after = -1
        while views := self._engine.list_peers(device, after=after, limit=_STREAM_BATCH):
            for view in views:
                yield peer_pb2.StreamPeersResponse(peer=encode_peer(view))
            after = views[-1].spec.peer_id
            await asyncio.sleep(0)

    async def UpdatePeer(self, request: peer_pb2.UpdatePeerRequest, _context: object) -> peer_pb2.UpdatePeerResponse:
        """Changes a peer in place."""
        peer = request.peer
        mode = self._mode_of(peer.device)
        current = self._spec_of(peer.device, peer.peer_id)
        protocol = None if current is None else self._protocol_of(peer.device, current.socket)
        named_protocol = self._protocol_of(peer.device, peer.socket)
        device, peer_id, change = decode_peer.decode_change(request, mode, current, protocol, named_protocol)
        return peer_pb2.UpdatePeerResponse(peer=encode_peer(await self._engine.update_peer(device, peer_id, change)))

    async def DeletePeer(self, request: peer_pb2.DeletePeerRequest, _context: object) -> peer_pb2.DeletePeerResponse:
        """Deletes a peer and returns its final counters."""
        device, peer_id = decode_peer.decode_reference(request)
        response = peer_pb2.DeletePeerResponse()
        with missing_is_error(unless=request.allow_missing):
            counters = await self._engine.delete_peer(device, peer_id)
            response.final_counters.CopyFrom(encode_counters(counters))
        return response

    def _mode_of(self, device: str) -> Mode | None:
        """Mode of a device; None if its name is malformed. Raises EngineError DEVICE_NOT_FOUND."""
        return self._engine.get_device(device).mode if is_name(device) else None

    def _protocol_of(self, device: str, socket: str) -> SocketProtocol | None:
        """What a socket speaks; None if a name is malformed or there is no such socket."""
        if not (is_name(device) and is_name(socket)):
            return None
        try:
            return self._engine.get_socket(device, socket).protocol
        except EngineError:
            return None

    def _spec_of(self, device: str, peer_id: int) -> PeerSpec | None:
        """A peer as it is; None if a name is malformed. Raises EngineError DEVICE_NOT_FOUND, PEER_NOT_FOUND."""
        if not (is_name(device) and is_peer_id(peer_id)):
            return None
        return self._engine.get_peer(device, peer_id).spec
