"""What a send call hands to the kernel: sendmsg, sendto, write and writev taken apart.

Knows struct msghdr, iovec and sockaddr_nl on 64-bit machines. Must not know sockets or netlink messages: memory is
read through a Protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_VECTORS = 1024  # UIO_MAXIOV
MAX_DATAGRAM = 256 * 1024

_AF_NETLINK = 16
_MSGHDR = struct.Struct("=QI4xQQ24x")  # msg_name, msg_namelen, msg_iov, msg_iovlen; control and flags are not looked at
_IOVEC = struct.Struct("=QQ")  # iov_base, iov_len
_SOCKADDR_NL = struct.Struct("=H2xII")  # nl_family, nl_pid, nl_groups
_INT = 0xFFFFFFFF


class Memory(Protocol):
    """The caller's memory."""

    def read(self, address: int, length: int) -> bytes:
        """Exactly length bytes. Raises OSError."""


class Malformed(Exception):
    """The kernel itself would refuse this, or it is larger than anything that is served."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A datagram and the (port id, groups) it is addressed to; None: to where the socket is connected."""

    datagram: bytes
    destination: tuple[int, int] | None


def of_sendmsg(memory: Memory, arguments: Sequence[int]) -> Outgoing:
    """sendmsg(fd, msghdr, flags). Raises Malformed, or OSError from the memory."""
    name, name_length, vectors, count = _MSGHDR.unpack(memory.read(arguments[1], _MSGHDR.size))
    return Outgoing(_gather(memory, vectors, count), _destination(memory, name, name_length))


def of_sendto(memory: Memory, arguments: Sequence[int]) -> Outgoing:
    """sendto(fd, buffer, length, flags, address, address length). Raises Malformed, or OSError from the memory."""
    _fd, buffer, length, _flags, name, name_length = arguments
    return Outgoing(_read(memory, buffer, length), _destination(memory, name, name_length & _INT))


def of_write(memory: Memory, arguments: Sequence[int]) -> Outgoing:
    """write(fd, buffer, length). Raises Malformed, or OSError from the memory."""
    return Outgoing(_read(memory, arguments[1], arguments[2]), None)


def of_writev(memory: Memory, arguments: Sequence[int]) -> Outgoing:
    """writev(fd, vectors, count). Raises Malformed, or OSError from the memory."""
    return Outgoing(_gather(memory, arguments[1], arguments[2]), None)


def _gather(memory: Memory, vectors: int, count: int) -> bytes:
    if count > MAX_VECTORS:
        raise Malformed
    pieces = list(_IOVEC.iter_unpack(memory.read(vectors, count * _IOVEC.size)))
    if sum(length for _base, length in pieces) > MAX_DATAGRAM:
        raise Malformed
    return b"".join(memory.read(base, length) for base, length in pieces)


def _read(memory: Memory, buffer: int, length: int) -> bytes:
    if length > MAX_DATAGRAM:
        raise Malformed
    return memory.read(buffer, length)


def _destination(memory: Memory, name: int, length: int) -> tuple[int, int] | None:
    if not name or not length:
        return None
    if length < _SOCKADDR_NL.size:
        raise Malformed
    family, port_id, groups = _SOCKADDR_NL.unpack(memory.read(name, _SOCKADDR_NL.size))
    if family != _AF_NETLINK:
        raise Malformed
    return port_id, groups
