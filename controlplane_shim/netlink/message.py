"""Netlink messages: a datagram split into them, built, and acknowledged.

Knows struct nlmsghdr and struct nlmsgerr (include/uapi/linux/netlink.h) and struct genlmsghdr (genetlink.h).
Must not know attributes (attributes.py), families or sockets. All integers are in host byte order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

NLMSG_NOOP: Final = 1
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

NLM_F_REQUEST: Final = 0x1
NLM_F_MULTI: Final = 0x2
NLM_F_ACK: Final = 0x4
NLM_F_ECHO: Final = 0x8
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400

GENERIC_HEADER_BYTES: Final = 4

HEADER_BYTES: Final = 16

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence number, port id
_GENERIC_HEADER: Final = struct.Struct("=BBH")  # command, version, reserved
_ERRNO: Final = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was sent. Its bytes may hold keys, so they stay out of the repr.

    raw: header and body, without the padding that follows.
    """

    type: int
    flags: int
    seq: int
    raw: bytes = field(repr=False)

    @property
    def body(self) -> bytes:
        """What follows the 16 bytes of the header."""
        return self.raw[HEADER_BYTES:]

    @property
    def is_dump(self) -> bool:
        """Whether both bits of NLM_F_DUMP are set; one alone means something else."""
        return self.flags & NLM_F_DUMP == NLM_F_DUMP


def padding(length: int) -> int:
    """Bytes from length to the next multiple of 4 (NLMSG_ALIGN and NLA_ALIGN)."""
    return -length % 4


def split(datagram: bytes) -> list[Message]:
    """The messages of a datagram; as netlink_rcv_skb() does, it stops without a word at the first bad length."""
    messages = []
    offset = 0
    while len(datagram) - offset >= _HEADER.size:
        length, type_, flags, seq, _ = _HEADER.unpack_from(datagram, offset)
        if not _HEADER.size <= length <= len(datagram) - offset:
            break
        messages.append(Message(type_, flags, seq, datagram[offset : offset + length]))
        offset += length + padding(length)
    return messages


def build_wake() -> bytes:
    """What its reader skips: a message without meaning (NLMSG_NOOP), which nobody asked for."""
    return build(NLMSG_NOOP, 0, 0, 0)


def build(type_: int, flags: int, seq: int, port_id: int, body: bytes = b"") -> bytes:
    """A message, padded to 4 bytes. port_id: of the asker, 0 in a message that nobody asked for."""
    header = _HEADER.pack(_HEADER.size + len(body), type_, flags, seq, port_id)
    return header + body + bytes(padding(len(body)))


def generic_body(command: int, version: int, attributes: bytes) -> bytes:
    """The body of a message of generic netlink."""
    return _GENERIC_HEADER.pack(command, version, 0) + attributes


@dataclass(frozen=True, slots=True)
class AckOptions:
    """What a socket has asked for in its acknowledgements, by setsockopt.

    extended: NETLINK_EXT_ACK, attributes that explain an error; capped: NETLINK_CAP_ACK, no copy of the request.
    """

    extended: bool = False
    capped: bool = False


PLAIN_ACKS: Final = AckOptions()
"""What a socket gets that has asked for nothing."""


def build_error(
    request: bytes, port_id: int, errno: int, options: AckOptions = PLAIN_ACKS, explanation: bytes = b""
) -> bytes:
    """NLMSG_ERROR about a request, as netlink_ack() builds it.

    errno 0 acknowledges and repeats only the request's header; a positive one repeats the whole request unless the
    socket wants it capped, and the length then includes its padding. explanation: attributes (extack.py), which only
    a socket that wants them gets.
    """
    seq = _HEADER.unpack_from(request)[3]
    capped = not errno or options.capped
    flags = NLM_F_CAPPED if capped else 0
    repeated = request[:HEADER_BYTES] if capped else request + bytes(padding(len(request)))
    if explanation and options.extended:
        flags |= NLM_F_ACK_TLVS
        repeated += explanation
    return build(NLMSG_ERROR, flags, seq, port_id, _ERRNO.pack(-errno) + repeated)


def build_done(seq: int, port_id: int) -> bytes:
    """NLMSG_DONE: the end of a dump that succeeded."""
    return build(NLMSG_DONE, NLM_F_MULTI, seq, port_id, _ERRNO.pack(0))
