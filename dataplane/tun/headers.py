"""What splitting and merging read and set in IP, TCP and UDP headers (RFC 791, 8200, 9293, 768).

Knows where the fields stand. Must not know when to set them.
"""

from __future__ import annotations

from typing import Final

from dataplane.tun.checksum import checksum, pseudo_header, transport_checksum

TCP: Final = 6
UDP: Final = 17

IPV4_SIZE: Final = 20
"""Without options."""
IPV6_SIZE: Final = 40
TCP_SIZE: Final = 20
"""Without options."""
UDP_SIZE: Final = 8

TCP_FLAGS: Final = 13
"""Where a TCP header has its flags."""
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
CWR: Final = 0x80

CSUM_OFFSET: Final = {TCP: 16, UDP: 6}
"""Where a transport header has its checksum."""


def get16(data: bytes | bytearray, at: int) -> int:
    """The 16-bit number at a place."""
    return int.from_bytes(data[at : at + 2], "big")


def get32(data: bytes | bytearray, at: int) -> int:
    """The 32-bit number at a place."""
    return int.from_bytes(data[at : at + 4], "big")


def put16(data: bytearray, at: int, value: int) -> None:
    """Writes the low 16 bits of a number."""
    data[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")


def put32(data: bytearray, at: int, value: int) -> None:
    """Writes the low 32 bits of a number."""
    data[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "big")


def ipv4_header_size(packet: bytes | bytearray) -> int:
    """Bytes of an IPv4 header, as it says itself."""
    return 4 * (packet[0] & 0x0F)


def tcp_header_size(packet: bytes | bytearray, transport: int) -> int:
    """Bytes of the TCP header that begins at `transport`, as it says itself."""
    return 4 * (packet[transport + 12] >> 4)


def set_ip_length(packet: bytearray) -> None:
    """Brings the IP header in step with the packet: its length, and for IPv4 the checksum of the header."""
    if packet[0] >> 4 == 6:
        put16(packet, 4, len(packet) - IPV6_SIZE)
        return
    put16(packet, 2, len(packet))
    put16(packet, 10, 0)
    put16(packet, 10, checksum(packet[: ipv4_header_size(packet)]))


def set_transport_checksum(packet: bytearray, protocol: int, transport: int) -> None:
    """Computes the checksum of the TCP or UDP part that begins at `transport` and goes to the end."""
    field = transport + CSUM_OFFSET[protocol]
    put16(packet, field, 0)
    pseudo = pseudo_header(packet, protocol, len(packet) - transport)
    put16(packet, field, transport_checksum(pseudo + packet[transport:]))
