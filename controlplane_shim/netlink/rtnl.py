"""rtnetlink: the creation of a link of a kind of ours.

Knows RTM_NEWLINK (include/uapi/linux/if_link.h) and IFLA_OVPN_MODE. Must not know how a device is made.
rtnetlink is older than strict validation: nested flags, unknown attributes and bytes left over do not matter in it.
"""

from __future__ import annotations

import struct
from errno import EINVAL, EOPNOTSUPP, ERANGE
from typing import Final

from controlplane_shim.netlink import attributes
from controlplane_shim.netlink.attributes import Malformed
from controlplane_shim.netlink.message import NLM_F_CREATE, Message
from controlplane_shim.operations import NewLink

_RTM_NEWLINK: Final = 16
_IFINFO: Final = struct.Struct("=BxHiII")  # address family, link type, index, flags, change mask
_IFNAME: Final = 3
_LINKINFO: Final = 18
_INFO_KIND: Final = 1
_INFO_DATA: Final = 2
_OVPN_MODE: Final = 1
_MODE_MP: Final = 1
_IFNAMSIZ: Final = 16


def kind_of(message: Message) -> str | None:
    """The kind of the link that a message creates; None for everything that is no creation, or names no kind."""
    body = message.body
    if message.type != _RTM_NEWLINK or not message.flags & NLM_F_CREATE or len(body) < _IFINFO.size:
        return None
    info = attributes.payloads(attributes.payloads(body[_IFINFO.size :]).get(_LINKINFO, b""))
    return info.get(_INFO_KIND, b"").split(b"\0")[0].decode(errors="replace") or None


def decode(message: Message, kind: str) -> NewLink:
    """The creation of a link, of the kind that kind_of() gave.

    Raises Malformed: ERANGE or EINVAL for a mode or name that the kernel would refuse, EOPNOTSUPP for a request
    that asks for more than a name and a mode (an index, flags, another network namespace, …), which cannot be given.
    """
    body = message.body
    link = attributes.payloads(body[_IFINFO.size :])
    info = attributes.payloads(link.pop(_LINKINFO, b""))
    name = _interface_name(link.pop(_IFNAME, b""))
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    if link or index or flags:
        raise Malformed(EOPNOTSUPP, "a link can be given a name and a mode only")
    return NewLink(name, kind, _is_multipeer(info.get(_INFO_DATA, b"")))


def _interface_name(payload: bytes) -> str:
    """A name as dev_valid_name() has it."""
    name = payload.split(b"\0")[0]
    if len(name) >= _IFNAMSIZ:
        raise Malformed(ERANGE, "the interface name is too long")
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise Malformed(EINVAL, "the interface name is not UTF-8") from error
    if text in {"", ".", ".."} or any(character in "/:" or character.isspace() for character in text):
        raise Malformed(EINVAL, f"{text!r} is no interface name")
    return text


def _is_multipeer(data: bytes) -> bool:
    mode = attributes.payloads(data).get(_OVPN_MODE)
    if mode is None:
        return False
    if not mode or mode[0] > _MODE_MP:
        raise Malformed(ERANGE, f"mode {mode.hex()} is neither P2P nor MP")
    return mode[0] == _MODE_MP
