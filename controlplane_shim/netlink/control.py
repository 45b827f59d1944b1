"""The control family of generic netlink: who asks for a family or for what it demands, and the answers.

Knows CTRL_CMD_GETFAMILY, CTRL_CMD_NEWFAMILY and CTRL_CMD_GETPOLICY (include/uapi/linux/genetlink.h). Must not know
what the families do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controlplane_shim.netlink import attributes, policy
from controlplane_shim.netlink.attributes import NLA_F_NESTED
from controlplane_shim.netlink.message import GENERIC_HEADER_BYTES, NLM_F_MULTI, Message, build, generic_body
from controlplane_shim.netlink.policy import Table

GENL_ID_CTRL: Final = 0x10
_CONTROL_VERSION: Final = 2
_NEWFAMILY: Final = 1
_GETFAMILY: Final = 3
_GETPOLICY: Final = 10

GENL_ADMIN_PERM: Final = 0x1
GENL_CMD_CAP_DO: Final = 0x2
GENL_CMD_CAP_DUMP: Final = 0x4
GENL_CMD_CAP_HASPOL: Final = 0x8

_FAMILY_ID: Final = attributes.u16(1, "FAMILY_ID")
_FAMILY_NAME: Final = 2
_VERSION: Final = attributes.u32(3, "VERSION")
_HEADER_SIZE: Final = attributes.u32(4, "HDRSIZE")
_MAX_ATTRIBUTE: Final = attributes.u32(5, "MAXATTR")
_OPERATIONS: Final = 6
_GROUPS: Final = 7
_POLICY: Final = 8
_OPERATION_POLICY: Final = 9
_OPERATION: Final = attributes.u32(10, "OP")
_OPERATION_ID: Final = attributes.u32(1, "OP_ID")
_OPERATION_FLAGS: Final = attributes.u32(2, "OP_FLAGS")
_GROUP_NAME: Final = 1
_GROUP_ID: Final = attributes.u32(2, "MCAST_GRP_ID")
_POLICY_DO: Final = attributes.u32(1, "POLICY_DO")
_POLICY_DUMP: Final = attributes.u32(2, "POLICY_DUMP")


@dataclass(frozen=True, slots=True)
class GenericOperation:
    """A command as its family announces it.

    do, dump: its tables, None for what it cannot; needs_admin: whether it takes CAP_NET_ADMIN.
    """

    number: int
    do: Table | None
    dump: Table | None = None
    needs_admin: bool = True

    @property
    def flags(self) -> int:
        """Its GENL_ flags."""
        admin = GENL_ADMIN_PERM if self.needs_admin else 0
        can_do = GENL_CMD_CAP_DO if self.do is not None else 0
        can_dump = GENL_CMD_CAP_DUMP if self.dump is not None else 0
        return admin | can_do | can_dump | GENL_CMD_CAP_HASPOL


@dataclass(frozen=True, slots=True)
class GenericFamily:
    """How a family introduces itself.

    family_id: above 1023 (GENL_MAX_ID), so that the kernel gives it to nobody else. groups: name of each multicast
    group and its number.
    """

    name: str
    family_id: int
    version: int
    max_attribute: int
    operations: tuple[GenericOperation, ...]
    groups: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class PolicyQuestion:
    """CTRL_CMD_GETPOLICY. command: the one that is asked for, None for all."""

    command: int | None


def asks_for_family(message: Message, family: GenericFamily) -> bool:
    """Whether a message is a CTRL_CMD_GETFAMILY for this family, by name or by id; as in the kernel the name prevails.

    Whatever is malformed is about no family of ours: the kernel knows best how to refuse it.
    """
    asked = _control_attributes(message, _GETFAMILY, dump=False)
    if _FAMILY_NAME in asked:
        return _names(asked[_FAMILY_NAME], family)
    return _has_id(asked, family)


def asks_for_policy(message: Message, family: GenericFamily) -> PolicyQuestion | None:
    """The question of a CTRL_CMD_GETPOLICY for this family; here the id prevails, as in the kernel.

    None for everything else, and for what is malformed: the kernel refuses that.
    """
    asked = _control_attributes(message, _GETPOLICY, dump=True)
    is_ours = _has_id(asked, family) if _FAMILY_ID.number in asked else _names(asked.get(_FAMILY_NAME, b""), family)
    if not is_ours or not asked.keys() <= {_FAMILY_ID.number, _FAMILY_NAME, _OPERATION.number}:
        return None
    command = asked.get(_OPERATION.number)
    if command is None:
        return PolicyQuestion(None)
    return PolicyQuestion(int.from_bytes(command, sys.byteorder)) if len(command) == _OPERATION.size else None


def _control_attributes(message: Message, command: int, *, dump: bool) -> dict[int, bytes]:
    body = message.body
    if message.type != GENL_ID_CTRL or message.is_dump is not dump or len(body) < GENERIC_HEADER_BYTES:
        return {}
    return attributes.payloads(body[GENERIC_HEADER_BYTES:]) if body[0] == command else {}


def _names(payload: bytes, family: GenericFamily) -> bool:
    return payload.split(b"\0")[0] == family.name.encode()


def _has_id(asked: dict[int, bytes], family: GenericFamily) -> bool:
    return attributes.build(_FAMILY_ID.number, asked.get(_FAMILY_ID.number, b"")) == _FAMILY_ID.encode(family.family_id)


def build_new_family(family: GenericFamily, seq: int, port_id: int) -> bytes:
    """CTRL_CMD_NEWFAMILY, with the attributes and in the order of ctrl_fill_info(). Its nests carry no nested flag."""
    operations = b"".join(
        attributes.build(index, _OPERATION_ID.encode(operation.number) + _OPERATION_FLAGS.encode(operation.flags))
        for index, operation in enumerate(family.operations, start=1)
    )
    groups = b"".join(
        attributes.build(index, _GROUP_ID.encode(number) + attributes.string(_GROUP_NAME, name))
        for index, (name, number) in enumerate(family.groups, start=1)
    )
    body = (
        attributes.string(_FAMILY_NAME, family.name)
        + _FAMILY_ID.encode(family.family_id)
        + _VERSION.encode(family.version)
        + _HEADER_SIZE.encode(0)
        + _MAX_ATTRIBUTE.encode(family.max_attribute)
        + attributes.build(_OPERATIONS, operations)
        + attributes.build(_GROUPS, groups)
    )
    return build(GENL_ID_CTRL, 0, seq, port_id, generic_body(_NEWFAMILY, _CONTROL_VERSION, body))


def has_command(family: GenericFamily, command: int) -> bool:
    """Whether a family has a command; CTRL_CMD_GETPOLICY for one that it has not is refused with ENOENT."""
    return any(operation.number == command for operation in family.operations)


def build_policies(family: GenericFamily, question: PolicyQuestion, seq: int, port_id: int) -> Iterator[bytes]:
    """The messages of a dump of CTRL_CMD_GETPOLICY, as ctrl_dumppolicy() orders them.

    First one a command, which numbers its tables, then one a row of each table.
    """
    asked = [each for each in family.operations if question.command in {None, each.number}]
    tables = [table for each in asked for table in (each.do, each.dump) if table is not None]
    policies = policy.collect(tables)
    for each in asked:
        numbers = b"".join(
            row.encode(policy.index_of(policies, table))
            for row, table in ((_POLICY_DO, each.do), (_POLICY_DUMP, each.dump))
            if table is not None
        )
        told = attributes.build(each.number | NLA_F_NESTED, numbers)
        yield _policy_message(family, attributes.build(_OPERATION_POLICY | NLA_F_NESTED, told), seq, port_id)
    for row in policy.dump(policies):
        yield _policy_message(family, attributes.build(_POLICY | NLA_F_NESTED, row), seq, port_id)


def _policy_message(family: GenericFamily, told: bytes, seq: int, port_id: int) -> bytes:
    body = generic_body(_GETPOLICY, _CONTROL_VERSION, _FAMILY_ID.encode(family.family_id) + told)
    return build(GENL_ID_CTRL, NLM_F_MULTI, seq, port_id, body)
