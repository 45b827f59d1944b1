"""A small netlink client: the beginning of each Python program that the tests run under the shim."""

from __future__ import annotations

import os  # noqa: F401 - for the programs
import signal  # noqa: F401
import socket
import struct
import sys  # noqa: F401

GENERIC, ROUTE = 16, 0
CONTROL_FAMILY, FAKE_FAMILY, FAKE_GROUP = 0x10, 0xD00, 0xD80
GETFAMILY = 3
ECHO, COUNT, RAISE, NOTICE, FATAL, INODE, SILENT, RAISE_IN_NOTICES, FLOOD, SWITCH, OPTIONS = range(1, 12)
REQUEST, ACK = 1, 4
ERROR = 2
SOL_NETLINK, ADD_MEMBERSHIP, DROP_MEMBERSHIP = 270, 1, 2
INJECTED_FROM = 15000  # no test runs with so few descriptors that injected ones lie below


def message(kind: int, payload: bytes, sequence: int = 7, flags: int = REQUEST | ACK) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload + bytes(-len(payload) % 4)


def messages(datagram: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, sequence and body of each message."""
    found = []
    while len(datagram) >= 16:
        length, kind, _flags, sequence, _port = struct.unpack_from("=IHHII", datagram)
        found.append((kind, sequence, datagram[16:length]))
        datagram = datagram[(length + 3) & ~3 :]
    return found


def request(command: int, payload: bytes = b"", sequence: int = 7, flags: int = REQUEST | ACK) -> bytes:
    """A message of the fake family."""
    return message(FAKE_FAMILY, struct.pack("=BBH", command, 1, 0) + payload, sequence, flags)


def get_family(name: str, sequence: int = 7) -> bytes:
    value = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(value), 2) + value + bytes(-len(value) % 4)  # CTRL_ATTR_FAMILY_NAME
    return message(CONTROL_FAMILY, struct.pack("=BBH", GETFAMILY, 1, 0) + attribute, sequence)


def netlink(protocol: int = GENERIC, kind: int = socket.SOCK_RAW) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, kind, protocol)
    made.settimeout(20)
    return made


def receive(client: socket.socket) -> list[tuple[int, int, bytes]]:
    """All messages of the next datagram."""
    return messages(client.recv(65536))


def error_of(body: bytes) -> int:
    """The positive errno of an NLMSG_ERROR; 0 is an acknowledgement."""
    return -int(struct.unpack_from("=i", body)[0])


def ask(client: socket.socket, datagram: bytes) -> tuple[list[bytes], int]:
    """Sends, and receives until the acknowledgement: (bodies of the replies, errno)."""
    client.send(datagram)
    replies: list[bytes] = []
    while True:
        for kind, _sequence, body in receive(client):
            if kind == ERROR:
                return replies, error_of(body)
            replies.append(body)


def say(*words: object) -> None:
    print(*words, flush=True)
