from __future__ import annotations

import struct
from errno import EINVAL, EOPNOTSUPP, ERANGE

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from controlplane_shim.netlink import rtnl
from controlplane_shim.netlink.attributes import Malformed
from controlplane_shim.netlink.message import Message
from controlplane_shim.operations import NewLink
from tests.shim.netlink.conftest import attribute, message, nest, only, u8, u32

NAME = attribute(3, b"tun0\0")
AF_PACKET = 17
AF_UNSPEC = 0


def new_link(
    *attributes: bytes, type_: int = 16, flags: int = 0x605, family: int = AF_PACKET, index: int = 0, up: int = 0
) -> bytes:
    return message(type_, flags, struct.pack("=BxHiII", family, 0, index, up, up) + b"".join(attributes))


def link_info(kind: bytes = b"ovpn-dco\0", *data: bytes) -> bytes:
    # OpenVPN marks no nest of rtnetlink as nested.
    return attribute(18, attribute(1, kind) + b"".join(attribute(2, one) for one in data))


def decoded(found: Message) -> NewLink:
    kind = rtnl.kind_of(found)
    assert kind is not None
    return rtnl.decode(found, kind)


def refusal(raw: bytes) -> int:
    with pytest.raises(Malformed) as refused:
        decoded(only(raw))
    return refused.value.errno


@pytest.mark.parametrize("kind", ["ovpn-dco", "ovpn"])
@pytest.mark.parametrize(("mode", "multipeer"), [(0, False), (1, True)])
def test_openvpns_request_is_decoded(kind: str, mode: int, multipeer: bool) -> None:
    raw = new_link(NAME, link_info(kind.encode() + b"\0", u8(1, mode)))
    assert decoded(only(raw)) == NewLink("tun0", kind, multipeer)


def test_ip_link_add_is_decoded() -> None:
    # iproute2 leaves the family open and sends the kind without NUL and no data.
    raw = new_link(NAME, link_info(b"ovpn-dco"), family=AF_UNSPEC)
    assert decoded(only(raw)) == NewLink("tun0", "ovpn-dco", multipeer=False)


def test_nests_may_be_marked_as_nested() -> None:
    raw = new_link(NAME, nest(18, attribute(1, b"ovpn-dco"), nest(2, u8(1, 1))))
    assert decoded(only(raw)) == NewLink("tun0", "ovpn-dco", multipeer=True)


def test_what_pyroute2_encodes_is_decoded() -> None:
    request = ifinfmsg()
    request["header"]["type"] = 16
    request["header"]["flags"] = 0x605
    request["attrs"] = [
        ("IFLA_IFNAME", "ovpn7"),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ovpn-dco")]}),
    ]
    request.encode()
    assert decoded(only(bytes(request.data))) == NewLink("ovpn7", "ovpn-dco", multipeer=False)


def test_without_data_or_mode_a_link_is_p2p() -> None:
    assert decoded(only(new_link(NAME, link_info(b"ovpn-dco\0", b"")))) == NewLink("tun0", "ovpn-dco", False)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(new_link(NAME, link_info(b"ovpn-dco-v2\0", u8(1, 1))), id="another kind"),
        pytest.param(new_link(NAME), id="no kind"),
        pytest.param(new_link(NAME, link_info(), type_=17), id="another type"),
        pytest.param(new_link(NAME, link_info(), flags=0x5), id="a change, not a creation"),
        pytest.param(message(16, 0x605, b"short"), id="no room for the header"),
    ],
)
def test_other_requests_belong_to_the_kernel(raw: bytes) -> None:
    assert rtnl.kind_of(only(raw)) not in {"ovpn-dco", "ovpn"}


@pytest.mark.parametrize(
    ("raw", "errno"),
    [
        pytest.param(new_link(NAME, link_info(b"ovpn-dco\0", u8(1, 2))), ERANGE, id="mode out of range"),
        pytest.param(new_link(NAME, link_info(b"ovpn-dco\0", attribute(1, b""))), ERANGE, id="mode of no bytes"),
        pytest.param(new_link(link_info()), EINVAL, id="no name"),
        pytest.param(new_link(attribute(3, b"\0"), link_info()), EINVAL, id="empty name"),
        pytest.param(new_link(attribute(3, b"..\0"), link_info()), EINVAL, id="name of dots"),
        pytest.param(new_link(attribute(3, b"a/b\0"), link_info()), EINVAL, id="name with a slash"),
        pytest.param(new_link(attribute(3, b"a b\0"), link_info()), EINVAL, id="name with a space"),
        pytest.param(new_link(attribute(3, b"a\xff\0"), link_info()), EINVAL, id="name that is no text"),
        pytest.param(new_link(attribute(3, b"x" * 16), link_info()), ERANGE, id="name too long"),
        pytest.param(new_link(NAME, link_info(), u32(4, 1400)), EOPNOTSUPP, id="an MTU"),
        pytest.param(new_link(NAME, link_info(), u32(28, 5)), EOPNOTSUPP, id="another network namespace"),
        pytest.param(new_link(NAME, link_info(), index=7), EOPNOTSUPP, id="an index"),
        pytest.param(new_link(NAME, link_info(), up=1), EOPNOTSUPP, id="up at once"),
    ],
)
def test_a_link_that_cannot_be_is_refused(raw: bytes, errno: int) -> None:
    assert refusal(raw) == errno


def test_a_name_of_fifteen_bytes_is_taken() -> None:
    found = decoded(only(new_link(attribute(3, b"x" * 15 + b"\0"), link_info())))
    assert found == NewLink("x" * 15, "ovpn-dco", multipeer=False)


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    found = Message(16, 0x605, 1, new_link(link_info(), body))
    if (kind := rtnl.kind_of(found)) is not None:
        try:
            link = rtnl.decode(found, kind)
        except Malformed:
            return
        assert 1 <= len(link.name.encode()) <= 15
        assert link.kind == kind
