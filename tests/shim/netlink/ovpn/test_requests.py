from __future__ import annotations

from errno import EINVAL, ENOTSOCK
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.netlink.attributes import Malformed
from controlplane_shim.netlink.codec import decode
from controlplane_shim.netlink.ovpn import CODEC
from controlplane_shim.operations import (
    DelKey,
    DelPeer,
    DumpPeers,
    GetKey,
    GetPeer,
    NewKey,
    NewPeer,
    PeerOperation,
    Remote,
    SetPeer,
    SwapKeys,
)
from tests.shim.netlink.conftest import (
    DUMP_ACK,
    OVPN,
    attribute,
    be16,
    generic,
    keyconf_nest,
    nest,
    only,
    u32,
)

MP, P2P = 12, 13
ID = u32(1, 3)
SOCKET = u32(6, 9)
REMOTE4 = attribute(2, IPv4Address("192.0.2.7").packed)
REMOTE6 = attribute(3, IPv6Address("fe80::7").packed)
MAPPED = attribute(3, IPv6Address("::ffff:192.0.2.7").packed)
PORT = be16(5, 1194)
VPN4 = attribute(8, IPv4Address("10.8.0.2").packed)
VPN6 = attribute(9, IPv6Address("fd00::2").packed)
KEEPALIVES = u32(13, 10), u32(14, 120)


def asked(command: int, *attributes: bytes, ifindex: int = MP, flags: int = 0x5) -> PeerOperation:
    raw = generic(OVPN, command, u32(1, ifindex), *attributes, flags=flags)
    return decode(only(raw), CODEC, {MP: True, P2P: False}, is_admin=True)


def new_peer(*attributes: bytes, ifindex: int = MP) -> NewPeer:
    operation = asked(1, nest(2, ID, SOCKET, *attributes), ifindex=ifindex)
    assert isinstance(operation, NewPeer)
    return operation


# What OpenVPN 2.7 sends.


def test_a_servers_peer_is_decoded() -> None:
    assert new_peer(REMOTE4, PORT, VPN4, VPN6) == NewPeer(
        ifindex=MP,
        peer_id=3,
        socket_fd=9,
        remote=Remote(IPv4Address("192.0.2.7"), 1194),
        local=None,
        vpn_ipv4=IPv4Address("10.8.0.2"),
        vpn_ipv6=IPv6Address("fd00::2"),
    )


def test_a_clients_peer_has_no_vpn_address() -> None:
    found = new_peer(REMOTE4, PORT, ifindex=P2P)
    assert (found.vpn_ipv4, found.vpn_ipv6) == (None, None)


def test_a_peer_of_tcp_has_no_remote() -> None:
    assert new_peer(VPN4).remote is None


def test_a_peer_of_tcp_may_have_a_remote_as_openvpn_3_sends_it() -> None:
    assert new_peer(REMOTE4, PORT, VPN4).remote == Remote(IPv4Address("192.0.2.7"), 1194)


def test_a_multihomed_servers_peer_names_the_local_address() -> None:
    local = attribute(10, IPv4Address("192.0.2.1").packed)
    assert new_peer(REMOTE4, PORT, local, VPN4).local == IPv4Address("192.0.2.1")


def test_keepalives_are_set() -> None:
    assert asked(2, nest(2, ID, *KEEPALIVES)) == SetPeer(MP, 3, 10, 120)


def test_keepalives_may_come_with_the_peer() -> None:
    found = new_peer(REMOTE4, PORT, VPN4, *KEEPALIVES)
    assert (found.keepalive_interval, found.keepalive_timeout) == (10, 120)


@pytest.mark.parametrize("keepalives", [(u32(13, 0), u32(14, 120)), (u32(13, 10), u32(14, 0))])
def test_one_zero_turns_both_keepalives_off(keepalives: tuple[bytes, ...]) -> None:
    assert asked(2, nest(2, ID, *keepalives)) == SetPeer(MP, 3, 0, 0)


def test_keys_are_decoded() -> None:
    assert asked(6, keyconf_nest()) == NewKey(
        ifindex=MP,
        peer_id=3,
        slot=0,
        key_id=1,
        cipher=1,
        encrypt_key=b"E" * 32,
        encrypt_nonce_tail=b"e" * 8,
        decrypt_key=b"D" * 32,
        decrypt_nonce_tail=b"d" * 8,
    )


def test_the_other_commands_are_decoded() -> None:
    assert asked(3, nest(2, ID)) == GetPeer(MP, 3)
    assert asked(3, flags=DUMP_ACK) == DumpPeers(MP)
    assert asked(4, nest(2, ID)) == DelPeer(MP, 3)
    assert asked(7, nest(3, ID, u32(2, 1))) == GetKey(MP, 3, 1)
    assert asked(8, nest(3, ID)) == SwapKeys(MP, 3)
    assert asked(10, nest(3, ID, u32(2, 1))) == DelKey(MP, 3, 1)


# What the driver takes although OpenVPN does not send it.


def test_a_peer_set_changes_addresses() -> None:
    local = attribute(10, IPv4Address("192.0.2.1").packed)
    assert asked(2, nest(2, ID, REMOTE4, PORT, local, VPN4, attribute(9, bytes(16)))) == SetPeer(
        MP,
        3,
        None,
        None,
        remote=Remote(IPv4Address("192.0.2.7"), 1194),
        local=IPv4Address("192.0.2.1"),
        vpn_ipv4=IPv4Address("10.8.0.2"),
        vpn_ipv6=IPv6Address("::"),
    )


def test_a_peer_set_of_nothing_asks_for_nothing() -> None:
    assert asked(2, nest(2, ID)) == SetPeer(MP, 3, None, None)


def test_a_v4_mapped_remote_becomes_ipv4_and_fits_a_v4_mapped_local() -> None:
    local = attribute(11, IPv6Address("::ffff:192.0.2.1").packed)
    found = new_peer(MAPPED, PORT, local, VPN4)
    assert (found.remote, found.local) == (Remote(IPv4Address("192.0.2.7"), 1194), IPv4Address("192.0.2.1"))


def test_the_scope_of_a_remote_is_kept() -> None:
    assert new_peer(REMOTE6, u32(4, 5), PORT, VPN4).remote == Remote(IPv6Address("fe80::7"), 1194, 5)


def test_unspecified_local_and_vpn_addresses_are_none() -> None:
    found = new_peer(REMOTE4, PORT, attribute(10, bytes(4)), VPN4, attribute(9, bytes(16)))
    assert (found.local, found.vpn_ipv6) == (None, None)


# What the driver takes, and the shim cannot give.


@pytest.mark.parametrize(("peer_id", "fd", "errno"), [(0xFFFFFF, 9, EINVAL), (3, 0xFFFFFFFF, ENOTSOCK)])
def test_an_undefined_peer_or_an_impossible_descriptor_is_refused(peer_id: int, fd: int, errno: int) -> None:
    with pytest.raises(Malformed) as refused:
        asked(1, nest(2, u32(1, peer_id), u32(6, fd), REMOTE4, PORT, VPN4))
    assert refused.value.errno == errno


def test_no_text_of_a_refused_key_shows_it() -> None:
    for replaced in ({"key_id": u32(3, 9)}, {"cipher": u32(4, 0)}, {"encrypt": nest(5, attribute(1, b"E" * 31))}):
        with pytest.raises(Malformed) as refused:
            asked(6, keyconf_nest(**replaced))
        assert not any(shown in str(refused.value) for shown in ("EEE", "DDD", "ddd"))


# For all bytes.

rows = st.one_of(
    st.sampled_from([ID, SOCKET, REMOTE4, REMOTE6, MAPPED, PORT, VPN4, VPN6, *KEEPALIVES, u32(24, 3), u32(4, 1)]),
    st.builds(attribute, st.integers(0, 26), st.binary(max_size=33)),
)
bodies = st.one_of(
    st.binary(max_size=100),
    st.builds(lambda number, inner: nest(number, *inner), st.integers(1, 4), st.lists(rows, max_size=9)),
)


@given(st.integers(0, 12), st.sampled_from([0x5, DUMP_ACK]), st.sampled_from([MP, P2P]), bodies)
def test_whatever_comes_is_refused_or_within_its_ranges(command: int, flags: int, ifindex: int, body: bytes) -> None:
    try:
        operation = asked(command, body, ifindex=ifindex, flags=flags)
    except Malformed:
        return
    assert operation.ifindex == ifindex
    assert 0 <= getattr(operation, "peer_id", 0) <= 0xFFFFFF
    if isinstance(operation, NewPeer):
        assert (ifindex == MP) == (operation.vpn_ipv4 is not None or operation.vpn_ipv6 is not None)
    if isinstance(operation, NewPeer | SetPeer):
        assert (operation.keepalive_interval is None) == (operation.keepalive_timeout is None)
        assert operation.remote is None or 0 < operation.remote.port <= 0xFFFF
        if operation.local is not None:
            assert operation.remote is not None
            assert operation.local.version == operation.remote.address.version
