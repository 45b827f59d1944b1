"""Puts a control packet that reached the data plane's socket into OpenVPN's, as if it came straight from its sender.

It is built anew as an IP packet with the sender's address and port, and sent by a raw socket to the local address
that it had come to. The kernel delivers it over `lo`, with the route of the sending side, so that neither rp_filter
nor the check for martian sources is asked, and a receiver is told the interface that has the local address. Knows
IPv4, IPv6 and UDP headers, and the datagrams of a control outlet (AdoptSocketRequest.control_token in socket.proto).
Must not know who receives, but for the port.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from errno import EADDRNOTAVAIL
from typing import Final

from controlplane_shim.conntrack import ConnectionTracking

HEADER_BYTES: Final = 40
LONGEST_DATAGRAM: Final = HEADER_BYTES + 0xFFFF

_OUTLET_HEADER: Final = struct.Struct("!BxHI16s16s")  # version, port, scope id, source, local address
_MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"
_UNKNOWN: Final = bytes(16)

_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_UDP: Final = struct.Struct("!HHHH")
_PSEUDO_TAIL: Final = struct.Struct("!II")  # length, protocol: as of IPv6 (RFC 8200, 8.1), with the same sum for IPv4
_HOPS: Final = 64
_DONT_FRAGMENT: Final = 0x4000


@dataclass(frozen=True, slots=True)
class ControlPacket:
    """A UDP payload with where it came from and went to. Addresses of 4 bytes (version 4) or 16 (version 6).

    scope_id: interface index of a link-local source, 0 for none.
    """

    version: int
    source: bytes
    source_port: int
    scope_id: int
    local: bytes
    payload: bytes


def decode(datagram: bytes) -> ControlPacket:
    """The packet in a datagram of a control outlet. Raises ValueError."""
    if len(datagram) <= HEADER_BYTES:
        raise ValueError(f"{len(datagram)} bytes are no control packet")
    version, port, scope_id, source, local = _OUTLET_HEADER.unpack_from(datagram)
    if version not in _FAMILY or local == _UNKNOWN:
        raise ValueError(f"IP version {version}, local address {local.hex()}")
    if version == 4:
        if not source.startswith(_MAPPED_PREFIX) or not local.startswith(_MAPPED_PREFIX):
            raise ValueError("an IPv4 packet with IPv6 addresses")
        source, local = source[-4:], local[-4:]
    return ControlPacket(version, source, port, scope_id, local, datagram[HEADER_BYTES:])


class Injector:
    """Raw sockets of the network namespace in which it is made."""

    def __init__(self, versions: Iterable[int]) -> None:
        """versions: of IP, 4 and 6. Raises OSError: PermissionError without CAP_NET_RAW."""
        self._raw: dict[int, socket.socket] = {}
        self._tracking = ConnectionTracking()
        try:
            for version in versions:
                self._raw[version] = socket.socket(_FAMILY[version], socket.SOCK_RAW, socket.IPPROTO_RAW)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the sockets."""
        self._tracking.close()
        for raw in self._raw.values():
            raw.close()

    def inject(self, packet: ControlPacket, port: int) -> None:
        """Delivers a packet to this UDP port of the address that it came to. Raises OSError, ValueError."""
        raw = self._raw.get(packet.version)
        if raw is None:
            raise ValueError(f"no socket for IPv{packet.version}")
        _require_local(packet)
        # What netfilter redirected to the port has to go the same way again, or it gets another source port.
        peer = packet.source, packet.source_port
        address, port = self._tracking.original_destination(peer, (packet.local, port))
        raw.sendto(_ip_packet(packet, address, port), socket.MSG_DONTWAIT, _sockaddr(packet, address))


def _require_local(packet: ControlPacket) -> None:
    """Keeps a packet with somebody else's source address from ever leaving the machine. Raises OSError."""
    with socket.socket(_FAMILY[packet.version], socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(_sockaddr(packet, packet.local))
        except OSError as error:
            raise OSError(EADDRNOTAVAIL, f"{os.strerror(EADDRNOTAVAIL)}: {packet.local.hex()}") from error


def _sockaddr(packet: ControlPacket, address: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    host = socket.inet_ntop(_FAMILY[packet.version], address)
    return (host, 0) if packet.version == 4 else (host, 0, 0, packet.scope_id)


def _ip_packet(packet: ControlPacket, address: bytes, port: int) -> bytes:
    length = _UDP.size + len(packet.payload)
    pseudo_header = packet.source + address + _PSEUDO_TAIL.pack(length, socket.IPPROTO_UDP)
    unsummed = _UDP.pack(packet.source_port, port, length, 0) + packet.payload
    udp = _UDP.pack(packet.source_port, port, length, _checksum(pseudo_header + unsummed)) + packet.payload
    if packet.version == 4:
        # The kernel fills in the total length, the identification and the header's checksum (raw(7)).
        header = _IPV4.pack(0x45, 0, 0, 0, _DONT_FRAGMENT, _HOPS, socket.IPPROTO_UDP, 0, packet.source, address)
    else:
        header = _IPV6.pack(6 << 28, length, socket.IPPROTO_UDP, _HOPS, packet.source, address)
    return header + udp


def _checksum(data: bytes) -> int:
    """RFC 1071, by 2**16 = 1 modulo 0xFFFF; never 0, which would mean "none"."""
    return 0xFFFF - int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
