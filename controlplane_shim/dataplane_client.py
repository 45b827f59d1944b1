"""The data plane as the shim sees it: the calls of ovpn.dataplane.v1 that a session needs, each with a deadline.

Knows gRPC: the channel, deadlines, how an error carries its reason. Must not know what a call is good for
(offload.py) nor netlink. Requests and peers are the contract's own messages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from ovpn.dataplane.v1 import (
    device_pb2,
    device_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
    peer_pb2,
    peer_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
    socket_pb2,
    socket_pb2_grpc,
)

DEADLINE_SECONDS: Final = 5.0
"""Longest that one call may keep OpenVPN blocked in its system call."""

RETRY_SECONDS: Final = 0.05
"""Pause before a call is repeated while the worker of its device is being restarted, mostly a fraction of a second."""

_Request = TypeVar("_Request", bound=Message)
_Reply = TypeVar("_Reply", bound=Message)


class DataPlaneError(Exception):
    """A call failed. code: name of the gRPC status code; reason: as in ErrorInfo, empty if the daemon sent none."""

    def __init__(self, code: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.code} {self.reason}: {self.message}" if self.reason else f"{self.code}: {self.message}"

    @property
    def gone(self) -> bool:
        """Whether nobody answered, or nobody will. Any other error was sent by a daemon that goes on."""
        is_final = self.reason in {"", "SHUTTING_DOWN", "WORKER_FAILED"}
        return is_final and self.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}


class Watch(Protocol):
    """A running Watch call. Iterating blocks, and ends by DataPlaneError or, when the daemon ended it, normally."""

    def __iter__(self) -> Iterator[event_pb2.WatchResponse]:
        """The events, as they come."""

    def cancel(self) -> None:
        """Ends the call; may be called from any thread."""


class DataPlane(Protocol):
    """What a session asks of the data plane. Every call may raise DataPlaneError, within `DEADLINE_SECONDS`."""

    def server_info(self, timeout_seconds: float) -> server_pb2.GetServerInfoResponse:
        """GetServerInfo."""

    def create_device(self, request: device_pb2.CreateDeviceRequest) -> None:
        """CreateDevice."""

    def delete_device(self, name: str, timeout_seconds: float = DEADLINE_SECONDS) -> None:
        """DeleteDevice; a missing device is fine."""

    def adopt_socket(
        self, device: str, name: str, token: str, control_token: str = "", *, copy_dscp: bool = False
    ) -> bool:
        """AdoptSocket; control_token "" for no control outlet. Returns whether the socket has one."""

    def delete_socket(self, device: str, name: str) -> None:
        """DeleteSocket; a missing socket is fine. Afterwards nobody but OpenVPN holds the port."""

    def create_peer(self, request: peer_pb2.CreatePeerRequest) -> peer_pb2.Peer:
        """CreatePeer."""

    def get_peer(self, request: peer_pb2.GetPeerRequest) -> peer_pb2.Peer:
        """GetPeer."""

    def list_peers(self, device: str) -> list[peer_pb2.Peer]:
        """StreamPeers: all of them, by peer_id."""

    def update_peer(self, request: peer_pb2.UpdatePeerRequest) -> None:
        """UpdatePeer."""

    def delete_peer(self, request: peer_pb2.DeletePeerRequest) -> None:
        """DeletePeer."""

    def install_key(self, request: key_pb2.InstallKeyRequest) -> None:
        """InstallKey."""

    def get_key(self, request: key_pb2.GetKeyRequest) -> key_pb2.Key:
        """GetKey."""

    def swap_keys(self, request: key_pb2.SwapKeysRequest) -> None:
        """SwapKeys."""

    def delete_key(self, request: key_pb2.DeleteKeyRequest) -> None:
        """DeleteKey."""

    def watch(self, device: str) -> Watch:
        """Watch of one device, which need not exist yet. Has no deadline."""

    def close(self) -> None:
        """Ends every call that still runs."""


class GrpcDataPlane:
    """DataPlane over a gRPC channel. Connects with the first call; the constructor never blocks."""

    def __init__(self, target: str) -> None:
        """target: as gRPC names it, such as "unix:///run/ovpn-dataplane/control.sock"."""
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.enable_http_proxy", 0),
                # A channel that follows a failed one must try at once, not sit out the other's back-off.
                ("grpc.use_local_subchannel_pool", 1),
                # InstallKey, CreatePeer and SwapKeys must not be repeated.
                ("grpc.enable_retries", 0),
            ],
        )
        self._devices = device_pb2_grpc.DeviceServiceStub(self._channel)
        self._events = event_pb2_grpc.EventServiceStub(self._channel)
        self._keys = key_pb2_grpc.KeyServiceStub(self._channel)
        self._peers = peer_pb2_grpc.PeerServiceStub(self._channel)
        self._server = server_pb2_grpc.ServerServiceStub(self._channel)
        self._sockets = socket_pb2_grpc.SocketServiceStub(self._channel)

    def server_info(self, timeout_seconds: float) -> server_pb2.GetServerInfoResponse:
        """See DataPlane."""
        return _call(self._server.GetServerInfo, server_pb2.GetServerInfoRequest(), timeout_seconds)

    def create_device(self, request: device_pb2.CreateDeviceRequest) -> None:
        """See DataPlane."""
        _call(self._devices.CreateDevice, request)

    def delete_device(self, name: str, timeout_seconds: float = DEADLINE_SECONDS) -> None:
        """See DataPlane."""
        request = device_pb2.DeleteDeviceRequest(name=name, allow_missing=True)
        _call(self._devices.DeleteDevice, request, timeout_seconds)

    def adopt_socket(
        self, device: str, name: str, token: str, control_token: str = "", *, copy_dscp: bool = False
    ) -> bool:
        """See DataPlane."""
        request = socket_pb2.AdoptSocketRequest(
            device=device, name=name, socket_token=token, control_token=control_token, copy_dscp=copy_dscp
        )
        return _call(self._sockets.AdoptSocket, request).socket.has_control_outlet

    def delete_socket(self, device: str, name: str) -> None:
        """See DataPlane."""
        request = socket_pb2.DeleteSocketRequest(device=device, name=name, allow_missing=True)
        _call(self._sockets.DeleteSocket, request)

    def create_peer(self, request: peer_pb2.CreatePeerRequest) -> peer_pb2.Peer:
        """See DataPlane."""
        return _call(self._peers.CreatePeer, request).peer

    def get_peer(self, request: peer_pb2.GetPeerRequest) -> peer_pb2.Peer:
        """See DataPlane."""
        return _call(self._peers.GetPeer, request).peer

    def list_peers(self, device: str) -> list[peer_pb2.Peer]:
        """See DataPlane."""
        request = peer_pb2.StreamPeersRequest(device=device)
        try:
            return [reply.peer for reply in self._peers.StreamPeers(request, timeout=DEADLINE_SECONDS)]
        except grpc.RpcError as error:
            raise _translated(error) from None

    def update_peer(self, request: peer_pb2.UpdatePeerRequest) -> None:
        """See DataPlane."""
        _call(self._peers.UpdatePeer, request)

    def delete_peer(self, request: peer_pb2.DeletePeerRequest) -> None:
        """See DataPlane."""
        _call(self._peers.DeletePeer, request)

    def install_key(self, request: key_pb2.InstallKeyRequest) -> None:
        """See DataPlane."""
        _call(self._keys.InstallKey, request)

    def get_key(self, request: key_pb2.GetKeyRequest) -> key_pb2.Key:
        """See DataPlane."""
        return _call(self._keys.GetKey, request).key

    def swap_keys(self, request: key_pb2.SwapKeysRequest) -> None:
        """See DataPlane."""
        _call(self._keys.SwapKeys, request)

    def delete_key(self, request: key_pb2.DeleteKeyRequest) -> None:
        """See DataPlane."""
        _call(self._keys.DeleteKey, request)

    def watch(self, device: str) -> Watch:
        """See DataPlane."""
        return _GrpcWatch(self._events.Watch(event_pb2.WatchRequest(device=device)))

    def close(self) -> None:
        """See DataPlane."""
        self._channel.close()


class _StreamCall(Protocol):
    """What gRPC returns for a server stream."""

    def __iter__(self) -> Iterator[event_pb2.WatchResponse]: ...
    def cancel(self) -> bool: ...


class _GrpcWatch:
    """A Watch call whose errors are DataPlaneErrors."""

    def __init__(self, call: _StreamCall) -> None:
        self._call = call

    def __iter__(self) -> Iterator[event_pb2.WatchResponse]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise _translated(error) from None

    def cancel(self) -> None:
        """See Watch."""
        self._call.cancel()


def _call(
    method: grpc.UnaryUnaryMultiCallable[_Request, _Reply], request: _Request, timeout: float = DEADLINE_SECONDS
) -> _Reply:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return method(request, timeout=max(deadline - time.monotonic(), 0))
        except grpc.RpcError as error:
            # Raised outside, without a cause: no traceback may show the request, which may hold keys.
            failure = _translated(error)
        if failure.reason != "WORKER_RESTARTING" or time.monotonic() + RETRY_SECONDS > deadline:
            raise failure
        # Nothing was done, and what waits is better off than what is refused: a client would get AUTH_FAILED.
        time.sleep(RETRY_SECONDS)


def _translated(error: grpc.RpcError) -> DataPlaneError:
    if not isinstance(error, grpc.Call):
        return DataPlaneError("UNKNOWN", "", str(error))
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    reason = ""
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            reason = info.reason
    return DataPlaneError(error.code().name, reason, error.details() or "")
