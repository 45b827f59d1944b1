from __future__ import annotations

import struct
from dataclasses import replace
from errno import EEXIST, EINVAL, EIO, ENOBUFS, ENODEV, ENOENT, ENOMEM, EOPNOTSUPP, ERANGE
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic import ctrlmsg

from controlplane_shim.netlink.message import AckOptions, split
from controlplane_shim.operations import (
    DeletionNotice,
    DelReason,
    Done,
    DumpPeers,
    Failed,
    Family,
    GetFamily,
    GetPeer,
    NewKey,
    NewLink,
    Outcome,
    PeerFound,
    PeerInfo,
    PeersFound,
    Remote,
    SwapKeys,
)
from controlplane_shim.translate.translator import DATAGRAM_BYTES, Request, Translator
from tests.shim.netlink.conftest import (
    DCO,
    DUMP_ACK,
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    OVPN,
    ask_kernel,
    attribute,
    generic,
    message,
    nest,
    new_key_nest,
    u8,
    u32,
)

PORT = 42
GET_FAMILY = generic(0x10, 3, attribute(2, b"ovpn-dco-v2\0"))
SWAP_KEYS = generic(DCO, 5, u32(1, 12), nest(6, u32(1, 3)))
GET_PEER = generic(DCO, 7, u32(1, 12), nest(8, u32(1, 3)))
DUMP = generic(DCO, 7, u32(1, 12), flags=DUMP_ACK)
NEW_KEY = generic(DCO, 4, u32(1, 12), new_key_nest())
NEW_LINK = message(
    16,
    0x605,
    struct.pack("=BxHiII", 17, 0, 0, 0, 0)
    + attribute(3, b"tun0\0")
    + attribute(18, attribute(1, b"ovpn-dco\0") + attribute(2, u8(1, 1))),
)
PEER = PeerInfo(
    peer_id=3,
    tx_id=3,
    remote=Remote(IPv4Address("192.0.2.7"), 1194),
    local=None,
    local_port=1194,
    vpn_ipv4=IPv4Address("10.8.0.2"),
    vpn_ipv6=IPv6Address("fd00::2"),
    keepalive_interval=10,
    keepalive_timeout=120,
    vpn_rx_bytes=1,
    vpn_tx_bytes=2,
    vpn_rx_packets=3,
    vpn_tx_packets=4,
    link_rx_bytes=5,
    link_tx_bytes=6,
    link_rx_packets=7,
    link_tx_packets=8,
)


DEVICES = {Family.OVPN_DCO_V2: {12: True}, Family.OVPN: {13: True, 14: False}}


def ask(raw: bytes, protocol: int = NETLINK_GENERIC) -> Request:
    (request,) = Translator().requests(protocol, raw, DEVICES)
    return request


def reply(raw: bytes, outcome: Outcome, protocol: int = NETLINK_GENERIC) -> list[bytes]:
    return Translator().replies(ask(raw, protocol), PORT, outcome)


def acknowledgement(raw: bytes) -> bytes:
    return struct.pack("=IHHIIi", 36, 2, 0x100, 7, PORT, 0) + raw[:16]


def error_reply(raw: bytes, errno: int) -> bytes:
    return struct.pack("=IHHIIi", 20 + len(raw), 2, 0, 7, PORT, -errno) + raw


# Requests


def test_a_look_up_of_our_family_is_ours() -> None:
    assert ask(GET_FAMILY) == Request(
        protocol=NETLINK_GENERIC,
        raw=GET_FAMILY,
        seq=7,
        flags=0x5,
        operation=GetFamily(Family.OVPN_DCO_V2),
        family=Family.OVPN_DCO_V2,
        error=None,
    )


def test_a_request_of_our_family_is_ours() -> None:
    request = ask(SWAP_KEYS)
    assert (request.operation, request.family, request.error) == (SwapKeys(12, 3), Family.OVPN_DCO_V2, None)


def test_a_link_of_our_kind_is_ours() -> None:
    request = ask(NEW_LINK, NETLINK_ROUTE)
    assert request.operation == NewLink("tun0", "ovpn-dco", multipeer=True)
    assert request.family is Family.OVPN_DCO_V2


@pytest.mark.parametrize(
    ("protocol", "raw"),
    [
        pytest.param(NETLINK_GENERIC, generic(0x10, 3, attribute(2, b"nlctrl\0")), id="look-up of another family"),
        pytest.param(NETLINK_GENERIC, generic(0x15, 5, u32(1, 12)), id="another family"),
        pytest.param(NETLINK_GENERIC, NEW_LINK, id="link request to generic netlink"),
        pytest.param(NETLINK_ROUTE, SWAP_KEYS, id="our family's number in rtnetlink"),
        pytest.param(NETLINK_ROUTE, message(18, 0x5, bytes(16)), id="look-up of a link"),
        pytest.param(4, SWAP_KEYS, id="another protocol"),
        pytest.param(NETLINK_GENERIC, message(DCO, 0x4, SWAP_KEYS[16:]), id="no NLM_F_REQUEST"),
    ],
)
def test_what_is_not_ours_belongs_to_the_kernel(protocol: int, raw: bytes) -> None:
    request = ask(raw, protocol)
    assert (request.operation, request.family, request.error) == (None, None, None)
    assert request.raw == raw


@pytest.mark.parametrize(
    ("protocol", "raw", "errno"),
    [
        pytest.param(NETLINK_GENERIC, generic(DCO, 5, u32(1, 12)), EINVAL, id="no nest"),
        pytest.param(NETLINK_GENERIC, generic(DCO, 9, u32(1, 12)), EOPNOTSUPP, id="unknown command"),
        pytest.param(NETLINK_GENERIC, generic(DCO, 4, u32(1, 12), new_key_nest(slot=u8(2, 9))), ERANGE, id="slot 9"),
        pytest.param(NETLINK_GENERIC, message(DCO, 0x5, b""), EINVAL, id="no generic header"),
        pytest.param(NETLINK_ROUTE, NEW_LINK[:-4] + b"\2\0\0\0", ERANGE, id="mode 2"),
    ],
)
def test_a_malformed_request_of_ours_has_its_error(protocol: int, raw: bytes, errno: int) -> None:
    request = ask(raw, protocol)
    assert request.operation is None
    assert request.family is Family.OVPN_DCO_V2
    assert request.error is not None
    assert request.error.errno == errno


def test_messages_of_one_datagram_keep_their_order() -> None:
    foreign = generic(0x15, 5, u32(1, 12))
    found = Translator().requests(NETLINK_GENERIC, SWAP_KEYS + foreign + GET_PEER, DEVICES)
    assert [request.operation for request in found] == [SwapKeys(12, 3), None, GetPeer(12, 3)]
    assert [request.raw for request in found] == [SWAP_KEYS, foreign, GET_PEER]


def test_a_datagram_without_a_whole_message_has_no_requests() -> None:
    assert Translator().requests(NETLINK_GENERIC, SWAP_KEYS[:-1]) == []


def test_no_repr_of_a_request_shows_a_key() -> None:
    request = ask(NEW_KEY)
    assert isinstance(request.operation, NewKey)
    assert not any(shown in repr(request) for shown in ("EEE", "DDD", "eee", "ddd"))


def test_no_repr_of_a_malformed_request_shows_a_key() -> None:
    request = ask(generic(DCO, 4, u32(1, 12), new_key_nest(key_id=u8(3, 9))))
    assert request.error is not None
    assert not any(shown in repr(request) for shown in ("EEE", "DDD", "eee", "ddd"))


# Replies


def test_success_is_acknowledged() -> None:
    assert reply(SWAP_KEYS, Done()) == [acknowledgement(SWAP_KEYS)]


def test_success_is_silent_when_nobody_asked_for_an_acknowledgement() -> None:
    assert reply(generic(DCO, 5, u32(1, 12), nest(6, u32(1, 3)), flags=0x1), Done()) == []


def test_a_failure_repeats_the_whole_request() -> None:
    assert reply(SWAP_KEYS, Failed(ENOENT, "")) == [error_reply(SWAP_KEYS, ENOENT)]


def test_a_failure_is_told_even_if_nobody_asked_for_an_acknowledgement() -> None:
    raw = generic(DCO, 5, u32(1, 12), nest(6, u32(1, 3)), flags=0x1)
    assert reply(raw, Failed(EEXIST, "")) == [error_reply(raw, EEXIST)]


@pytest.mark.parametrize(("errno", "told"), [(ENODEV, EINVAL), (ENOMEM, EIO), (ENOBUFS, EIO)])
def test_errnos_that_end_openvpn_never_leave(errno: int, told: int) -> None:
    assert reply(SWAP_KEYS, Failed(errno, "")) == [error_reply(SWAP_KEYS, told)]
    assert reply(NEW_LINK, Failed(errno, ""), NETLINK_ROUTE) == [error_reply(NEW_LINK, told)]


def test_an_impossible_ifindex_is_told_as_einval() -> None:
    raw = generic(DCO, 5, u32(1, 0), nest(6, u32(1, 3)))
    request = ask(raw)
    assert request.error is not None
    assert Translator().replies(request, PORT, request.error) == [error_reply(raw, EINVAL)]


def test_a_failed_dump_is_told_at_once() -> None:
    assert reply(DUMP, Failed(EINVAL, "")) == [error_reply(DUMP, EINVAL)]


def test_a_family_introduces_itself_and_then_acknowledges() -> None:
    introduction, acknowledged = reply(GET_FAMILY, Done())
    decoded = ctrlmsg(introduction)
    decoded.decode()
    assert decoded["header"]["sequence_number"] == 7
    assert decoded["header"]["pid"] == PORT
    assert decoded.get_attr("CTRL_ATTR_FAMILY_NAME") == "ovpn-dco-v2"
    assert decoded.get_attr("CTRL_ATTR_FAMILY_ID") == DCO
    assert acknowledged == acknowledgement(GET_FAMILY)


def test_a_family_that_is_not_offered_is_not_found() -> None:
    assert reply(GET_FAMILY, Failed(ENOENT, "")) == [error_reply(GET_FAMILY, ENOENT)]


def test_one_peer_comes_before_its_acknowledgement() -> None:
    told, acknowledged = reply(GET_PEER, PeerFound(PEER))
    (found,) = split(told)
    assert (found.type, found.flags, found.seq, found.body[:4]) == (DCO, 0, 7, b"\7\1\0\0")
    assert struct.unpack_from("=I", told, 12) == (PORT,)
    assert acknowledged == acknowledgement(GET_PEER)


def test_a_dump_is_multipart_and_ends_by_done_without_acknowledgement() -> None:
    assert ask(DUMP).operation == DumpPeers(12)
    *told, done = reply(DUMP, PeersFound((PEER, replace(PEER, peer_id=4))))
    messages = [found for datagram in told for found in split(datagram)]
    assert [(found.type, found.flags, found.seq) for found in messages] == [(DCO, 2, 7)] * 2
    assert [found.raw[28:32] for found in messages] == [struct.pack("=I", 3), struct.pack("=I", 4)]
    assert done == struct.pack("=IHHIIi", 20, 3, 2, 7, PORT, 0)


def test_a_dump_of_nothing_is_done_at_once() -> None:
    assert reply(DUMP, PeersFound(())) == [struct.pack("=IHHIIi", 20, 3, 2, 7, PORT, 0)]


@pytest.mark.parametrize("count", [1, 17, 18, 19, 500])
def test_a_long_dump_is_spread_over_datagrams_that_every_reader_can_take(count: int) -> None:
    *told, _ = reply(DUMP, PeersFound(tuple(replace(PEER, peer_id=index) for index in range(count))))
    assert all(0 < len(datagram) <= DATAGRAM_BYTES for datagram in told)
    found = [struct.unpack_from("=I", one.raw, 28)[0] for datagram in told for one in split(datagram)]
    assert found == list(range(count))


def test_the_kernel_itself_acknowledges_the_message_meant_for_it() -> None:
    noop = Translator().kernel_ack(ask(message(16, 0x605, NEW_LINK[16:], seq=77), NETLINK_ROUTE))
    answer, port_id = ask_kernel(NETLINK_ROUTE, noop)
    assert answer == struct.pack("=IHHIIi", 36, 2, 0x100, 77, port_id, 0) + noop[:16]


def test_the_kernel_itself_refuses_the_message_meant_for_that() -> None:
    refused = Translator().kernel_refusal(ask(message(16, 0x605, NEW_LINK[16:], seq=77), NETLINK_ROUTE))
    answer, port_id = ask_kernel(NETLINK_ROUTE, refused)
    assert answer == struct.pack("=IHHIIi", 36, 2, 0, 77, port_id, -EOPNOTSUPP) + refused


def test_a_deletion_notice_is_the_drivers() -> None:
    notice = DeletionNotice(Family.OVPN_DCO_V2, ifindex=12, peer_id=3, reason=DelReason.EXPIRED)
    body = struct.pack("=BBH", 3, 1, 0) + u32(1, 12) + nest(4, u8(1, 2), u32(2, 3))
    assert Translator().notice(notice) == message(DCO, 0, body, seq=0)


def test_the_group_that_the_family_names_is_ours() -> None:
    decoded = ctrlmsg(reply(GET_FAMILY, Done())[0])
    decoded.decode()
    (group,) = decoded.get_attr("CTRL_ATTR_MCAST_GROUPS")
    number = group.get_attr("CTRL_ATTR_MCAST_GRP_ID")
    assert Translator().group_of(number) is Family.OVPN_DCO_V2


def test_groups_of_the_kernel_are_not_ours() -> None:
    assert {Translator().group_of(group) for group in range(1024)} == {None}


outcomes = st.one_of(
    st.builds(Done),
    st.builds(Failed, st.integers(1, 133), st.text()),
    st.just(PeerFound(PEER)),
    st.just(PeersFound((PEER,))),
)
datagrams = st.one_of(
    st.binary(max_size=100),
    st.builds(
        message,
        st.sampled_from([DCO, OVPN, 0x10, 16]),
        st.integers(0, 0xFFFF).map(lambda flags: flags | 1),
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda start, cut, rest: start[16 : max(16, cut)] + rest,
                st.sampled_from([GET_FAMILY, SWAP_KEYS, GET_PEER, NEW_KEY, NEW_LINK]),
                st.integers(16, 200),
                st.binary(max_size=20),
            ),
        ),
    ),
)


@given(st.sampled_from([0, 4, 16]), datagrams, outcomes, st.builds(AckOptions, st.booleans(), st.booleans()))
def test_any_datagram_is_answered_in_whole_messages(
    protocol: int, datagram: bytes, outcome: Outcome, options: AckOptions
) -> None:
    translator = Translator()
    for request in translator.requests(protocol, datagram, DEVICES):
        assert request.operation is None or request.error is None
        assert (request.family is None) == (request.operation is None and request.error is None)
        for answer in translator.replies(request, PORT, outcome, options):
            assert sum(len(found.raw) for found in split(answer)) == len(answer)
