"""TCP sockets and their peers, as the contract shows them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import common_pb2, event_pb2, peer_pb2, socket_pb2

from dataplane.engine.types import Endpoint
from dataplane.messages import TransportClosed
from dataplane.vocabulary import DelReason
from tests.api.conftest import Api, device_fd, peer_message, refusal_of, socket_message

REMOTE = common_pb2.Endpoint(address="198.51.100.9", port=51194)


async def adopt(api: Api) -> socket_pb2.Socket:
    """A device "d" with a TCP socket "s"."""
    await api.make_device()
    api.resources.remote = Endpoint(ip_address(REMOTE.address), REMOTE.port)
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with client, ours, theirs:
        other_client, control_token = await api.hand_over(ours.fileno())
        with other_client:
            request = socket_pb2.AdoptSocketRequest(
                device="d", name="s", socket_token=token, control_token=control_token
            )
            return (await api.sockets.AdoptSocket(request)).socket


def tcp_peer(**fields: Any) -> peer_pb2.Peer:
    peer = peer_message(**fields)
    peer.ClearField("remote")
    return peer


async def test_a_connection_is_shown_with_its_protocol_and_other_end(api: Api) -> None:
    adopted = await adopt(api)
    assert adopted == socket_pb2.Socket(
        device="d",
        name="s",
        address="192.0.2.1",
        port=1194,
        adopted=True,
        has_control_outlet=True,
        protocol=socket_pb2.SOCKET_PROTOCOL_TCP,
        remote=REMOTE,
        fragmentation=socket_pb2.FRAGMENTATION_POLICY_MAY_FRAGMENT,
    )
    assert (await api.sockets.GetSocket(socket_pb2.GetSocketRequest(device="d", name="s"))).socket == adopted


async def test_no_connection_is_made(api: Api) -> None:
    await api.make_device()
    for protocol in (socket_pb2.SOCKET_PROTOCOL_TCP, 77):
        request = socket_pb2.CreateSocketRequest(socket=socket_message(protocol=protocol))
        refusal = await refusal_of(api.sockets.CreateSocket(request))
        assert (refusal.code, set(refusal.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, {"socket.protocol"})


async def test_a_peer_on_a_connection_has_its_remote(api: Api) -> None:
    await adopt(api)
    created = (await api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=tcp_peer()))).peer
    assert created.remote == REMOTE


async def test_a_remote_is_required_on_udp_and_refused_on_tcp(api: Api) -> None:
    await adopt(api)
    request = peer_pb2.CreatePeerRequest(peer=peer_message(local_address="198.51.100.1"))
    refusal = await refusal_of(api.peers.CreatePeer(request))
    assert (refusal.code, set(refusal.violations)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"peer.remote", "peer.local_address"},
    )
    api.resources.remote = None
    await api.sockets.CreateSocket(socket_pb2.CreateSocketRequest(socket=socket_message(name="udp")))
    refusal = await refusal_of(api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=tcp_peer(socket="udp"))))
    assert set(refusal.violations) == {"peer.remote"}


@pytest.mark.parametrize("path", ["remote", "local_address"])
async def test_a_peer_on_a_connection_keeps_its_place(api: Api, path: str) -> None:
    await adopt(api)
    await api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=tcp_peer()))
    request = peer_pb2.UpdatePeerRequest(peer=peer_message(), update_mask=FieldMask(paths=[path]))
    refusal = await refusal_of(api.peers.UpdatePeer(request))
    assert (refusal.code, set(refusal.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, {"update_mask"})


async def test_no_peer_changes_from_udp_to_a_connection_or_back(api: Api) -> None:
    await adopt(api)
    api.resources.remote = None
    await api.sockets.CreateSocket(socket_pb2.CreateSocketRequest(socket=socket_message(name="udp")))
    mask = FieldMask(paths=["remote", "socket"])
    await api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=tcp_peer()))
    to_udp = peer_pb2.UpdatePeerRequest(peer=peer_message(socket="udp"), update_mask=mask)
    assert set((await refusal_of(api.peers.UpdatePeer(to_udp))).violations) == {"update_mask"}
    await api.peers.CreatePeer(
        peer_pb2.CreatePeerRequest(peer=peer_message(peer_id=2, socket="udp", vpn_ipv4="10.8.0.3"))
    )
    to_tcp = peer_pb2.UpdatePeerRequest(peer=peer_message(peer_id=2), update_mask=mask)
    assert set((await refusal_of(api.peers.UpdatePeer(to_tcp))).violations) == {"peer.socket"}


async def test_a_second_peer_on_a_connection_is_refused(api: Api) -> None:
    await adopt(api)
    await api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=tcp_peer()))
    second = tcp_peer(peer_id=2, vpn_ipv4="10.8.0.3")
    refusal = await refusal_of(api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=second)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SOCKET_IN_USE")


async def test_the_end_of_a_connection_is_told_after_its_peers(api: Api) -> None:
    await adopt(api)
    await api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=tcp_peer()))
    call = api.events.Watch(event_pb2.WatchRequest(device="d"))
    watch: AsyncIterator[event_pb2.WatchResponse] = aiter(call)
    while (await anext(watch)).WhichOneof("event") != "bookmark":
        pass
    api.launcher.worker.say(TransportClosed(1, DelReason.TRANSPORT_DISCONNECT))
    deleted, closed = await anext(watch), await anext(watch)
    call.cancel()
    assert deleted.peer_deleted.reason == common_pb2.DEL_REASON_TRANSPORT_DISCONNECT
    assert closed.socket_closed == event_pb2.SocketClosed(
        device="d", socket="s", reason=common_pb2.DEL_REASON_TRANSPORT_DISCONNECT
    )
