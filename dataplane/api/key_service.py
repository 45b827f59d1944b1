"""KeyService: requests to the engine and its views back.

Knows which call asks the engine for what. Must not know how requests are checked or errors are sent, and
must not keep, show or log a request: it holds key bytes.
"""
# ruff: noqa: N802 - gRPC calls the methods as the contract names them

from __future__ import annotations

from ovpn.dataplane.v1 import key_pb2, key_pb2_grpc

from dataplane.api import decode_key, decode_peer
from dataplane.api.encode import encode_key
from dataplane.engine.engine import Engine


class KeyService(key_pb2_grpc.KeyServiceServicer):
    """See proto/ovpn/dataplane/v1/key.proto."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def InstallKey(self, request: key_pb2.InstallKeyRequest, _context: object) -> key_pb2.InstallKeyResponse:
        """Puts a key into a slot."""
        view = await self._engine.install_key(decode_key.decode_installation(request))
        return key_pb2.InstallKeyResponse(key=encode_key(view))

    async def GetKey(self, request: key_pb2.GetKeyRequest, _context: object) -> key_pb2.GetKeyResponse:
        """Tells what is in a slot."""
        view = self._engine.get_key(*decode_key.decode_slot(request))
        return key_pb2.GetKeyResponse(key=encode_key(view))

    async def SwapKeys(self, request: key_pb2.SwapKeysRequest, _context: object) -> key_pb2.SwapKeysResponse:
        """Exchanges the slots."""
        await self._engine.swap_keys(*decode_peer.decode_reference(request))
        return key_pb2.SwapKeysResponse()

    async def DeleteKey(self, request: key_pb2.DeleteKeyRequest, _context: object) -> key_pb2.DeleteKeyResponse:
        """Empties a slot."""
        await self._engine.delete_key(*decode_key.decode_deletion(request))
        return key_pb2.DeleteKeyResponse()
