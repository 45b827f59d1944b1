"""The gRPC client, against a real server that answers as it is told."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from ovpn.dataplane.v1 import (
    common_pb2,
    device_pb2,
    event_pb2,
    key_pb2,
    peer_pb2,
    server_pb2,
    socket_pb2,
)

from controlplane_shim.dataplane_client import RETRY_SECONDS, DataPlaneError, GrpcDataPlane

PACKAGE = "ovpn.dataplane.v1"
SECRET = b"SECRET-KEY-BYTES"


class Daemon(grpc.GenericRpcHandler):
    """Any method: notes the request, then gives the next reply, raises the error, or waits for `release`."""

    def __init__(self, path: Path) -> None:
        self.target = f"unix:{path}"
        self.requests: list[tuple[str, bytes]] = []
        self.replies: list[Message] = []
        self.error: grpc.Status | None = None
        self.errors_once = False
        self.hangs = False
        self.release = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        self._server.add_insecure_port(self.target)
        self._server.start()

    def close(self) -> None:
        self.release.set()
        self._server.stop(0).wait()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = str(details.method).rsplit("/", 1)[1]
        if method in {"StreamPeers", "Watch"}:
            return grpc.unary_stream_rpc_method_handler(lambda request, context: self._stream(method, request, context))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._unary(method, request, context))

    def _unary(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"".join(self._stream(method, request, context))

    def _stream(self, method: str, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.requests.append((method, request))
        yield from (reply.SerializeToString() for reply in self.replies)
        if self.hangs:
            self.release.wait(30)
        if self.error is not None:
            error, self.error = self.error, None if self.errors_once else self.error
            context.abort_with_status(error)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "control.sock")
    yield daemon
    daemon.close()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[GrpcDataPlane]:
    client = GrpcDataPlane(daemon.target)
    yield client
    client.close()


def refusal(code: grpc.StatusCode, reason: str, message: str = "because") -> grpc.Status:
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="dataplane.ovpn"))
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=[packed]))


def error_of(function: Callable[[], object]) -> DataPlaneError:
    with pytest.raises(DataPlaneError) as caught:
        function()
    return caught.value


def test_an_error_carries_code_reason_and_message(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.error = refusal(grpc.StatusCode.NOT_FOUND, "PEER_NOT_FOUND", "no peer 3")
    error = error_of(lambda: client.get_peer(peer_pb2.GetPeerRequest(device="a", peer_id=3)))
    assert (error.code, error.reason, error.message) == ("NOT_FOUND", "PEER_NOT_FOUND", "no peer 3")
    assert str(error) == "NOT_FOUND PEER_NOT_FOUND: no peer 3"
    assert not error.gone


@pytest.mark.parametrize("reason", ["SHUTTING_DOWN", "WORKER_FAILED"])
def test_a_data_plane_that_will_not_serve_again_is_gone(daemon: Daemon, client: GrpcDataPlane, reason: str) -> None:
    daemon.error = refusal(grpc.StatusCode.UNAVAILABLE, reason)
    assert error_of(lambda: client.swap_keys(key_pb2.SwapKeysRequest())).gone


def test_a_call_is_repeated_until_the_worker_is_back(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.error = refusal(grpc.StatusCode.UNAVAILABLE, "WORKER_RESTARTING")
    daemon.errors_once = True
    client.delete_socket("a", "s")
    assert [method for method, _ in daemon.requests] == ["DeleteSocket", "DeleteSocket"]


def test_a_worker_that_does_not_come_back_in_time_is_an_error(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.error = refusal(grpc.StatusCode.UNAVAILABLE, "WORKER_RESTARTING")
    error = error_of(lambda: client.delete_device("a", 3 * RETRY_SECONDS))
    assert (error.reason, error.gone) == ("WORKER_RESTARTING", False)
    assert len(daemon.requests) > 1


def test_where_nobody_listens_the_data_plane_is_gone(tmp_path: Path) -> None:
    client = GrpcDataPlane(f"unix:{tmp_path / 'missing.sock'}")
    error = error_of(lambda: client.server_info(5))
    client.close()
    assert (error.code, error.gone) == ("UNAVAILABLE", True)


def test_a_daemon_that_does_not_answer_in_time_is_gone(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.hangs = True
    error = error_of(lambda: client.server_info(0.05))
    assert (error.code, error.gone) == ("DEADLINE_EXCEEDED", True)


def test_no_traceback_of_a_failed_call_shows_a_key(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.error = refusal(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    request = key_pb2.InstallKeyRequest(encrypt=key_pb2.KeyDirection(cipher_key=SECRET))
    error = error_of(lambda: client.install_key(request))
    assert SECRET.decode() not in "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (
            lambda client: client.create_device(device_pb2.CreateDeviceRequest(tun_token="t")),
            ("CreateDevice", device_pb2.CreateDeviceRequest(tun_token="t")),
        ),
        (
            lambda client: client.delete_device("a"),
            ("DeleteDevice", device_pb2.DeleteDeviceRequest(name="a", allow_missing=True)),
        ),
        (
            lambda client: client.adopt_socket("a", "s", "t"),
            ("AdoptSocket", socket_pb2.AdoptSocketRequest(device="a", name="s", socket_token="t")),
        ),
        (
            lambda client: client.adopt_socket("a", "s", "t", "c"),
            ("AdoptSocket", socket_pb2.AdoptSocketRequest(device="a", name="s", socket_token="t", control_token="c")),
        ),
        (
            lambda client: client.adopt_socket("a", "s", "t", copy_dscp=True),
            ("AdoptSocket", socket_pb2.AdoptSocketRequest(device="a", name="s", socket_token="t", copy_dscp=True)),
        ),
        (
            lambda client: client.delete_socket("a", "s"),
            ("DeleteSocket", socket_pb2.DeleteSocketRequest(device="a", name="s", allow_missing=True)),
        ),
        (
            lambda client: client.update_peer(peer_pb2.UpdatePeerRequest(peer=peer_pb2.Peer(peer_id=3))),
            ("UpdatePeer", peer_pb2.UpdatePeerRequest(peer=peer_pb2.Peer(peer_id=3))),
        ),
        (
            lambda client: client.delete_peer(peer_pb2.DeletePeerRequest(peer_id=3)),
            ("DeletePeer", peer_pb2.DeletePeerRequest(peer_id=3)),
        ),
        (
            lambda client: client.install_key(key_pb2.InstallKeyRequest(peer_id=3)),
            ("InstallKey", key_pb2.InstallKeyRequest(peer_id=3)),
        ),
        (
            lambda client: client.get_key(key_pb2.GetKeyRequest(peer_id=3)),
            ("GetKey", key_pb2.GetKeyRequest(peer_id=3)),
        ),
        (
            lambda client: client.swap_keys(key_pb2.SwapKeysRequest(peer_id=3)),
            ("SwapKeys", key_pb2.SwapKeysRequest(peer_id=3)),
        ),
        (
            lambda client: client.delete_key(key_pb2.DeleteKeyRequest(slot=common_pb2.KEY_SLOT_PRIMARY)),
            ("DeleteKey", key_pb2.DeleteKeyRequest(slot=common_pb2.KEY_SLOT_PRIMARY)),
        ),
    ],
)
def test_each_call_sends_its_request(
    daemon: Daemon, client: GrpcDataPlane, call: Callable[[GrpcDataPlane], None], sent: tuple[str, Message]
) -> None:
    call(client)
    assert daemon.requests == [(sent[0], sent[1].SerializeToString())]


def test_replies_are_unwrapped(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.replies = [peer_pb2.CreatePeerResponse(peer=peer_pb2.Peer(peer_id=3, create_revision=9))]
    assert client.create_peer(peer_pb2.CreatePeerRequest()).create_revision == 9
    daemon.replies = [server_pb2.GetServerInfoResponse(instance_id="i")]
    assert client.server_info(5).instance_id == "i"
    daemon.replies = [peer_pb2.StreamPeersResponse(peer=peer_pb2.Peer(peer_id=peer_id)) for peer_id in (1, 2)]
    assert [peer.peer_id for peer in client.list_peers("a")] == [1, 2]


def test_a_dump_that_fails_midway_is_an_error(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.replies = [peer_pb2.StreamPeersResponse()]
    daemon.error = refusal(grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND")
    assert error_of(lambda: client.list_peers("a")).reason == "DEVICE_NOT_FOUND"


def test_a_watch_yields_events_until_the_daemon_ends_it(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.replies = [event_pb2.WatchResponse(revision=revision) for revision in (1, 2)]
    assert [event.revision for event in client.watch("a")] == [1, 2]
    daemon.error = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCH_TOO_SLOW")
    assert error_of(lambda: list(client.watch("a"))).code == "RESOURCE_EXHAUSTED"


def test_a_watch_is_cancelled_from_another_thread(daemon: Daemon, client: GrpcDataPlane) -> None:
    daemon.replies = [event_pb2.WatchResponse(revision=1)]
    daemon.hangs = True
    watch = client.watch("a")
    events = iter(watch)
    assert next(events).revision == 1
    threading.Thread(target=watch.cancel).start()
    assert error_of(lambda: next(events)).code == "CANCELLED"
