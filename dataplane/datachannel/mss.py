"""The MSS option of TCP (RFC 9293, 3.7.1; RFC 6691), lowered in the packets that open a connection.

Knows where the option stands behind an IPv4 or IPv6 header, and how a checksum follows a change (RFC 1624). Must not
know peers or directions. Packets are hostile: whatever is not whole stays as it is, nothing is read beyond the end.

The option says how much its sender wants to receive in a segment, so lowering it in both directions keeps all segments
of a connection small enough for the tunnel. It stands in segments with SYN only. It is never raised and never added:
without one a host sends no more than 536 bytes over IPv4, 1220 over IPv6.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_TCP: Final = 6
_IPV4_SIZE: Final = 20
_IPV6_SIZE: Final = 40
_TCP_SIZE: Final = 20  # without options
_TCP_OFFSET: Final = 12  # bytes into the TCP header, as the next two
_TCP_FLAGS: Final = 13
_TCP_CHECKSUM: Final = 16
_SYN: Final = 0x02
_FRAGMENT_OFFSET: Final = 0x1FFF

_IPV6_EXTENSIONS: Final = frozenset({0, 43, 60})
"""Hop-by-hop options, routing, destination options: all that may stand before TCP in a packet that is no fragment."""

_END: Final = 0
_NO_OPERATION: Final = 1
_MSS: Final = 2
_MSS_SIZE: Final = 4  # kind, length, value of two bytes


class MssLimits(NamedTuple):
    """The most that the option may say, in bytes; 0: anything."""

    ipv4: int = 0
    ipv6: int = 0


OwnLimits = tuple[int | None, int | None]
"""Limits of a peer for IPv4 and IPv6; None: the device's."""


def limits_of(own: OwnLimits, device: MssLimits) -> MssLimits:
    """What holds for a peer."""
    return MssLimits(*(device[at] if limit is None else limit for at, limit in enumerate(own)))


def clamped(packet: bytes, limits: MssLimits) -> bytes:
    """The packet, with the option lowered if it says more. Its checksum stays as right or wrong as it was."""
    if not (limits.ipv4 or limits.ipv6) or not packet:
        return packet
    is_ipv4 = packet[0] >> 4 == 4
    limit = limits.ipv4 if is_ipv4 else limits.ipv6
    transport = _tcp_in_ipv4(packet) if is_ipv4 else _tcp_in_ipv6(packet)
    if not limit or not transport or transport + _TCP_SIZE > len(packet) or not packet[transport + _TCP_FLAGS] & _SYN:
        return packet
    end = transport + 4 * (packet[transport + _TCP_OFFSET] >> 4)
    if end > len(packet):
        return packet
    changed = bytearray(packet)
    at = transport + _TCP_SIZE
    while at + _MSS_SIZE <= end and packet[at] != _END:
        if packet[at] == _NO_OPERATION:
            at += 1
            continue
        size = packet[at + 1]
        if size < 2:
            break
        if packet[at] == _MSS and size == _MSS_SIZE:
            _lower(changed, transport, at + 2, limit)
        at += size
    return bytes(changed)


def _tcp_in_ipv4(packet: bytes) -> int:
    """Where the TCP header begins; 0: there is none."""
    if len(packet) < _IPV4_SIZE or packet[9] != _TCP or _get16(packet, 6) & _FRAGMENT_OFFSET:
        return 0
    size = 4 * (packet[0] & 0xF)
    return size if size >= _IPV4_SIZE else 0


def _tcp_in_ipv6(packet: bytes) -> int:
    """Where the TCP header begins; 0: there is none."""
    if len(packet) < _IPV6_SIZE:
        return 0
    kind, at = packet[6], _IPV6_SIZE
    while kind in _IPV6_EXTENSIONS:
        if at + 2 > len(packet):
            return 0
        kind, at = packet[at], at + 8 * (packet[at + 1] + 1)
    return at if kind == _TCP else 0


def _lower(packet: bytearray, transport: int, at: int, limit: int) -> None:
    old = _get16(packet, at)
    if old <= limit:
        return
    packet[at : at + 2] = limit.to_bytes(2, "big")
    # RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). At an odd place each byte counts in the other half of a word.
    new = limit
    if at % 2:
        old, new = _swapped(old), _swapped(new)
    total = (_get16(packet, transport + _TCP_CHECKSUM) ^ 0xFFFF) + (old ^ 0xFFFF) + new
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    packet[transport + _TCP_CHECKSUM : transport + _TCP_CHECKSUM + 2] = (total ^ 0xFFFF).to_bytes(2, "big")


def _get16(packet: bytes | bytearray, at: int) -> int:
    return int.from_bytes(packet[at : at + 2], "big")


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8
