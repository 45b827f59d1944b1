from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from errno import EINVAL, ENODEV, ENOTSOCK, EOPNOTSUPP, ERANGE
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import genlmsg, nla

from controlplane_shim.netlink.attributes import Malformed
from controlplane_shim.netlink.codec import decode
from controlplane_shim.netlink.message import Message
from controlplane_shim.netlink.ovpn_dco_v2 import CODEC
from controlplane_shim.operations import (
    DelKey,
    DelPeer,
    DumpPeers,
    GetPeer,
    NewKey,
    NewPeer,
    Operation,
    Remote,
    SetPeer,
    SwapKeys,
)
from tests.shim.netlink.conftest import (
    DCO,
    DUMP_ACK,
    attribute,
    generic,
    message,
    nest,
    new_key_nest,
    only,
    sockaddr_in,
    sockaddr_in6,
    u8,
    u16,
    u32,
)

IFINDEX = u32(1, 12)
PEER_ID = u32(1, 3)
SOCKET = u32(3, 9)
REMOTE4 = attribute(2, sockaddr_in("192.0.2.7", 1194))
REMOTE6 = attribute(2, sockaddr_in6("2001:db8::7", 1194))
VPN4 = attribute(4, socket.inet_aton("10.8.0.2"))
VPN6 = attribute(5, socket.inet_pton(socket.AF_INET6, "fd00::2"))
LOCAL4 = attribute(6, socket.inet_aton("192.0.2.1"))
LOCAL6 = attribute(6, socket.inet_pton(socket.AF_INET6, "2001:db8::1"))


def asked(command: int, *attributes: bytes, flags: int = 0x5, ifindex: int = 12, multipeer: bool = False) -> Operation:
    return decode(only(generic(DCO, command, *attributes, flags=flags)), CODEC, {ifindex: multipeer}, is_admin=True)


def refusal(command: int, *attributes: bytes, flags: int = 0x5) -> int:
    with pytest.raises(Malformed) as refused:
        asked(command, *attributes, flags=flags)
    return refused.value.errno


def new_peer(*attributes: bytes) -> NewPeer:
    operation = asked(1, IFINDEX, nest(2, PEER_ID, SOCKET, *attributes))
    assert isinstance(operation, NewPeer)
    return operation


# What OpenVPN 2.6 sends, in its order of attributes.


def test_a_servers_new_peer_is_decoded() -> None:
    assert new_peer(REMOTE4, VPN4, VPN6) == NewPeer(
        ifindex=12,
        peer_id=3,
        socket_fd=9,
        remote=Remote(IPv4Address("192.0.2.7"), 1194),
        local=None,
        vpn_ipv4=IPv4Address("10.8.0.2"),
        vpn_ipv6=IPv6Address("fd00::2"),
    )


def test_a_multihomed_servers_new_peer_names_the_local_address() -> None:
    found = new_peer(REMOTE6, LOCAL6, VPN4)
    assert (found.remote, found.local) == (
        Remote(IPv6Address("2001:db8::7"), 1194),
        IPv6Address("2001:db8::1"),
    )


def test_a_clients_new_peer_has_no_vpn_address() -> None:
    found = new_peer(REMOTE4)
    assert (found.vpn_ipv4, found.vpn_ipv6) == (None, None)


def test_a_new_peer_of_tcp_has_no_remote() -> None:
    assert new_peer(VPN4).remote is None


def test_set_peer_is_decoded() -> None:
    assert asked(2, IFINDEX, nest(3, PEER_ID, u32(2, 10), u32(3, 120))) == SetPeer(12, 3, 10, 120)


def test_del_peer_is_decoded() -> None:
    assert asked(3, IFINDEX, nest(4, u32(2, 3))) == DelPeer(12, 3)


def test_new_key_is_decoded() -> None:
    assert asked(4, IFINDEX, new_key_nest()) == NewKey(
        ifindex=12,
        peer_id=3,
        slot=0,
        key_id=1,
        cipher=1,
        encrypt_key=b"E" * 32,
        encrypt_nonce_tail=b"e" * 8,
        decrypt_key=b"D" * 32,
        decrypt_nonce_tail=b"d" * 8,
    )


def test_swap_keys_is_decoded() -> None:
    assert asked(5, IFINDEX, nest(6, PEER_ID)) == SwapKeys(12, 3)


def test_del_key_is_decoded() -> None:
    assert asked(6, IFINDEX, nest(7, PEER_ID, u8(2, 1))) == DelKey(12, 3, 1)


def test_get_peer_is_decoded() -> None:
    assert asked(7, IFINDEX, nest(8, PEER_ID)) == GetPeer(12, 3)


def test_a_dump_needs_no_nest() -> None:
    assert asked(7, IFINDEX, flags=DUMP_ACK) == DumpPeers(12)


def test_a_dump_may_have_an_empty_nest() -> None:
    assert asked(7, IFINDEX, nest(8), flags=DUMP_ACK) == DumpPeers(12)


# What the driver takes although OpenVPN does not send it.


def test_a_v4_mapped_remote_becomes_ipv4() -> None:
    found = new_peer(attribute(2, sockaddr_in6("::ffff:192.0.2.7", 1194)), LOCAL4)
    assert (found.remote, found.local) == (Remote(IPv4Address("192.0.2.7"), 1194), IPv4Address("192.0.2.1"))


def test_a_v4_mapped_local_address_fits_an_ipv4_remote() -> None:
    mapped = attribute(6, socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1"))
    assert new_peer(REMOTE4, mapped).local == IPv4Address("192.0.2.1")


def test_unspecified_addresses_are_no_addresses() -> None:
    found = new_peer(REMOTE4, attribute(6, bytes(4)), attribute(4, bytes(4)), attribute(5, bytes(16)))
    assert (found.local, found.vpn_ipv4, found.vpn_ipv6) == (None, None, None)


def test_a_local_address_without_a_remote_is_ignored() -> None:
    assert new_peer(attribute(6, b"five5")).local is None


def test_the_scope_of_a_link_local_remote_is_kept() -> None:
    assert new_peer(attribute(2, sockaddr_in6("fe80::1", 1194, 5))).remote == Remote(
        IPv6Address("fe80::1"), 1194, scope_id=5
    )


@pytest.mark.parametrize("attributes", [(), (u32(2, 10),), (u32(3, 120),)])
def test_without_both_keepalives_set_peer_asks_for_nothing(attributes: tuple[bytes, ...]) -> None:
    assert asked(2, IFINDEX, nest(3, PEER_ID, *attributes)) == SetPeer(12, 3, None, None)


def test_the_reason_in_a_del_peer_is_ignored() -> None:
    assert asked(3, IFINDEX, nest(4, u8(1, 4), u32(2, 3))) == DelPeer(12, 3)


def test_a_peer_id_above_24_bits_loses_its_upper_bits() -> None:
    assert asked(5, IFINDEX, nest(6, u32(1, 0xAB000003))) == SwapKeys(12, 3)


@pytest.mark.parametrize(("cipher", "length"), [(1, 16), (1, 24), (1, 32), (2, 32)])
def test_every_cipher_and_key_length_of_openvpn_is_taken(cipher: int, length: int) -> None:
    encrypt = nest(5, attribute(1, b"E" * length), attribute(2, b"e" * 8))
    decrypt = nest(6, attribute(1, b"D" * length), attribute(2, b"d" * 8))
    found = asked(4, IFINDEX, new_key_nest(cipher=u16(4, cipher), encrypt=encrypt, decrypt=decrypt))
    assert isinstance(found, NewKey)
    assert (found.cipher, found.encrypt_key, found.decrypt_key) == (cipher, b"E" * length, b"D" * length)


def test_one_bit_of_the_dump_flag_makes_no_dump() -> None:
    assert asked(7, IFINDEX, nest(8, PEER_ID), flags=0x105) == GetPeer(12, 3)


# What the driver refuses.

DEL_PEER_ID = u32(2, 3)
NESTS: dict[int, Callable[..., bytes]] = {
    1: lambda peer_id=PEER_ID: nest(2, peer_id, SOCKET, REMOTE4, VPN4),
    2: lambda peer_id=PEER_ID: nest(3, peer_id, u32(2, 10), u32(3, 120)),
    3: lambda peer_id=DEL_PEER_ID: nest(4, peer_id),
    4: lambda peer_id=PEER_ID: new_key_nest(peer_id=peer_id),
    5: lambda peer_id=PEER_ID: nest(6, peer_id),
    6: lambda peer_id=PEER_ID: nest(7, peer_id, u8(2, 0)),
    7: lambda peer_id=PEER_ID: nest(8, peer_id),
}
every_command = pytest.mark.parametrize("command", list(NESTS))


@every_command
def test_without_ifindex_every_command_is_refused(command: int) -> None:
    assert refusal(command, NESTS[command]()) == EINVAL


@every_command
@pytest.mark.parametrize("ifindex", [0, 13, 0x80000000, 0xFFFFFFFF])
def test_an_interface_that_is_no_device_is_refused(command: int, ifindex: int) -> None:
    assert refusal(command, u32(1, ifindex), NESTS[command]()) == ENODEV


@every_command
def test_without_its_nest_every_command_is_refused(command: int) -> None:
    assert refusal(command, IFINDEX) == EINVAL
    assert refusal(command, IFINDEX, NESTS[command % 7 + 1]()) == EINVAL


@every_command
def test_without_the_nested_flag_every_nest_is_refused(command: int) -> None:
    flagged = NESTS[command]()
    length, type_ = struct.unpack_from("=HH", flagged)
    assert refusal(command, IFINDEX, struct.pack("=HH", length, type_ & 0x7FFF) + flagged[4:]) == EINVAL


@every_command
def test_without_peer_id_every_command_is_refused(command: int) -> None:
    assert refusal(command, IFINDEX, NESTS[command](peer_id=b"")) == EINVAL


@every_command
@pytest.mark.parametrize("peer_id", [0xFFFFFF, 0xABFFFFFF])
def test_the_undefined_peer_id_is_refused(command: int, peer_id: int) -> None:
    number = 2 if command == 3 else 1
    assert refusal(command, IFINDEX, NESTS[command](peer_id=u32(number, peer_id))) == EINVAL


@every_command
def test_a_peer_id_of_another_size_is_refused(command: int) -> None:
    number = 2 if command == 3 else 1
    assert refusal(command, IFINDEX, NESTS[command](peer_id=u16(number, 3))) == EINVAL


@pytest.mark.parametrize(
    ("attributes", "errno"),
    [
        pytest.param((PEER_ID, REMOTE4), EINVAL, id="no socket"),
        pytest.param((PEER_ID, u32(3, 0xFFFFFFFF), REMOTE4), ENOTSOCK, id="impossible descriptor"),
        pytest.param((PEER_ID, SOCKET, attribute(2, b"\2\0" + bytes(10))), ERANGE, id="remote below 16 bytes"),
        pytest.param((PEER_ID, SOCKET, attribute(2, b"\2\0" + bytes(18))), EINVAL, id="remote of 20 bytes"),
        pytest.param((PEER_ID, SOCKET, attribute(2, b"\1\0" + bytes(14))), EINVAL, id="remote of another family"),
        pytest.param((PEER_ID, SOCKET, REMOTE4, attribute(5, bytes(15))), ERANGE, id="short VPN IPv6"),
        pytest.param((PEER_ID, SOCKET, REMOTE4, attribute(5, bytes(17))), ERANGE, id="long VPN IPv6"),
        pytest.param((PEER_ID, SOCKET, REMOTE4, attribute(4, bytes(16))), EINVAL, id="VPN IPv4 of 16 bytes"),
        pytest.param((PEER_ID, SOCKET, REMOTE4, attribute(6, bytes(17))), ERANGE, id="long local address"),
        pytest.param((PEER_ID, SOCKET, REMOTE4, attribute(6, bytes(6))), EINVAL, id="local address of 6 bytes"),
        pytest.param((PEER_ID, SOCKET, REMOTE4, LOCAL6), EINVAL, id="local IPv6 and remote IPv4"),
        pytest.param((PEER_ID, SOCKET, REMOTE6, LOCAL4), EINVAL, id="local IPv4 and remote IPv6"),
        pytest.param((PEER_ID, SOCKET, REMOTE4, u32(7, 0)), EINVAL, id="unknown attribute"),
    ],
)
def test_a_malformed_new_peer_is_refused(attributes: tuple[bytes, ...], errno: int) -> None:
    assert refusal(1, IFINDEX, nest(2, *attributes)) == errno


@pytest.mark.parametrize(
    ("replaced", "errno"),
    [
        pytest.param({"slot": b""}, EINVAL, id="no slot"),
        pytest.param({"slot": u8(2, 2)}, ERANGE, id="slot 2"),
        pytest.param({"slot": u32(2, 0)}, EINVAL, id="slot of 32 bits"),
        pytest.param({"key_id": b""}, EINVAL, id="no key-id"),
        pytest.param({"key_id": u8(3, 8)}, EINVAL, id="key-id 8"),
        pytest.param({"cipher": b""}, EINVAL, id="no cipher"),
        pytest.param({"cipher": u16(4, 0)}, EINVAL, id="cipher none"),
        pytest.param({"cipher": u16(4, 3)}, EINVAL, id="unknown cipher"),
        pytest.param({"encrypt": b""}, EINVAL, id="no encrypt direction"),
        pytest.param({"decrypt": b""}, EINVAL, id="no decrypt direction"),
        pytest.param({"encrypt": attribute(5, attribute(1, b"E" * 32))}, EINVAL, id="direction without nested flag"),
        pytest.param({"encrypt": nest(5, attribute(2, b"e" * 8))}, EINVAL, id="no cipher key"),
        pytest.param({"encrypt": nest(5, attribute(1, b"E" * 32))}, EINVAL, id="no nonce tail"),
        pytest.param({"encrypt": nest(5, attribute(1, b"E" * 32), attribute(2, b"e" * 7))}, ERANGE, id="short tail"),
        pytest.param({"encrypt": nest(5, attribute(1, b"E" * 32), attribute(2, b"e" * 9))}, ERANGE, id="long tail"),
        pytest.param({"encrypt": nest(5, attribute(1, b"E" * 256), attribute(2, b"e" * 8))}, ERANGE, id="huge key"),
        pytest.param({"encrypt": nest(5, attribute(1, b"E" * 31), attribute(2, b"e" * 8))}, EINVAL, id="odd key"),
        pytest.param({"encrypt": nest(5, attribute(1, b"E" * 16), attribute(2, b"e" * 8))}, EINVAL, id="unequal keys"),
    ],
)
def test_a_malformed_new_key_is_refused(replaced: dict[str, bytes], errno: int) -> None:
    assert refusal(4, IFINDEX, new_key_nest(**replaced)) == errno


def test_a_new_peer_of_an_mp_device_needs_a_vpn_address() -> None:
    for attributes in ((), (attribute(4, bytes(4)), attribute(5, bytes(16)))):
        with pytest.raises(Malformed) as refused:
            asked(1, IFINDEX, nest(2, PEER_ID, SOCKET, REMOTE4, *attributes), multipeer=True)
        assert refused.value.errno == EINVAL
    assert isinstance(asked(1, IFINDEX, nest(2, PEER_ID, SOCKET, REMOTE4, VPN6), multipeer=True), NewPeer)


def test_a_chacha_key_of_16_bytes_is_refused() -> None:
    encrypt = nest(5, attribute(1, b"E" * 16), attribute(2, b"e" * 8))
    decrypt = nest(6, attribute(1, b"D" * 16), attribute(2, b"d" * 8))
    assert refusal(4, IFINDEX, new_key_nest(cipher=u16(4, 2), encrypt=encrypt, decrypt=decrypt)) == EINVAL


def test_del_key_needs_a_slot_in_range() -> None:
    assert refusal(6, IFINDEX, nest(7, PEER_ID)) == EINVAL
    assert refusal(6, IFINDEX, nest(7, PEER_ID, u8(2, 2))) == ERANGE


def test_a_del_peer_with_an_unknown_reason_is_refused() -> None:
    assert refusal(3, IFINDEX, nest(4, u8(1, 5), u32(2, 3))) == ERANGE


def test_an_unknown_command_is_refused_before_its_attributes() -> None:
    assert [refusal(command, b"\xff\xff\xff\xff") for command in (0, 8, 255)] == [EOPNOTSUPP] * 3


@pytest.mark.parametrize("command", range(1, 7))
def test_only_get_peer_can_dump(command: int) -> None:
    assert refusal(command, IFINDEX, NESTS[command](), flags=DUMP_ACK) == EOPNOTSUPP


def test_a_dump_without_ifindex_is_refused() -> None:
    assert refusal(7, flags=DUMP_ACK) == EINVAL


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_message_without_the_generic_header_is_refused(length: int) -> None:
    with pytest.raises(Malformed) as refused:
        decode(only(message(DCO, 0x5, b"\7\0\0\0"[:length])), CODEC, {}, is_admin=True)
    assert refused.value.errno == EINVAL


def test_faults_in_the_tables_come_before_missing_attributes() -> None:
    assert refusal(4, new_key_nest(slot=u8(2, 2))) == ERANGE


# For all bytes.

shuffled = st.lists(
    st.one_of(
        st.sampled_from([IFINDEX, PEER_ID, SOCKET, REMOTE4, REMOTE6, VPN4, VPN6, LOCAL4, LOCAL6]),
        st.sampled_from([nested() for nested in NESTS.values()]),
        st.builds(attribute, st.integers(0, 9), st.binary(max_size=33)),
    ),
    max_size=4,
).map(b"".join)
bodies = st.one_of(
    st.binary(max_size=100),
    st.builds(lambda rest: IFINDEX + rest, shuffled),
    st.builds(lambda number, rest: IFINDEX + nest(number, rest), st.integers(2, 8), shuffled),
)


def is_in_range(operation: Operation) -> bool:
    peer_id = getattr(operation, "peer_id", 0)
    bounds = 0 < getattr(operation, "ifindex", 0) < 1 << 31 and 0 <= peer_id < 0xFFFFFF
    match operation:
        case NewPeer():
            locals_fit = operation.local is None or (
                operation.remote is not None and operation.local.version == operation.remote.address.version
            )
            return bounds and 0 <= operation.socket_fd < 1 << 31 and locals_fit
        case NewKey():
            lengths = {1: {16, 24, 32}, 2: {32}}[operation.cipher]
            tails = {len(operation.encrypt_nonce_tail), len(operation.decrypt_nonce_tail)}
            keys = {len(operation.encrypt_key), len(operation.decrypt_key)}
            return bounds and operation.slot in {0, 1} and operation.key_id < 8 and tails == {8} and keys <= lengths
        case DelKey():
            return bounds and operation.slot in {0, 1}
        case _:
            return bounds


@given(st.integers(0, 9), st.sampled_from([0x5, DUMP_ACK]), bodies)
def test_whatever_comes_is_refused_or_within_its_ranges(command: int, flags: int, body: bytes) -> None:
    try:
        operation = asked(command, body, flags=flags)
    except Malformed:
        return
    assert is_in_range(operation)


@given(
    st.builds(
        NewPeer,
        ifindex=st.integers(1, (1 << 31) - 1),
        peer_id=st.integers(0, 0xFFFFFE),
        socket_fd=st.integers(0, (1 << 31) - 1),
        remote=st.builds(Remote, st.ip_addresses(v=4), st.integers(0, 0xFFFF)),
        local=st.ip_addresses(v=4).filter(lambda address: int(address) != 0),
        vpn_ipv4=st.ip_addresses(v=4).filter(lambda address: int(address) != 0),
        vpn_ipv6=st.ip_addresses(v=6).filter(lambda address: int(address) != 0),
    )
)
def test_a_new_peer_is_decoded_as_it_was_encoded(peer: NewPeer) -> None:
    assert peer.remote is not None
    assert peer.local is not None
    assert peer.vpn_ipv4 is not None
    assert peer.vpn_ipv6 is not None
    encoded = nest(
        2,
        u32(1, peer.peer_id),
        u32(3, peer.socket_fd),
        attribute(2, sockaddr_in(str(peer.remote.address), peer.remote.port)),
        attribute(6, peer.local.packed),
        attribute(4, peer.vpn_ipv4.packed),
        attribute(5, peer.vpn_ipv6.packed),
    )
    assert asked(1, u32(1, peer.ifindex), encoded, ifindex=peer.ifindex) == peer


class DcoMessage(genlmsg):  # type: ignore[misc]
    """The same family as pyroute2 would have it."""

    nla_map = (("UNSPEC", "none"), ("IFINDEX", "uint32"), *((f"NEST{index}", "peer") for index in range(2, 9)))

    class peer(nla):  # type: ignore[misc]  # noqa: N801 - pyroute2 finds it by this name
        nla_flags = 0x8000
        nla_map = (("UNSPEC", "none"), ("PEER_ID", "uint32"), ("INTERVAL", "uint32"), ("TIMEOUT", "uint32"))


def test_what_pyroute2_encodes_is_decoded() -> None:
    request = DcoMessage()
    request["header"]["type"] = DCO
    request["header"]["flags"] = 0x5
    request["cmd"] = 2
    request["attrs"] = [
        ("IFINDEX", 12),
        ("NEST3", {"attrs": [("PEER_ID", 3), ("INTERVAL", 10), ("TIMEOUT", 120)]}),
    ]
    request.encode()
    assert decode(only(bytes(request.data)), CODEC, {12: False}, is_admin=True) == SetPeer(12, 3, 10, 120)


def test_no_repr_of_a_key_shows_its_bytes() -> None:
    shown = repr(asked(4, IFINDEX, new_key_nest())) + repr(Message(DCO, 5, 1, new_key_nest()))
    assert not {"EEE", "DDD", "eee", "ddd"} & {shown[index : index + 3] for index in range(len(shown))}


def test_no_refusal_of_a_key_shows_its_bytes() -> None:
    with pytest.raises(Malformed) as refused:
        asked(4, IFINDEX, new_key_nest(key_id=u8(3, 9)))
    assert "EEE" not in str(refused.value)
