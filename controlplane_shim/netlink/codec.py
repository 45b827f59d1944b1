"""What every family of ours has: its commands, how a request is taken apart, and who writes its answers.

Knows the order in which generic netlink and the drivers check a request, up to the command's own nest. Must not know
the commands of a family; ovpn_dco_v2/ and ovpn/ fill this in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EINVAL, ENODEV, EOPNOTSUPP, EPERM
from typing import Final

from controlplane_shim.netlink.attributes import Attributes, Malformed, Nest, parse, u32
from controlplane_shim.netlink.control import GenericFamily
from controlplane_shim.netlink.message import (
    GENERIC_HEADER_BYTES,
    HEADER_BYTES,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_ECHO,
    NLM_F_REQUEST,
    Message,
)
from controlplane_shim.operations import DumpPeers, KeyInfo, PeerInfo, PeerNotice, PeerOperation

IFINDEX: Final = u32(1, "IFINDEX")
"""The first attribute of every request and notice of both families."""

PEER_ID_UNDEF: Final = 0xFFFFFF
"""Means "undefined" on the wire. The drivers take such a peer, which can then be confused with none."""

FD_MAX: Final = 0x7FFFFFFF
_KEY_LENGTHS: Final[Mapping[int, tuple[int, ...]]] = {
    1: (16, 24, 32),  # AES-GCM
    2: (32,),  # ChaCha20-Poly1305
}

Decode = Callable[[int, Attributes, bool], PeerOperation]
"""Makes an operation of ifindex, the command's nest and whether the device is MP. Raises Malformed."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A family. kind: of its links in rtnetlink.

    commands: by number, the nest that each demands and what makes an operation of it. strict_header: whether bits that
    mean nothing in flags and header are refused, as in families made after Linux 6.1. build_peer takes a peer, message
    flags, sequence number and port id; build_key likewise, without flags, None if the family never tells of a key;
    build_notice gives None for what the family has no word for.
    """

    introduction: GenericFamily
    kind: str
    commands: Mapping[int, tuple[Nest, Decode]]
    strict_header: bool
    build_peer: Callable[[PeerInfo, int, int, int], bytes]
    build_key: Callable[[KeyInfo, int, int], bytes] | None
    build_notice: Callable[[PeerNotice], bytes | None]


def decode(message: Message, codec: Codec, modes: Mapping[int, bool], *, is_admin: bool) -> PeerOperation:
    """The operation that a request asks for. modes: whether a device is MP, by ifindex, for the family's devices.

    is_admin: whether the asker has CAP_NET_ADMIN. Raises Malformed with the driver's errno: EOPNOTSUPP for an unknown
    command, EPERM for an asker that may not give it, EINVAL or ERANGE by the tables, ENODEV for an interface that is no
    device of the family.
    """
    body = message.body
    if len(body) < GENERIC_HEADER_BYTES:
        raise Malformed(EINVAL, "no generic netlink header")
    if codec.strict_header:
        _check_header(message)
    command = body[0]
    operation = next((each for each in codec.introduction.operations if each.number == command), None)
    table = None if operation is None else operation.dump if message.is_dump else operation.do
    if operation is None or table is None:
        raise Malformed(EOPNOTSUPP, f"command {command} is unknown or cannot dump")
    if operation.needs_admin and not is_admin:
        raise Malformed(EPERM, f"command {command} takes CAP_NET_ADMIN")
    top = parse(body[GENERIC_HEADER_BYTES:], table, HEADER_BYTES + GENERIC_HEADER_BYTES)
    ifindex = top.require(IFINDEX)
    if ifindex not in modes:
        text = f"interface {ifindex} is no {codec.kind} device of this session"
        raise Malformed(ENODEV, text, fault=top.fault(IFINDEX))
    if message.is_dump:
        return DumpPeers(ifindex)
    nest, decode_nest = codec.commands[command]
    return decode_nest(ifindex, top.require(nest), modes[ifindex])


def check_keys(cipher: int, encrypt: bytes, decrypt: bytes) -> None:
    """Refuses what no cipher takes. Raises Malformed (EINVAL)."""
    if cipher not in _KEY_LENGTHS:
        raise Malformed(EINVAL, "unsupported cipher")
    if len(encrypt) not in _KEY_LENGTHS[cipher] or len(decrypt) != len(encrypt):
        raise Malformed(EINVAL, f"CIPHER_KEYs of {len(encrypt)} and {len(decrypt)} bytes")


def _check_header(message: Message) -> None:
    """As genl_header_check()."""
    if any(message.body[2:GENERIC_HEADER_BYTES]):
        sentence = "genlmsghdr.reserved field is not 0"
        raise Malformed(EINVAL, sentence, sentence)
    meaningful = NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO | (NLM_F_DUMP if message.is_dump else 0)
    if message.flags & ~meaningful:
        sentence = "ambiguous or reserved bits set in nlmsg_flags"
        raise Malformed(EINVAL, sentence, sentence)
