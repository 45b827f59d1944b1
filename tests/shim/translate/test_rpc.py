from __future__ import annotations

from dataclasses import replace
from errno import EADDRINUSE, EEXIST, EINVAL, EIO, ENOBUFS, ENODEV, ENOENT, ENOMEM, ENOSPC, ENOTSOCK, EPERM
from ipaddress import IPv4Address, IPv6Address

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from ovpn.dataplane.v1 import common_pb2, device_pb2, key_pb2, peer_pb2

from controlplane_shim.operations import (
    DelKey,
    DelPeer,
    DelReason,
    GetKey,
    GetPeer,
    KeyInfo,
    NewKey,
    NewLink,
    NewPeer,
    PeerInfo,
    Remote,
    SetPeer,
    SwapKeys,
)
from controlplane_shim.translate import rpc

NEW_LINK = NewLink("tun0", "ovpn-dco", multipeer=True)
NEW_PEER = NewPeer(
    ifindex=12,
    peer_id=3,
    socket_fd=9,
    remote=Remote(IPv4Address("192.0.2.7"), 1194),
    local=IPv4Address("192.0.2.1"),
    vpn_ipv4=IPv4Address("10.8.0.2"),
    vpn_ipv6=IPv6Address("fd00::2"),
)


# Operations to requests


@pytest.mark.parametrize(
    ("multipeer", "mode"), [(True, common_pb2.DEVICE_MODE_MP), (False, common_pb2.DEVICE_MODE_P2P)]
)
def test_a_new_link_becomes_a_device_that_ends_with_the_shim(multipeer: bool, mode: common_pb2.DeviceMode) -> None:
    request = rpc.create_device(NewLink("tun0", "ovpn-dco", multipeer), "tun0.4026531840", "00ff")
    assert request == device_pb2.CreateDeviceRequest(
        device=device_pb2.Device(name="tun0.4026531840", mode=mode, follow_kernel_routes=multipeer),
        tun_token="00ff",
        delete_on_handoff_close=True,
    )


def test_a_device_with_an_mss_has_it_for_both_families() -> None:
    device = rpc.create_device(NEW_LINK, "tun0.4026531840", "00ff", 1300).device
    assert (device.tcp_mss_ipv4, device.tcp_mss_ipv6) == (1300, 1280)


def test_a_new_peer_of_many_has_its_vpn_addresses() -> None:
    assert rpc.create_peer(NEW_PEER, "tun0", "udp", multipeer=True).peer == peer_pb2.Peer(
        device="tun0",
        peer_id=3,
        socket="udp",
        remote=common_pb2.Endpoint(address="192.0.2.7", port=1194),
        local_address="192.0.2.1",
        vpn_ipv4="10.8.0.2",
        vpn_ipv6="fd00::2",
    )


def test_the_only_peer_of_a_device_has_no_vpn_addresses() -> None:
    peer = rpc.create_peer(NEW_PEER, "tun0", "udp", multipeer=False).peer
    assert (peer.vpn_ipv4, peer.vpn_ipv6) == ("", "")


def test_what_a_new_peer_does_not_name_is_left_out() -> None:
    bare = NewPeer(12, 3, 9, remote=None, local=None, vpn_ipv4=None, vpn_ipv6=None)
    peer = rpc.create_peer(bare, "tun0", "udp", multipeer=True).peer
    assert peer == peer_pb2.Peer(device="tun0", peer_id=3, socket="udp")
    assert not peer.HasField("remote")


@pytest.mark.parametrize(("address", "scope_id"), [("fe80::7", 5), ("2001:db8::7", 0)])
def test_only_a_link_local_remote_has_a_scope(address: str, scope_id: int) -> None:
    operation = NewPeer(12, 3, 9, Remote(IPv6Address(address), 1194, 5), None, None, None)
    remote = rpc.create_peer(operation, "tun0", "udp", multipeer=False).peer.remote
    assert remote == common_pb2.Endpoint(address=address, port=1194, scope_id=scope_id)


def test_keepalives_are_updated_by_mask() -> None:
    request = rpc.update_peer(SetPeer(12, 3, 10, 120), "tun0")
    assert (request.peer.device, request.peer.peer_id) == ("tun0", 3)
    assert (request.peer.keepalive_interval.seconds, request.peer.keepalive_timeout.seconds) == (10, 120)
    assert list(request.update_mask.paths) == ["keepalive_interval", "keepalive_timeout"]


def test_a_keepalive_of_zero_is_in_the_mask() -> None:
    request = rpc.update_peer(SetPeer(12, 3, 0, 0), "tun0")
    assert list(request.update_mask.paths) == ["keepalive_interval", "keepalive_timeout"]


def test_a_new_remote_brings_its_local_address_or_none() -> None:
    remote = Remote(IPv4Address("192.0.2.7"), 1194)
    request = rpc.update_peer(SetPeer(12, 3, None, None, remote=remote, local=IPv4Address("192.0.2.1")), "tun0")
    assert list(request.update_mask.paths) == ["remote", "local_address"]
    assert (request.peer.remote.address, request.peer.remote.port) == ("192.0.2.7", 1194)
    assert request.peer.local_address == "192.0.2.1"
    without = rpc.update_peer(SetPeer(12, 3, None, None, remote=remote), "tun0")
    assert (list(without.update_mask.paths), without.peer.local_address) == (["remote", "local_address"], "")


def test_an_unspecified_vpn_address_takes_the_peers_away() -> None:
    operation = SetPeer(12, 3, None, None, vpn_ipv4=IPv4Address("10.8.0.9"), vpn_ipv6=IPv6Address("::"))
    request = rpc.update_peer(operation, "tun0")
    assert list(request.update_mask.paths) == ["vpn_ipv4", "vpn_ipv6"]
    assert (request.peer.vpn_ipv4, request.peer.vpn_ipv6) == ("10.8.0.9", "")


def test_a_peer_may_be_created_with_its_keepalives() -> None:
    operation = replace(NEW_PEER, keepalive_interval=10, keepalive_timeout=90_000)
    peer = rpc.create_peer(operation, "tun0", "s", multipeer=True).peer
    assert (peer.keepalive_interval.seconds, peer.keepalive_timeout.seconds) == (10, 86_400)


def test_a_key_is_told_in_the_numbers_of_the_families() -> None:
    asked = GetKey(12, 3, 1)
    assert rpc.get_key(asked, "tun0") == key_pb2.GetKeyRequest(
        device="tun0", peer_id=3, slot=common_pb2.KEY_SLOT_SECONDARY
    )
    found = key_pb2.Key(slot=common_pb2.KEY_SLOT_SECONDARY, key_id=5, cipher=common_pb2.CIPHER_CHACHA20_POLY1305)
    assert rpc.key_info(asked, found) == KeyInfo(peer_id=3, slot=1, key_id=5, cipher=2)


def test_without_keepalives_the_mask_is_empty() -> None:
    assert list(rpc.update_peer(SetPeer(12, 3, None, None), "tun0").update_mask.paths) == []


@given(st.integers(0, 0xFFFFFFFF))
def test_a_keepalive_is_never_longer_than_the_data_plane_takes(seconds: int) -> None:
    peer = rpc.update_peer(SetPeer(12, 3, seconds, seconds), "tun0").peer
    assert peer.keepalive_interval.seconds == peer.keepalive_timeout.seconds == min(seconds, 86_400)


@pytest.mark.parametrize(
    ("slot", "cipher", "expected_slot", "expected_cipher"),
    [
        (0, 1, common_pb2.KEY_SLOT_PRIMARY, common_pb2.CIPHER_AES_GCM),
        (1, 2, common_pb2.KEY_SLOT_SECONDARY, common_pb2.CIPHER_CHACHA20_POLY1305),
    ],
)
def test_a_new_key_is_installed(
    slot: int, cipher: int, expected_slot: common_pb2.KeySlot, expected_cipher: common_pb2.Cipher
) -> None:
    operation = NewKey(12, 3, slot, 5, cipher, b"E" * 32, b"e" * 8, b"D" * 32, b"d" * 8)
    same = rpc.install_key(operation, "tun0") == key_pb2.InstallKeyRequest(
        device="tun0",
        peer_id=3,
        slot=expected_slot,
        key_id=5,
        cipher=expected_cipher,
        encrypt=key_pb2.KeyDirection(cipher_key=b"E" * 32, nonce_tail=b"e" * 8),
        decrypt=key_pb2.KeyDirection(cipher_key=b"D" * 32, nonce_tail=b"d" * 8),
    )
    assert same


def test_the_other_operations_name_device_and_peer() -> None:
    assert rpc.delete_peer(DelPeer(12, 3), "tun0") == peer_pb2.DeletePeerRequest(device="tun0", peer_id=3)
    assert rpc.get_peer(GetPeer(12, 3), "tun0") == peer_pb2.GetPeerRequest(device="tun0", peer_id=3)
    assert rpc.swap_keys(SwapKeys(12, 3), "tun0") == key_pb2.SwapKeysRequest(device="tun0", peer_id=3)


def test_a_secondary_key_that_is_deleted_lingers_and_a_primary_one_does_not() -> None:
    assert rpc.delete_key(DelKey(12, 3, 0), "tun0") == key_pb2.DeleteKeyRequest(
        device="tun0", peer_id=3, slot=common_pb2.KEY_SLOT_PRIMARY
    )
    assert rpc.delete_key(DelKey(12, 3, 1), "tun0") == key_pb2.DeleteKeyRequest(
        device="tun0", peer_id=3, slot=common_pb2.KEY_SLOT_SECONDARY, linger=Duration(seconds=60)
    )


# Answers


def traffic(number: int) -> common_pb2.TrafficCounter:
    return common_pb2.TrafficCounter(bytes=100 * number, packets=number)


def test_the_peer_id_on_packets_to_a_peer_is_passed_on() -> None:
    assert not rpc.create_peer(NEW_PEER, "tun0", "udp", multipeer=True).peer.HasField("tx_id")
    created = rpc.create_peer(replace(NEW_PEER, tx_id=0), "tun0", "udp", multipeer=True).peer
    assert created.HasField("tx_id")
    changed = rpc.update_peer(SetPeer(12, 3, None, None, tx_id=7), "tun0")
    assert (changed.peer.tx_id, list(changed.update_mask.paths)) == (7, ["tx_id"])
    told = peer_pb2.Peer(peer_id=3, tx_id=7)
    assert (rpc.peer_info(told, 1).tx_id, rpc.peer_info(peer_pb2.Peer(peer_id=3), 1).tx_id) == (7, 3)


def test_a_peer_is_told_with_addresses_and_counters() -> None:
    peer = peer_pb2.Peer(
        device="tun0",
        peer_id=3,
        socket="udp",
        remote=common_pb2.Endpoint(address="fe80::7", port=1194, scope_id=5),
        local_address="fe80::1",
        vpn_ipv4="10.8.0.2",
        vpn_ipv6="fd00::2",
        counters=common_pb2.PeerCounters(vpn_rx=traffic(1), vpn_tx=traffic(2), link_rx=traffic(3), link_tx=traffic(4)),
    )
    peer.keepalive_interval.seconds = 10
    peer.keepalive_timeout.seconds = 120
    assert rpc.peer_info(peer, local_port=1195) == PeerInfo(
        peer_id=3,
        tx_id=3,
        remote=Remote(IPv6Address("fe80::7"), 1194, 5),
        local=IPv6Address("fe80::1"),
        local_port=1195,
        vpn_ipv4=IPv4Address("10.8.0.2"),
        vpn_ipv6=IPv6Address("fd00::2"),
        keepalive_interval=10,
        keepalive_timeout=120,
        vpn_rx_bytes=100,
        vpn_tx_bytes=200,
        vpn_rx_packets=1,
        vpn_tx_packets=2,
        link_rx_bytes=300,
        link_tx_bytes=400,
        link_rx_packets=3,
        link_tx_packets=4,
    )


def test_a_peer_of_which_nothing_is_known_is_told_with_zeros() -> None:
    info = rpc.peer_info(peer_pb2.Peer(peer_id=3), local_port=0)
    assert (info.remote, info.local, info.vpn_ipv4, info.vpn_ipv6) == (None, None, None, None)
    assert (info.keepalive_interval, info.keepalive_timeout, info.link_rx_bytes) == (0, 0, 0)


# Errors


@pytest.mark.parametrize(
    ("code", "reason", "errno"),
    [
        ("NOT_FOUND", "PEER_NOT_FOUND", ENOENT),
        ("NOT_FOUND", "KEY_SLOT_EMPTY", ENOENT),
        ("NOT_FOUND", "DEVICE_NOT_FOUND", EINVAL),
        ("NOT_FOUND", "SOCKET_NOT_FOUND", ENOTSOCK),
        ("NOT_FOUND", "HANDOFF_TOKEN_UNKNOWN", EIO),
        ("NOT_FOUND", "", ENOENT),
        ("ALREADY_EXISTS", "PEER_EXISTS", EEXIST),
        ("ALREADY_EXISTS", "VPN_ADDRESS_IN_USE", EADDRINUSE),
        ("ALREADY_EXISTS", "SOCKET_EXISTS", EEXIST),
        ("FAILED_PRECONDITION", "ADDRESS_FAMILY_MISMATCH", EINVAL),
        ("FAILED_PRECONDITION", "NOT_A_UDP_SOCKET", ENOTSOCK),
        ("FAILED_PRECONDITION", "SOCKET_NOT_BOUND", ENOTSOCK),
        ("INVALID_ARGUMENT", "FIELD_INVALID", EINVAL),
        ("RESOURCE_EXHAUSTED", "PEER_LIMIT", ENOSPC),
        ("PERMISSION_DENIED", "", EPERM),
        ("UNAVAILABLE", "WORKER_RESTARTING", EIO),
        ("UNAVAILABLE", "", EIO),
        ("DEADLINE_EXCEEDED", "", EIO),
        ("INTERNAL", "", EIO),
        ("A_CODE_OF_TOMORROW", "A_REASON_OF_TOMORROW", EIO),
    ],
)
def test_a_failed_call_becomes_the_errno_that_does_the_least_damage(code: str, reason: str, errno: int) -> None:
    failed = rpc.failure(NEW_PEER, code, reason, "why")
    assert failed.errno == errno
    assert failed.text == f"{reason or code}: why"


@given(st.text(), st.text(), st.sampled_from([NEW_LINK, NEW_PEER, SwapKeys(12, 3)]))
def test_no_failure_becomes_an_errno_that_ends_openvpn(code: str, reason: str, operation: NewLink | NewPeer) -> None:
    assert rpc.failure(operation, code, reason, "").errno not in {0, ENODEV, ENOMEM, ENOBUFS}


def test_an_interface_name_in_use_makes_openvpn_try_the_next() -> None:
    assert rpc.failure(NEW_LINK, "ALREADY_EXISTS", "INTERFACE_EXISTS", "").errno == EEXIST


@pytest.mark.parametrize("reason", ["DEVICE_EXISTS", "DEVICE_LIMIT", "NOT_A_TUN", ""])
def test_any_other_trouble_with_a_link_makes_openvpn_stop_trying(reason: str) -> None:
    assert rpc.failure(NEW_LINK, "UNAVAILABLE", reason, "").errno == EPERM


@pytest.mark.parametrize("reason", DelReason)
def test_reasons_of_deletion_keep_their_names(reason: DelReason) -> None:
    assert rpc.del_reason(common_pb2.DelReason.Value(f"DEL_REASON_{reason.name}")) is reason


@given(st.integers().filter(lambda number: not 1 <= number <= 5))
def test_an_unknown_reason_of_deletion_is_a_failure_of_the_transport(number: int) -> None:
    assert rpc.del_reason(number) is DelReason.TRANSPORT_ERROR
