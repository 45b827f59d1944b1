"""UDP datagrams with numbers, as fast as they go, and whether they come in order: a program for each.

    python -m lab.numbered receive PORT
    python -m lab.numbered send ADDRESS PORT SIZE SECONDS

Knows sockets; must not know what carries the packets. For streams at a steady rate there is lab/datagrams.py, whose
sender does less for each datagram.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import Final

from lab.datagrams import BUFFER_BYTES, READY, SO_RCVBUFFORCE

FIRST_SECONDS: Final = 10
SILENCE_SECONDS: Final = 2
"""After so long without a datagram nothing more is coming: a connection that lost a packet stalls for less."""

_NUMBER: Final = struct.Struct("!Q")
_BATCH: Final = 64
"""Datagrams sent between two looks at the clock."""


def send(address: str, port: int, size: int, seconds: float) -> int:
    """Sends datagrams with `size` bytes of payload for so long and returns how many that were."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect((address, port))
    filling = bytes(size - _NUMBER.size)
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for number in range(sent, sent + _BATCH):
            udp.send(_NUMBER.pack(number) + filling)
        sent += _BATCH
    return sent


def receive(port: int) -> tuple[int, int]:
    """Binds, says that it is ready, and returns how many datagrams came before there was silence.

    Then how many of them came after one that was sent later.
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    udp.bind(("", port))
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    udp.settimeout(FIRST_SECONDS)
    received, misplaced, newest = 0, 0, -1
    try:
        while True:
            (number,) = _NUMBER.unpack_from(udp.recv(65535))
            udp.settimeout(SILENCE_SECONDS)
            received += 1
            misplaced += number <= newest
            newest = max(number, newest)
    except TimeoutError:
        return received, misplaced


def main(arguments: list[str]) -> None:
    """Runs one of the two and prints its numbers."""
    if arguments[0] == "receive":
        received, misplaced = receive(int(arguments[1]))
        sys.stdout.write(f"{received} {misplaced}\n")
    else:
        address, port, size, seconds = arguments[1:]
        sys.stdout.write(f"{send(address, int(port), int(size), float(seconds))}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
