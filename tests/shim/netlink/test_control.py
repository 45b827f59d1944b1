from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic import ctrlmsg

from controlplane_shim.netlink import attributes
from controlplane_shim.netlink.control import (
    GenericFamily,
    GenericOperation,
    PolicyQuestion,
    asks_for_family,
    asks_for_policy,
    build_new_family,
    build_policies,
)
from controlplane_shim.netlink.message import Message, split
from tests.shim.netlink.conftest import (
    DCO,
    DUMP_ACK,
    NETLINK_GENERIC,
    ask_kernel,
    attribute,
    generic,
    message,
    nest,
    only,
    u16,
    u32,
    u64,
)

ROWS = (attributes.u8(1, "A"),)
FAMILY = GenericFamily(
    name="ovpn-dco-v2",
    family_id=DCO,
    version=1,
    max_attribute=8,
    operations=(GenericOperation(1, ROWS), GenericOperation(7, ROWS, dump=ROWS)),
    groups=(("peers", 0xD80),),
)
BY_NAME = generic(0x10, 3, attribute(2, b"ovpn-dco-v2\0"))


# What the kernel's control family demands of those who ask it: two commands with a table each.
_BY_NAME_OR_ID = (attributes.u16(1, "FAMILY_ID"), attributes.Binary(2, "FAMILY_NAME", maximum=15))
_POLICY_QUESTION = (*_BY_NAME_OR_ID, attributes.u32(10, "OP"))
NLCTRL = GenericFamily(
    name="nlctrl",
    family_id=0x10,
    version=2,
    max_attribute=0,
    operations=(
        GenericOperation(3, _BY_NAME_OR_ID, dump=_BY_NAME_OR_ID, needs_admin=False),
        GenericOperation(10, None, dump=_POLICY_QUESTION, needs_admin=False),
    ),
    groups=(),
)


def test_openvpns_look_up_by_name_asks_for_family_the_family() -> None:
    assert asks_for_family(only(BY_NAME), FAMILY)


def test_a_look_up_by_id_asks_for_family_the_family() -> None:
    assert asks_for_family(only(generic(0x10, 3, u16(1, DCO))), FAMILY)


def test_the_name_prevails_over_the_id() -> None:
    assert not asks_for_family(only(generic(0x10, 3, u16(1, DCO), attribute(2, b"nlctrl\0"))), FAMILY)


def test_a_look_up_of_another_family_belongs_to_the_kernel() -> None:
    assert not asks_for_family(only(generic(0x10, 3, attribute(2, b"ovpn-dco-v3\0"))), FAMILY)
    assert not asks_for_family(only(generic(0x10, 3, u16(1, 0x10))), FAMILY)


def test_a_dump_of_all_families_belongs_to_the_kernel() -> None:
    assert not asks_for_family(only(generic(0x10, 3, attribute(2, b"ovpn-dco-v2\0"), flags=0x305)), FAMILY)


def test_another_command_belongs_to_the_kernel() -> None:
    assert not asks_for_family(only(generic(0x10, 10, attribute(2, b"ovpn-dco-v2\0"))), FAMILY)


def test_another_message_type_is_no_look_up() -> None:
    assert not asks_for_family(replace(only(BY_NAME), type=DCO), FAMILY)


def test_a_look_up_without_a_question_belongs_to_the_kernel() -> None:
    assert not asks_for_family(only(generic(0x10, 3)), FAMILY)
    assert not asks_for_family(only(message(0x10, 5, b"\3")), FAMILY)
    assert not asks_for_family(only(generic(0x10, 3, u32(1, DCO))), FAMILY)


@given(st.binary(max_size=60))
def test_any_bytes_are_about_a_family_or_not(body: bytes) -> None:
    assert asks_for_family(Message(0x10, 5, 1, bytes(16) + body), FAMILY) in {True, False}


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
    groups = attributes.payloads(attributes.payloads(told[7])[1])
    family = replace(
        NLCTRL,
        max_attribute=struct.unpack("=I", told[5])[0],
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


# Policies


def get_policy(*asked: bytes, flags: int = DUMP_ACK) -> Message:
    return only(generic(0x10, 10, *asked, flags=flags))


def policies(family: GenericFamily, question: PolicyQuestion, port_id: int = 42) -> bytes:
    return b"".join(build_policies(family, question, 7, port_id))


@pytest.mark.parametrize("asked", [attribute(2, b"ovpn-dco-v2\0"), u16(1, DCO)])
def test_a_question_for_all_policies_is_about_the_family(asked: bytes) -> None:
    assert asks_for_policy(get_policy(asked), FAMILY) == PolicyQuestion(None)


def test_a_question_for_the_policy_of_one_command_names_it() -> None:
    assert asks_for_policy(get_policy(u16(1, DCO), u32(10, 7)), FAMILY) == PolicyQuestion(7)


@pytest.mark.parametrize(
    "question",
    [
        pytest.param(get_policy(attribute(2, b"nlctrl\0")), id="another family"),
        pytest.param(get_policy(u16(1, 0x10), attribute(2, b"ovpn-dco-v2\0")), id="an id, which prevails"),
        pytest.param(get_policy(u16(1, DCO), flags=0x5), id="no dump, which the kernel refuses"),
        pytest.param(get_policy(u16(1, DCO), u16(10, 7)), id="a command of another size, which the kernel refuses"),
        pytest.param(get_policy(u16(1, DCO), u32(99, 7)), id="an unknown attribute, which the kernel refuses"),
        pytest.param(get_policy(), id="no family"),
        pytest.param(only(generic(0x10, 3, u16(1, DCO), flags=DUMP_ACK)), id="another command"),
    ],
)
def test_other_questions_for_policies_belong_to_the_kernel(question: Message) -> None:
    assert asks_for_policy(question, FAMILY) is None


@pytest.mark.parametrize(("asked", "command"), [((), None), ((u32(10, 3),), 3), ((u32(10, 10),), 10)])
def test_policies_are_byte_for_byte_the_kernels_for_a_family_of_the_kernel(
    asked: tuple[bytes, ...], command: int | None
) -> None:
    answer, port_id = ask_kernel(NETLINK_GENERIC, generic(0x10, 10, attribute(2, b"nlctrl\0"), *asked, flags=DUMP_ACK))
    done = struct.pack("=IHHIIi", 20, 3, 2, 7, port_id, 0)
    # Of two things no family of ours has: text ended by NUL (12) is binary (10) to us, and where the kernel gives a
    # command that can only dump the number 0, we give its own.
    expected = answer.replace(u32(1, 12), u32(1, 10)).replace(nest(0, u32(2, 1)), nest(10, u32(2, 1)))
    expected = expected.replace(nest(0, u32(2, 0)), nest(10, u32(2, 0))).removesuffix(done)
    assert policies(NLCTRL, PolicyQuestion(command), port_id) == expected


def test_policies_of_nested_tables_are_numbered_and_named_by_their_nests() -> None:
    inner = (attributes.Binary(1, "KEY", minimum=8, maximum=8),)
    table = (
        attributes.be16(3, "PORT", minimum=1),  # told by nobody, as in the kernel
        attributes.Nest(2, "NEST", inner),
        attributes.u32(1, "INDEX", maximum=9),
        attributes.VariableInteger(4, "COUNT"),
        attributes.s32(5, "NETNSID"),
    )
    family = replace(FAMILY, operations=(GenericOperation(1, table),))
    told = [only(one).body[4:] for one in build_policies(family, PolicyQuestion(None), 7, 42)]
    largest = (1 << 64) - 1
    rows = [
        (0, 1, u64(4, 0) + u64(5, 9) + u32(1, 4)),
        (0, 2, u32(8, 1) + u32(9, 1) + u32(1, 13)),
        (0, 4, u64(4, 0) + u64(5, largest) + u32(1, 17)),
        (0, 5, attribute(2, struct.pack("=q", -(1 << 31))) + u64(3, (1 << 31) - 1) + u32(1, 8)),
        (1, 1, u32(6, 8) + u32(7, 8) + u32(1, 10)),
    ]
    expected = [nest(9, nest(1, u32(1, 0))), *(nest(8, nest(index, nest(row, told))) for index, row, told in rows)]
    assert told == [u16(1, DCO) + one for one in expected]
