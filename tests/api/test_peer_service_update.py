"""UpdatePeer over a real server: what it changes, and how it refuses."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import common_pb2, peer_pb2, socket_pb2

from tests.api.conftest import Api, changed, peer_message, refusal_of, socket_message

SECOND = Duration(seconds=1)


def create(**fields: Any) -> peer_pb2.CreatePeerRequest:
    return peer_pb2.CreatePeerRequest(peer=peer_message(**fields))


def get(peer_id: int = 1, device: str = "d") -> peer_pb2.GetPeerRequest:
    return peer_pb2.GetPeerRequest(device=device, peer_id=peer_id)


def update(*paths: str, **fields: Any) -> peer_pb2.UpdatePeerRequest:
    peer = changed(peer_pb2.Peer(device="d", peer_id=1), **fields)
    return peer_pb2.UpdatePeerRequest(peer=peer, update_mask=FieldMask(paths=paths))


UPDATES: list[tuple[str, dict[str, Any]]] = [
    ("remote", {"remote": common_pb2.Endpoint(address="203.0.113.5", port=5)}),
    ("local_address", {"local_address": "192.0.2.9"}),
    ("vpn_ipv4", {"vpn_ipv4": "10.8.0.77"}),
    ("vpn_ipv6", {"vpn_ipv6": "fd00::77"}),
    ("keepalive_interval", {"keepalive_interval": Duration(seconds=7)}),
    ("keepalive_timeout", {"keepalive_timeout": Duration(seconds=70)}),
    ("tx_id", {"tx_id": 16777214}),
    ("routes", {"routes": ["192.168.7.0/24", "fd00:7::/48", "0.0.0.0/0"]}),
    ("tcp_mss_ipv4", {"tcp_mss_ipv4": 0}),
    ("tcp_mss_ipv6", {"tcp_mss_ipv6": 1360}),
]


@pytest.mark.parametrize(("path", "fields"), UPDATES)
async def test_update_changes_what_the_mask_names_and_no_more(api: Api, path: str, fields: dict[str, Any]) -> None:
    await api.make_ready()
    before = await api.make_peer()
    everything = {name: value for _, others in UPDATES for name, value in others.items()}
    peer = (await api.peers.UpdatePeer(update(path, **everything))).peer
    assert peer == changed(before, **fields)
    assert (await api.peers.GetPeer(get())).peer == peer


async def test_update_may_be_repeated(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    first = await api.peers.UpdatePeer(update("vpn_ipv6", vpn_ipv6="fd00::2"))
    assert await api.peers.UpdatePeer(update("vpn_ipv6", vpn_ipv6="fd00::2")) == first


async def test_update_empties_what_is_named_and_not_given(api: Api) -> None:
    await api.make_ready()
    await api.peers.CreatePeer(
        create(local_address="192.0.2.1", vpn_ipv6="fd00::2", keepalive_interval=SECOND, keepalive_timeout=SECOND)
    )
    await api.peers.UpdatePeer(update("tcp_mss_ipv4", tcp_mss_ipv4=0))
    paths = ("local_address", "vpn_ipv4", "keepalive_interval", "keepalive_timeout", "tcp_mss_ipv4")
    peer = (await api.peers.UpdatePeer(update(*paths))).peer
    assert (peer.local_address, peer.vpn_ipv4, peer.vpn_ipv6) == ("", "", "fd00::2")
    assert (peer.keepalive_interval.seconds, peer.keepalive_timeout.seconds) == (0, 0)
    assert not peer.HasField("tcp_mss_ipv4")


async def test_update_without_a_tx_id_makes_it_the_peer_id_again(api: Api) -> None:
    await api.make_ready()
    await api.peers.CreatePeer(create(tx_id=7))
    assert (await api.peers.UpdatePeer(update("tx_id"))).peer.tx_id == 1


async def test_remote_and_local_address_may_change_their_family_together(api: Api) -> None:
    await api.make_ready()
    await api.peers.CreatePeer(create(local_address="192.0.2.1"))
    remote = common_pb2.Endpoint(address="2001:db8::7", port=7)
    peer = (await api.peers.UpdatePeer(update("remote", "local_address", remote=remote))).peer
    assert (peer.remote.address, peer.local_address) == ("2001:db8::7", "")


async def test_a_peer_may_be_moved_to_another_socket(api: Api) -> None:
    await api.make_ready()
    await api.sockets.CreateSocket(socket_pb2.CreateSocketRequest(socket=socket_message(name="second")))
    before = await api.make_peer()
    remote = common_pb2.Endpoint(address="203.0.113.5", port=5)
    peer = (await api.peers.UpdatePeer(update("remote", "socket", remote=remote, socket="second"))).peer
    assert peer == changed(before, remote=remote, socket="second")
    refusal = await refusal_of(api.peers.UpdatePeer(update("remote", "socket", remote=remote, socket="third")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SOCKET_NOT_FOUND")


@pytest.mark.parametrize(
    ("paths", "fields", "wrong"),
    [
        ([], {}, {"update_mask"}),
        (["peer_id"], {}, {"update_mask"}),
        (["remote.port"], {}, {"update_mask"}),
        (["*"], {}, {"update_mask"}),
        (["vpn_ipv6", "vpn_ipv6"], {}, {"update_mask"}),
        (["remote"], {}, {"peer.remote"}),
        (["remote"], {"remote": common_pb2.Endpoint(address="x")}, {"peer.remote.address", "peer.remote.port"}),
        (["remote"], {"remote": common_pb2.Endpoint(address="2001:db8::7", port=7)}, {"peer.local_address"}),
        (["local_address"], {"local_address": "2001:db8::7"}, {"peer.local_address"}),
        (["local_address"], {"local_address": "::"}, {"peer.local_address"}),
        (["vpn_ipv4"], {}, {"peer.vpn_ipv4"}),
        (["vpn_ipv4"], {"vpn_ipv4": "x"}, {"peer.vpn_ipv4"}),
        (["vpn_ipv6"], {"vpn_ipv6": "x"}, {"peer.vpn_ipv6"}),
        (["keepalive_interval"], {"keepalive_interval": Duration(nanos=1)}, {"peer.keepalive_interval"}),
        (["keepalive_timeout"], {"keepalive_timeout": Duration(seconds=-1)}, {"peer.keepalive_timeout"}),
        (["tx_id"], {"tx_id": 0xFFFFFF}, {"peer.tx_id"}),
        (["tcp_mss_ipv4"], {"tcp_mss_ipv4": 87}, {"peer.tcp_mss_ipv4"}),
        (["tcp_mss_ipv6"], {"tcp_mss_ipv6": 65476}, {"peer.tcp_mss_ipv6"}),
        (["socket"], {"socket": "s"}, {"update_mask"}),
        (["socket", "remote"], {"socket": "/"}, {"peer.socket", "peer.remote"}),
        (["vpn_ipv6", "device", "remote"], {"vpn_ipv6": "x"}, {"update_mask", "peer.vpn_ipv6", "peer.remote"}),
    ],
)
async def test_a_wrong_update_is_refused_and_changes_nothing(
    api: Api, paths: list[str], fields: dict[str, Any], wrong: set[str]
) -> None:
    await api.make_ready()
    await api.peers.CreatePeer(create(local_address="192.0.2.1"))
    before = await api.everything()
    assert set((await refusal_of(api.peers.UpdatePeer(update(*paths, **fields)))).violations) == wrong
    assert await api.everything() == before


async def test_an_update_may_not_give_a_peer_of_a_p2p_device_an_address(api: Api) -> None:
    await api.make_ready(common_pb2.DEVICE_MODE_P2P)
    await api.peers.CreatePeer(create(vpn_ipv4=None))
    refusal = await refusal_of(api.peers.UpdatePeer(update("vpn_ipv6", vpn_ipv6="fd00::2")))
    assert set(refusal.violations) == {"peer.vpn_ipv6"}


async def test_the_address_of_another_peer_is_refused_by_update(api: Api) -> None:
    await api.make_ready()
    await api.make_peer(1)
    await api.make_peer(2)
    refusal = await refusal_of(api.peers.UpdatePeer(update("vpn_ipv4", vpn_ipv4="10.8.0.2")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "VPN_ADDRESS_IN_USE")
