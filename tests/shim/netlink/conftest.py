"""Netlink written a second time, by struct alone: what the codecs are measured against."""

from __future__ import annotations

import socket
import struct

from controlplane_shim.netlink.message import Message, split

REQUEST_ACK = 0x5
DUMP_ACK = 0x305
NESTED = 0x8000
DCO = 0xD00
OVPN = 0xD01
NETLINK_ROUTE = 0
NETLINK_GENERIC = 16


def attribute(type_: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, type_) + payload + b"\0" * (-length % 4)


def nest(type_: int, *attributes: bytes) -> bytes:
    return attribute(type_ | NESTED, b"".join(attributes))


def u8(type_: int, value: int) -> bytes:
    return attribute(type_, struct.pack("=B", value))


def u16(type_: int, value: int) -> bytes:
    return attribute(type_, struct.pack("=H", value))


def u32(type_: int, value: int) -> bytes:
    return attribute(type_, struct.pack("=I", value))


def be16(type_: int, value: int) -> bytes:
    return attribute(type_, struct.pack(">H", value))


def u64(type_: int, value: int) -> bytes:
    return attribute(type_, struct.pack("=Q", value))


def message(type_: int, flags: int, body: bytes, *, seq: int = 7, port_id: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), type_, flags, seq, port_id) + body


def generic(
    type_: int, command: int, *attributes: bytes, flags: int = REQUEST_ACK, seq: int = 7, version: int = 0
) -> bytes:
    """A request as libnl builds it for OpenVPN: version 0, no port id."""
    return message(type_, flags, struct.pack("=BBH", command, version, 0) + b"".join(attributes), seq=seq)


def only(raw: bytes) -> Message:
    """The one message of a datagram."""
    (found,) = split(raw)
    return found


def sockaddr_in(address: str, port: int) -> bytes:
    return struct.pack("=H", 2) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(8)


def sockaddr_in6(address: str, port: int, scope_id: int = 0) -> bytes:
    return (
        struct.pack("=H", 10)
        + struct.pack(">HI", port, 0)
        + socket.inet_pton(socket.AF_INET6, address)
        + struct.pack("=I", scope_id)
    )


def new_key_nest(**replaced: bytes) -> bytes:
    """Nest NEW_KEY as OpenVPN builds it; an attribute can be replaced, or left out by b""."""
    attributes = {
        "peer_id": u32(1, 3),
        "slot": u8(2, 0),
        "key_id": u8(3, 1),
        "cipher": u16(4, 1),
        "encrypt": nest(5, attribute(1, b"E" * 32), attribute(2, b"e" * 8)),
        "decrypt": nest(6, attribute(1, b"D" * 32), attribute(2, b"d" * 8)),
    }
    return nest(5, *(attributes | replaced).values())


def keyconf_nest(**replaced: bytes) -> bytes:
    """Nest KEYCONF of KEY_NEW as OpenVPN 2.7 builds it; an attribute can be replaced, or left out by b""."""
    attributes = {
        "peer_id": u32(1, 3),
        "slot": u32(2, 0),
        "key_id": u32(3, 1),
        "cipher": u32(4, 1),
        "encrypt": nest(5, attribute(1, b"E" * 32), attribute(2, b"e" * 8)),
        "decrypt": nest(6, attribute(1, b"D" * 32), attribute(2, b"d" * 8)),
    }
    return nest(3, *(attributes | replaced).values())


def ask_kernel(protocol: int, datagram: bytes) -> tuple[bytes, int]:
    """What the kernel answers first, and the port id that it answered to."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(5)
        netlink.sendto(datagram, (0, 0))
        return netlink.recv(65536), netlink.getsockname()[0]
