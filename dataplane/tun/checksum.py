"""The Internet checksum (RFC 1071) and the pseudo header that TCP and UDP add to it (RFC 9293, 3.1; RFC 8200, 8.1).

Knows sums. Must not know where in a packet they stand.

A checksum is the complement of the ones' complement sum of 16-bit words. That sum is the remainder modulo 0xffff of the
bytes read as one number, since 0x10000 leaves 1.
"""

from __future__ import annotations


def folded_sum(data: bytes | bytearray) -> int:
    """The ones' complement sum, 0..0xffff, not complemented; an odd last byte is the high half of a word.

    0 only if all bytes are 0: adding words with end-around carry never comes back to 0. Data that contain their own
    correct checksum give 0xffff.
    """
    number = int.from_bytes(data, "big") << (8 * (len(data) % 2))
    return (number - 1) % 0xFFFF + 1 if number else 0


def checksum(data: bytes | bytearray) -> int:
    """The checksum of these bytes, in which the checksum field must be 0 (or hold a sum to be taken along)."""
    return folded_sum(data) ^ 0xFFFF


def transport_checksum(data: bytes | bytearray) -> int:
    """The checksum as TCP and UDP store it: never 0, which in UDP means "none"; 0xffff is the same number."""
    return checksum(data) or 0xFFFF


def pseudo_header(packet: bytes | bytearray, protocol: int, length: int) -> bytes:
    """Addresses of an IPv4 or IPv6 packet (whose version stands in it), protocol and transport length in bytes."""
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    # IPv4 and IPv6 arrange the two numbers differently; to the sum that is the same.
    return bytes(addresses) + protocol.to_bytes(2, "big") + length.to_bytes(2, "big")
