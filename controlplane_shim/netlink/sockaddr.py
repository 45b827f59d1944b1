"""struct sockaddr_in and sockaddr_in6 as netlink attributes carry them.

Knows their layouts on Linux (include/uapi/linux/in.h, in6.h). Must not know what they address.
"""

from __future__ import annotations

import struct
from errno import EINVAL
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from controlplane_shim.netlink.attributes import Malformed
from controlplane_shim.operations import Remote

AF_INET: Final = 2
AF_INET6: Final = 10

_FAMILY: Final = struct.Struct("=H")  # the family alone is in host byte order
_REST_IN: Final = struct.Struct(">H4s8x")  # port, address, zeros
_REST_IN6: Final = struct.Struct(">H4x16s")  # port, flow information, address
_SCOPE: Final = struct.Struct("=I")

_SIZE_IN: Final = _FAMILY.size + _REST_IN.size
_SIZE_IN6: Final = _FAMILY.size + _REST_IN6.size + _SCOPE.size


def unmap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address behind a v4-mapped one; any other as it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def unpack_address(packed: bytes) -> IPv4Address | IPv6Address:
    """An address from 4 or 16 bytes, unmapped. Raises Malformed (EINVAL) for any other length."""
    match len(packed):
        case 4:
            return IPv4Address(packed)
        case 16:
            return unmap(IPv6Address(packed))
        case length:
            raise Malformed(EINVAL, f"an address of {length} bytes")


def unpack(sockaddr: bytes) -> Remote:
    """Exactly a sockaddr_in (16 bytes) or a sockaddr_in6 (28). A v4-mapped address becomes IPv4, as in the driver.

    Raises Malformed (EINVAL) for any other size or family. Shorter than 2 bytes must not come.
    """
    family = _FAMILY.unpack_from(sockaddr)[0]
    if family == AF_INET and len(sockaddr) == _SIZE_IN:
        port, packed = _REST_IN.unpack_from(sockaddr, _FAMILY.size)
        return Remote(unpack_address(packed), port)
    if family == AF_INET6 and len(sockaddr) == _SIZE_IN6:
        port, packed = _REST_IN6.unpack_from(sockaddr, _FAMILY.size)
        address = unpack_address(packed)
        scope_id = _SCOPE.unpack_from(sockaddr, _FAMILY.size + _REST_IN6.size)[0]
        return Remote(address, port, scope_id if isinstance(address, IPv6Address) else 0)
    raise Malformed(EINVAL, f"a socket address of family {family} and {len(sockaddr)} bytes")


def pack(remote: Remote) -> bytes:
    """A sockaddr_in or sockaddr_in6, by the family of the address."""
    if isinstance(remote.address, IPv4Address):
        return _FAMILY.pack(AF_INET) + _REST_IN.pack(remote.port, remote.address.packed)
    return _FAMILY.pack(AF_INET6) + _REST_IN6.pack(remote.port, remote.address.packed) + _SCOPE.pack(remote.scope_id)
