"""The control family of generic netlink: who asks for a family, and the answer.

Knows CTRL_CMD_GETFAMILY and CTRL_CMD_NEWFAMILY (include/uapi/linux/genetlink.h). Must not know what the families do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controlplane_shim.netlink import attributes
from controlplane_shim.netlink.message import GENERIC_HEADER_BYTES, Message, build, generic_body

GENL_ID_CTRL: Final = 0x10
_CONTROL_VERSION: Final = 2
_NEWFAMILY: Final = 1
_GETFAMILY: Final = 3

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
_OPERATION_ID: Final = attributes.u32(1, "OP_ID")
_OPERATION_FLAGS: Final = attributes.u32(2, "OP_FLAGS")
_GROUP_NAME: Final = 1
_GROUP_ID: Final = attributes.u32(2, "MCAST_GRP_ID")


@dataclass(frozen=True, slots=True)
class GenericFamily:
    """How a family introduces itself.

    family_id: above 1023 (GENL_MAX_ID), so that the kernel gives it to nobody else.
    operations: number of each command and its GENL_ flags. groups: name of each multicast group and its number.
    """

    name: str
    family_id: int
    version: int
    max_attribute: int
    operations: tuple[tuple[int, int], ...]
    groups: tuple[tuple[str, int], ...]


def is_about(message: Message, family: GenericFamily) -> bool:
    """Whether a message is a CTRL_CMD_GETFAMILY for this family, by name or by id; as in the kernel the name prevails.

    Whatever is malformed is about no family of ours: the kernel knows best how to refuse it.
    """
    body = message.body
    if message.type != GENL_ID_CTRL or message.is_dump or len(body) < GENERIC_HEADER_BYTES or body[0] != _GETFAMILY:
        return False
    asked = attributes.payloads(body[GENERIC_HEADER_BYTES:])
    if _FAMILY_NAME in asked:
        return asked[_FAMILY_NAME].split(b"\0")[0] == family.name.encode()
    return attributes.build(_FAMILY_ID.number, asked.get(_FAMILY_ID.number, b"")) == _FAMILY_ID.encode(family.family_id)


def build_new_family(family: GenericFamily, seq: int, port_id: int) -> bytes:
    """CTRL_CMD_NEWFAMILY, with the attributes and in the order of ctrl_fill_info(). Its nests carry no nested flag."""
    operations = b"".join(
        attributes.build(index, _OPERATION_ID.encode(number) + _OPERATION_FLAGS.encode(flags))
        for index, (number, flags) in enumerate(family.operations, start=1)
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
