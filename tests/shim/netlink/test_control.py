from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic import ctrlmsg

from controlplane_shim.netlink import attributes
from controlplane_shim.netlink.control import GenericFamily, build_new_family, is_about
from controlplane_shim.netlink.message import Message, split
from tests.shim.netlink.conftest import (
    DCO,
    NETLINK_GENERIC,
    ask_kernel,
    attribute,
    generic,
    message,
    only,
    u16,
    u32,
)

FAMILY = GenericFamily(
    name="ovpn-dco-v2",
    family_id=DCO,
    version=1,
    max_attribute=8,
    operations=((1, 0xB), (7, 0xF)),
    groups=(("peers", 0xD80),),
)
BY_NAME = generic(0x10, 3, attribute(2, b"ovpn-dco-v2\0"))


def test_openvpns_look_up_by_name_is_about_the_family() -> None:
    assert is_about(only(BY_NAME), FAMILY)


def test_a_look_up_by_id_is_about_the_family() -> None:
    assert is_about(only(generic(0x10, 3, u16(1, DCO))), FAMILY)


def test_the_name_prevails_over_the_id() -> None:
    assert not is_about(only(generic(0x10, 3, u16(1, DCO), attribute(2, b"nlctrl\0"))), FAMILY)


def test_a_look_up_of_another_family_belongs_to_the_kernel() -> None:
    assert not is_about(only(generic(0x10, 3, attribute(2, b"ovpn-dco-v3\0"))), FAMILY)
    assert not is_about(only(generic(0x10, 3, u16(1, 0x10))), FAMILY)


def test_a_dump_of_all_families_belongs_to_the_kernel() -> None:
    assert not is_about(only(generic(0x10, 3, attribute(2, b"ovpn-dco-v2\0"), flags=0x305)), FAMILY)


def test_another_command_belongs_to_the_kernel() -> None:
    assert not is_about(only(generic(0x10, 10, attribute(2, b"ovpn-dco-v2\0"))), FAMILY)


def test_another_message_type_is_no_look_up() -> None:
    assert not is_about(replace(only(BY_NAME), type=DCO), FAMILY)


def test_a_look_up_without_a_question_belongs_to_the_kernel() -> None:
    assert not is_about(only(generic(0x10, 3)), FAMILY)
    assert not is_about(only(message(0x10, 5, b"\3")), FAMILY)
    assert not is_about(only(generic(0x10, 3, u32(1, DCO))), FAMILY)


@given(st.binary(max_size=60))
def test_any_bytes_are_about_a_family_or_not(body: bytes) -> None:
    assert is_about(Message(0x10, 5, 1, bytes(16) + body), FAMILY) in {True, False}


def test_the_introduction_has_the_bytes_of_the_kernels() -> None:
    operations = attribute(1, u32(1, 1) + u32(2, 0xB)) + attribute(2, u32(1, 7) + u32(2, 0xF))
    groups = attribute(1, u32(2, 0xD80) + attribute(1, b"peers\0"))
    body = (
        struct.pack("=BBH", 1, 2, 0)
        + attribute(2, b"ovpn-dco-v2\0")
        + u16(1, DCO)
        + u32(3, 1)
        + u32(4, 0)
        + u32(5, 8)
        + attribute(6, operations)
        + attribute(7, groups)
    )
    assert build_new_family(FAMILY, 9, 42) == message(0x10, 0, body, seq=9, port_id=42)


def test_the_introduction_is_byte_for_byte_the_kernels_for_a_family_of_the_kernel() -> None:
    answer, port_id = ask_kernel(NETLINK_GENERIC, generic(0x10, 3, attribute(2, b"nlctrl\0"), seq=9))
    told = attributes.payloads(split(answer)[0].body[4:])
    operations = tuple(struct.unpack("=4xI4xI", nest) for nest in attributes.payloads(told[6]).values())
    groups = attributes.payloads(attributes.payloads(told[7])[1])
    family = GenericFamily(
        name="nlctrl",
        family_id=0x10,
        version=2,
        max_attribute=struct.unpack("=I", told[5])[0],
        operations=operations,
        groups=(("notify", struct.unpack("=I", groups[2])[0]),),
    )
    assert build_new_family(family, 9, port_id) == answer


def test_pyroute2_understands_the_introduction() -> None:
    decoded = ctrlmsg(build_new_family(FAMILY, 9, 42))
    decoded.decode()
    assert decoded.get_attr("CTRL_ATTR_FAMILY_NAME") == "ovpn-dco-v2"
    assert decoded.get_attr("CTRL_ATTR_FAMILY_ID") == DCO
    assert decoded.get_attr("CTRL_ATTR_MAXATTR") == 8
    (group,) = decoded.get_attr("CTRL_ATTR_MCAST_GROUPS")
    assert group.get_attr("CTRL_ATTR_MCAST_GRP_NAME") == "peers"
    assert group.get_attr("CTRL_ATTR_MCAST_GRP_ID") == 0xD80
