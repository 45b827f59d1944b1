"""UDP endpoints in two forms: packed (address, port, scope id), and the tuples of the socket module.

Knows address families and v4-mapped IPv6 addresses (RFC 4291, 2.5.5.2), under which an AF_INET6 socket sees
IPv4. Must not know sockets. An IPv4 address has one form on each family of socket, so addresses can be
compared as they are.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final

SockAddr = tuple[str, int] | tuple[str, int, int, int]
"""(host, port) of AF_INET, (host, port, flow info, scope id) of AF_INET6."""

_MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"


class AddressFamilyMismatch(Exception):
    """A socket of this family cannot reach such an address."""


def pack_address(address: bytes, family: int) -> bytes:
    """Brings a packed address of 4 or 16 bytes into the form that a socket of this family uses.

    Raises AddressFamilyMismatch for IPv6 on AF_INET and ValueError for another length.
    """
    if len(address) not in {4, 16}:
        raise ValueError(f"an address of {len(address)} bytes")
    address = unmap(address)
    if family == AF_INET6:
        return address if len(address) == 16 else _MAPPED_PREFIX + address
    if len(address) == 16:
        raise AddressFamilyMismatch("an IPv6 address on an IPv4 socket")
    return address


def unmap(address: bytes) -> bytes:
    """Makes a v4-mapped address plain IPv4; gives others back as they are."""
    return address.removeprefix(_MAPPED_PREFIX) if len(address) == 16 else address


def to_sockaddr(address: bytes, port: int, scope_id: int, family: int) -> SockAddr:
    """Makes the tuple for a socket of this family.

    Raises as pack_address, and ValueError for a port outside 1..65535 or a scope id outside 0..2^32-1.
    """
    if not 1 <= port <= 0xFFFF or not 0 <= scope_id <= 0xFFFFFFFF:
        raise ValueError(f"no endpoint: port {port}, scope id {scope_id}")
    host = inet_ntop(family, pack_address(address, family))
    return (host, port) if family == AF_INET else (host, port, 0, scope_id)


def from_sockaddr(sockaddr: SockAddr) -> tuple[bytes, int, int]:
    """Takes such a tuple apart: packed address (v4-mapped made plain IPv4), port, scope id or 0."""
    if len(sockaddr) == 2:
        return inet_pton(AF_INET, sockaddr[0]), sockaddr[1], 0
    host, port, _, scope_id = sockaddr
    return unmap(inet_pton(AF_INET6, host)), port, scope_id
