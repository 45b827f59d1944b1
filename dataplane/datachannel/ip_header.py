"""The facts that are read off an inner packet: where it comes from, where it goes, and how it wants to be treated.

Knows the fixed part of the IPv4 (RFC 791) and IPv6 (RFC 8200) header. Must not know anything behind it.
"""

from __future__ import annotations

from typing import Final

_IPV4_SIZE: Final = 20
_IPV6_SIZE: Final = 40


def source_of(packet: bytes) -> bytes | None:
    """The packed source address (4 or 16 bytes); None if the packet has no whole IPv4 or IPv6 header."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _IPV4_SIZE:
        return packet[12:16]
    if version == 6 and len(packet) >= _IPV6_SIZE:
        return packet[8:24]
    return None


def destination_of(packet: bytes) -> bytes | None:
    """The packed destination address (4 or 16 bytes); None if the packet has no whole IPv4 or IPv6 header."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _IPV4_SIZE:
        return packet[16:20]
    if version == 6 and len(packet) >= _IPV6_SIZE:
        return packet[24:40]
    return None


def dscp_of(packet: bytes) -> int:
    """The DSCP in the place it has in the TOS (RFC 2474), ECN bits zero; 0 if the packet has no whole header."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _IPV4_SIZE:
        return packet[1] & 0xFC
    if version == 6 and len(packet) >= _IPV6_SIZE:
        return (packet[0] << 4 | packet[1] >> 4) & 0xFC
    return 0
