"""A gRPC proxy in front of the daemon that keeps the InstallKey requests it passes on.

Knows how to forward any method of ovpn.dataplane.v1 as bytes. It exists for tests only: it is how a test
learns the keys of a stock OpenVPN (to keep packets as vectors, to search for key bytes where they
must not be), since neither the daemon nor the shim ever tells them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from ovpn.dataplane.v1 import key_pb2

INSTALL_KEY = "/ovpn.dataplane.v1.KeyService/InstallKey"
STREAMS = ("/ovpn.dataplane.v1.EventService/Watch", "/ovpn.dataplane.v1.PeerService/StreamPeers")


def _same(data: bytes) -> bytes:
    return data


class KeyRecorder(grpc.GenericRpcHandler):
    """Forwards every call to `target`; `keys` holds the InstallKey requests that were accepted."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._lock = threading.Lock()
        self.keys: list[key_pb2.InstallKeyRequest] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Any method, by name."""
        method = handler_call_details.method
        if method in STREAMS:
            return grpc.unary_stream_rpc_method_handler(self._stream(method), _same, _same)
        return grpc.unary_unary_rpc_method_handler(self._unary(method), _same, _same)

    def _unary(self, method: str) -> Callable[[bytes, Any], bytes]:
        call = self._channel.unary_unary(method, _same, _same)

        def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                reply = call(request, timeout=context.time_remaining())
            except grpc.RpcError as error:
                _pass_on(error, context)
                raise
            if method == INSTALL_KEY:
                with self._lock:
                    self.keys.append(key_pb2.InstallKeyRequest.FromString(request))
            return bytes(reply)

        return forward

    def _stream(self, method: str) -> Callable[[bytes, Any], Iterator[bytes]]:
        call = self._channel.unary_stream(method, _same, _same)

        def forward(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            replies = call(request)
            context.add_callback(lambda: _cancel(replies))
            try:
                yield from replies
            except grpc.RpcError as error:
                _pass_on(error, context)

        return forward

    def close(self) -> None:
        """Closes the channel to the daemon."""
        self._channel.close()


def _cancel(call: grpc.RpcContext) -> None:
    call.cancel()


def _pass_on(error: grpc.RpcError, context: grpc.ServicerContext) -> None:
    """Ends the call as the daemon ended it, details included."""
    metadata: Any = error.trailing_metadata()
    context.set_trailing_metadata(metadata)
    context.abort(error.code(), error.details() or "")


@contextlib.contextmanager
def recording(target: str, directory: Path) -> Iterator[tuple[str, KeyRecorder]]:
    """Runs a recorder in front of `target`; yields its own target and the recorder."""
    recorder = KeyRecorder(target)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((recorder,))
    own_target = f"unix://{directory}/recorder.sock"
    server.add_insecure_port(own_target)
    server.start()
    try:
        yield own_target, recorder
    finally:
        server.stop(1).wait()
        recorder.close()
