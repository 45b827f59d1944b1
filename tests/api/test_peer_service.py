"""PeerService over a real server: what each call does, and how it refuses."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import common_pb2, device_pb2, peer_pb2, socket_pb2

from dataplane.messages import AddPeer
from dataplane.vocabulary import Column, DropReason
from tests.api.conftest import Api, changed, peer_message, refusal_of, socket_message
from tests.engine.conftest import fill_row

SECOND = Duration(seconds=1)


def create(**fields: Any) -> peer_pb2.CreatePeerRequest:
    return peer_pb2.CreatePeerRequest(peer=peer_message(**fields))


def get(peer_id: int = 1, device: str = "d") -> peer_pb2.GetPeerRequest:
    return peer_pb2.GetPeerRequest(device=device, peer_id=peer_id)


def delete(peer_id: int = 1, device: str = "d", **fields: Any) -> peer_pb2.DeletePeerRequest:
    return peer_pb2.DeletePeerRequest(device=device, peer_id=peer_id, **fields)


def update(*paths: str, **fields: Any) -> peer_pb2.UpdatePeerRequest:
    peer = changed(peer_pb2.Peer(device="d", peer_id=1), **fields)
    return peer_pb2.UpdatePeerRequest(peer=peer, update_mask=FieldMask(paths=paths))


async def test_a_peer_is_created_as_asked_for(api: Api) -> None:
    await api.make_ready()
    asked = peer_message(
        peer_id=16777214,
        remote__address="fe80::7",
        remote__port=65535,
        remote__scope_id=3,
        local_address="2001:db8::1",
        vpn_ipv4="10.8.0.2",
        vpn_ipv6="fd00::2",
        keepalive_interval=Duration(seconds=10),
        keepalive_timeout=Duration(seconds=86400),
        tx_id=0,
    )
    peer = (await api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=asked))).peer
    assert changed(peer, counters=None, create_revision=None, create_time=None) == asked
    assert peer.create_revision == api.engine.revision
    assert peer.HasField("create_time")
    assert not peer.HasField("last_receive_time")
    assert not peer.HasField("last_send_time")


async def test_without_a_tx_id_it_is_the_peer_id(api: Api) -> None:
    await api.make_ready()
    assert (await api.make_peer()).tx_id == 1


async def test_output_only_fields_of_a_request_are_ignored(api: Api) -> None:
    await api.make_ready()
    asked = peer_message(create_revision=99)
    asked.counters.vpn_rx.bytes = 99
    peer = (await api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=asked))).peer
    assert peer.create_revision == api.engine.revision
    assert peer.counters.vpn_rx.bytes == 0


async def test_a_v4_mapped_address_of_the_transport_is_taken_as_ipv4(api: Api) -> None:
    await api.make_ready()
    request = create(remote__address="::ffff:198.51.100.7", local_address="::ffff:192.0.2.1")
    peer = (await api.peers.CreatePeer(request)).peer
    assert (peer.remote.address, peer.local_address) == ("198.51.100.7", "192.0.2.1")


async def test_a_remote_on_the_loopback_is_allowed(api: Api) -> None:
    await api.make_ready()
    assert (await api.peers.CreatePeer(create(remote__address="127.0.0.1"))).peer.remote.address == "127.0.0.1"


BAD_CREATIONS = [
    ({"device": ""}, {"peer.device"}),
    ({"peer_id": 0xFFFFFF}, {"peer.peer_id"}),
    ({"peer_id": 0xFFFFFFFF}, {"peer.peer_id"}),
    ({"socket": ""}, {"peer.socket"}),
    ({"socket": "a b"}, {"peer.socket"}),
    ({"remote": None}, {"peer.remote"}),
    ({"remote__address": ""}, {"peer.remote.address"}),
    ({"remote__address": "example.org"}, {"peer.remote.address"}),
    ({"remote__address": "1" * 100_000}, {"peer.remote.address"}),
    ({"remote__address": "0.0.0.0"}, {"peer.remote.address"}),
    ({"remote__address": "::"}, {"peer.remote.address"}),
    ({"remote__address": "::ffff:0.0.0.0"}, {"peer.remote.address"}),
    ({"remote__address": "224.0.0.1"}, {"peer.remote.address"}),
    ({"remote__address": "ff02::1"}, {"peer.remote.address"}),
    ({"remote__address": "255.255.255.255"}, {"peer.remote.address"}),
    ({"remote__address": "::ffff:255.255.255.255"}, {"peer.remote.address"}),
    ({"remote__address": "fe80::1%eth0"}, {"peer.remote.address"}),
    ({"remote__port": 0}, {"peer.remote.port"}),
    ({"remote__port": 65536}, {"peer.remote.port"}),
    ({"remote__scope_id": 1}, {"peer.remote.scope_id"}),
    ({"remote__address": "2001:db8::7", "remote__scope_id": 1}, {"peer.remote.scope_id"}),
    ({"remote__address": "fe80::7", "remote__scope_id": 2**31}, {"peer.remote.scope_id"}),
    ({"remote__address": "", "remote__port": 0}, {"peer.remote.address", "peer.remote.port"}),
    ({"local_address": "x"}, {"peer.local_address"}),
    ({"local_address": "0.0.0.0"}, {"peer.local_address"}),
    ({"local_address": "224.0.0.1"}, {"peer.local_address"}),
    ({"local_address": "2001:db8::1"}, {"peer.local_address"}),
    ({"vpn_ipv4": None}, {"peer.vpn_ipv4"}),
    ({"vpn_ipv4": "fd00::2"}, {"peer.vpn_ipv4"}),
    ({"vpn_ipv4": "0.0.0.0"}, {"peer.vpn_ipv4"}),
    ({"vpn_ipv4": "127.0.0.1"}, {"peer.vpn_ipv4"}),
    ({"vpn_ipv4": "224.0.0.1"}, {"peer.vpn_ipv4"}),
    ({"vpn_ipv4": "255.255.255.255"}, {"peer.vpn_ipv4"}),
    ({"vpn_ipv4": "10.8.0.2/24"}, {"peer.vpn_ipv4"}),
    ({"vpn_ipv6": "10.8.0.2"}, {"peer.vpn_ipv6"}),
    ({"vpn_ipv6": "::"}, {"peer.vpn_ipv6"}),
    ({"vpn_ipv6": "::1"}, {"peer.vpn_ipv6"}),
    ({"vpn_ipv6": "ff02::1"}, {"peer.vpn_ipv6"}),
    ({"vpn_ipv6": "::ffff:10.8.0.2"}, {"peer.vpn_ipv6"}),
    ({"vpn_ipv6": "fe80::1%1"}, {"peer.vpn_ipv6"}),
    ({"keepalive_interval": Duration(seconds=-1)}, {"peer.keepalive_interval"}),
    ({"keepalive_interval": Duration(seconds=86401)}, {"peer.keepalive_interval"}),
    ({"keepalive_interval": Duration(nanos=1)}, {"peer.keepalive_interval"}),
    ({"keepalive_timeout": Duration(seconds=1, nanos=500_000_000)}, {"peer.keepalive_timeout"}),
    ({"keepalive_timeout": Duration(seconds=2**62)}, {"peer.keepalive_timeout"}),
    ({"tcp_mss_ipv4": 87, "tcp_mss_ipv6": 87}, {"peer.tcp_mss_ipv4", "peer.tcp_mss_ipv6"}),
    ({"tcp_mss_ipv4": 65496, "tcp_mss_ipv6": 65476}, {"peer.tcp_mss_ipv4", "peer.tcp_mss_ipv6"}),
]


@pytest.mark.parametrize(("fields", "wrong"), BAD_CREATIONS)
async def test_a_wrong_field_of_a_creation_is_named_and_nothing_is_made(
    api: Api, fields: dict[str, Any], wrong: set[str]
) -> None:
    await api.make_ready()
    before = await api.everything()
    refusal = await refusal_of(api.peers.CreatePeer(create(**fields)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert set(refusal.violations) == wrong
    assert await api.everything() == before


async def test_all_wrong_fields_of_a_creation_are_named_at_once(api: Api) -> None:
    await api.make_ready()
    bad = peer_pb2.Peer(
        device="d",
        peer_id=2**24,
        local_address="l",
        keepalive_interval=Duration(nanos=1),
        keepalive_timeout=Duration(seconds=-1),
    )
    refusal = await refusal_of(api.peers.CreatePeer(peer_pb2.CreatePeerRequest(peer=bad)))
    assert set(refusal.violations) == {
        "peer.peer_id",
        "peer.socket",
        "peer.remote",
        "peer.local_address",
        "peer.vpn_ipv4",
        "peer.keepalive_interval",
        "peer.keepalive_timeout",
    }


async def test_addresses_inside_the_tunnel_are_refused_on_a_p2p_device(api: Api) -> None:
    await api.make_ready(common_pb2.DEVICE_MODE_P2P)
    refusal = await refusal_of(api.peers.CreatePeer(create(vpn_ipv6="fd00::2")))
    assert set(refusal.violations) == {"peer.vpn_ipv4", "peer.vpn_ipv6"}


async def test_one_address_inside_the_tunnel_is_enough_on_an_mp_device(api: Api) -> None:
    await api.make_ready()
    peer = (await api.peers.CreatePeer(create(vpn_ipv4=None, vpn_ipv6="fd00::2"))).peer
    assert (peer.vpn_ipv4, peer.vpn_ipv6) == ("", "fd00::2")


async def test_a_missing_device_wins_over_wrong_fields(api: Api) -> None:
    refusal = await refusal_of(api.peers.CreatePeer(create(peer_id=2**24)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND")


async def test_a_missing_socket_is_not_found(api: Api) -> None:
    await api.make_device()
    refusal = await refusal_of(api.peers.CreatePeer(create()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SOCKET_NOT_FOUND")


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"vpn_ipv4": "10.8.0.9"}, grpc.StatusCode.ALREADY_EXISTS, "PEER_EXISTS"),
        ({"peer_id": 2, "vpn_ipv4": "10.8.0.1"}, grpc.StatusCode.ALREADY_EXISTS, "VPN_ADDRESS_IN_USE"),
        (
            {"peer_id": 2, "vpn_ipv4": "10.8.0.2", "routes": ["10.8.0.1/32"]},
            grpc.StatusCode.ALREADY_EXISTS,
            "ROUTE_IN_USE",
        ),
        (
            {"peer_id": 2, "socket": "v4", "remote__address": "::7"},
            grpc.StatusCode.FAILED_PRECONDITION,
            "ADDRESS_FAMILY_MISMATCH",
        ),
    ],
)
async def test_what_the_state_does_not_allow_is_refused_and_changes_nothing(
    api: Api, fields: dict[str, Any], code: grpc.StatusCode, reason: str
) -> None:
    await api.make_ready()
    await api.sockets.CreateSocket(
        socket_pb2.CreateSocketRequest(socket=socket_message(name="v4", address="192.0.2.1"))
    )
    await api.make_peer()
    before = await api.everything()
    refusal = await refusal_of(api.peers.CreatePeer(create(**fields)))
    assert (refusal.code, refusal.reason) == (code, reason)
    assert refusal.metadata
    assert await api.everything() == before


async def test_a_second_peer_of_a_p2p_device_replaces_the_first(api: Api) -> None:
    await api.make_ready(common_pb2.DEVICE_MODE_P2P)
    for peer_id in (1, 2):
        await api.peers.CreatePeer(create(peer_id=peer_id, vpn_ipv4=None))
    peers = (await api.peers.ListPeers(peer_pb2.ListPeersRequest(device="d"))).peers
    assert [peer.peer_id for peer in peers] == [2]


async def test_a_restarting_worker_makes_a_creation_unavailable(api: Api) -> None:
    await api.make_ready()
    worker = api.launcher.worker
    worker.reactions[AddPeer] = lambda _: worker.kill()
    refusal = await refusal_of(api.peers.CreatePeer(create()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "WORKER_RESTARTING")


async def test_get_returns_the_counters_and_times(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    fill_row(api.launcher.worker, 1, 10)
    api.launcher.worker.count(1, Column.DROPS + DropReason.RX_REPLAYED, 4)
    api.launcher.worker.count(1, Column.LAST_RX_NS, 1)
    peer = (await api.peers.GetPeer(get())).peer
    assert peer.counters == common_pb2.PeerCounters(
        vpn_rx=common_pb2.TrafficCounter(bytes=10, packets=11),
        vpn_tx=common_pb2.TrafficCounter(bytes=12, packets=13),
        link_rx=common_pb2.TrafficCounter(bytes=14, packets=15),
        link_tx=common_pb2.TrafficCounter(bytes=16, packets=17),
        drops=[common_pb2.DropCounter(reason="rx_replayed", packets=4)],
    )
    assert peer.HasField("last_receive_time")
    assert not peer.HasField("last_send_time")


async def test_a_missing_peer_is_not_found(api: Api) -> None:
    await api.make_device()
    for call in (
        api.peers.GetPeer(get()),
        api.peers.DeletePeer(delete()),
        api.peers.UpdatePeer(update("keepalive_timeout")),
    ):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "PEER_NOT_FOUND")
        assert refusal.metadata == {"device": "d", "peer_id": "1"}


async def test_a_missing_device_is_not_found_by_any_call(api: Api) -> None:
    for call in (
        api.peers.GetPeer(get()),
        api.peers.ListPeers(peer_pb2.ListPeersRequest(device="d")),
        api.peers.StreamPeers(peer_pb2.StreamPeersRequest(device="d")).read(),
        api.peers.UpdatePeer(update("keepalive_timeout")),
        api.peers.DeletePeer(delete()),
    ):
        assert (await refusal_of(call)).reason == "DEVICE_NOT_FOUND"


async def test_malformed_names_are_refused_by_every_call(api: Api) -> None:
    for call, wrong in (
        (api.peers.GetPeer(get(2**24, "")), {"device", "peer_id"}),
        (api.peers.DeletePeer(delete(2**24, "", allow_missing=True)), {"device", "peer_id"}),
        (api.peers.ListPeers(peer_pb2.ListPeersRequest(device="a b", page_size=1001)), {"device", "page_size"}),
        (api.peers.StreamPeers(peer_pb2.StreamPeersRequest()).read(), {"device"}),
        (api.peers.UpdatePeer(update(device="", peer_id=2**24)), {"peer.device", "peer.peer_id", "update_mask"}),
    ):
        assert set((await refusal_of(call)).violations) == wrong


async def test_peers_are_listed_by_number_page_by_page(api: Api) -> None:
    await api.make_ready()
    for peer_id in (100, 9, 11, 2, 10):
        await api.make_peer(peer_id)
    seen, token = [], ""
    while True:
        request = peer_pb2.ListPeersRequest(device="d", page_size=2, page_token=token)
        page = await api.peers.ListPeers(request)
        seen.append([peer.peer_id for peer in page.peers])
        token = page.next_page_token
        if not token:
            break
    assert seen == [[2, 9], [10, 11], [100]]


async def test_a_peer_that_goes_between_two_pages_shifts_nothing(api: Api) -> None:
    await api.make_ready()
    for peer_id in (1, 2, 3, 4):
        await api.make_peer(peer_id)
    first = await api.peers.ListPeers(peer_pb2.ListPeersRequest(device="d", page_size=2))
    await api.peers.DeletePeer(delete(1))
    request = peer_pb2.ListPeersRequest(device="d", page_size=2, page_token=first.next_page_token)
    assert [peer.peer_id for peer in (await api.peers.ListPeers(request)).peers] == [3, 4]


async def test_a_page_holds_100_peers_unless_told(api: Api) -> None:
    await api.make_ready()
    for peer_id in range(101):
        await api.make_peer(peer_id)
    page = await api.peers.ListPeers(peer_pb2.ListPeersRequest(device="d"))
    assert len(page.peers) == 100
    assert page.next_page_token


async def test_the_stream_holds_every_peer_once_in_order(api: Api) -> None:
    await api.make_ready()
    for peer_id in range(600):
        await api.make_peer(peer_id)
    stream = api.peers.StreamPeers(peer_pb2.StreamPeersRequest(device="d"))
    assert [reply.peer.peer_id async for reply in stream] == list(range(600))


async def test_the_stream_of_no_peers_is_empty(api: Api) -> None:
    await api.make_device()
    assert [reply async for reply in api.peers.StreamPeers(peer_pb2.StreamPeersRequest(device="d"))] == []


async def test_other_calls_run_while_a_stream_is_not_read(api: Api) -> None:
    await api.make_ready()
    for peer_id in range(600):
        await api.make_peer(peer_id)
    stream = api.peers.StreamPeers(peer_pb2.StreamPeersRequest(device="d"))
    await stream.read()
    await api.devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name="d"))
    assert stream.cancel()


async def test_delete_returns_the_final_counters(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    fill_row(api.launcher.worker, 1, 10)
    counters = (await api.peers.DeletePeer(delete())).final_counters
    assert (counters.vpn_rx.bytes, counters.link_tx.packets) == (10, 17)
    assert (await refusal_of(api.peers.GetPeer(get()))).reason == "PEER_NOT_FOUND"


async def test_deleting_what_is_missing_may_be_allowed(api: Api) -> None:
    assert not (await api.peers.DeletePeer(delete(allow_missing=True))).HasField("final_counters")
    await api.make_device()
    assert not (await api.peers.DeletePeer(delete(allow_missing=True))).HasField("final_counters")
