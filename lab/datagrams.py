"""UDP datagrams at a steady rate, and their count at the other end: a program for each.

    python -m lab.datagrams receive PORT
    python -m lab.datagrams send ADDRESS PORT RATE FLOWS SIZE SECONDS

Knows sockets; must not know what carries the packets. iperf3 will not do: it reads the clock for every datagram, and
with many flows it is the first thing to be too slow. Neither does this use UDP_SEGMENT or UDP_GRO, for few programs
that send small datagrams do: each one enters and leaves the tunnel by a system call of its own.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Final

BUFFER_BYTES: Final = 4 << 20
SO_RCVBUFFORCE: Final = 33  # <asm-generic/socket.h>; not in the socket module
READY: Final = "ready"

FIRST_SECONDS: Final = 5
"""How long the receiver waits for the first datagram."""

SILENCE_SECONDS: Final = 0.2
"""After so long without a datagram nothing more is coming."""

TICK_SECONDS: Final = 0.0002
DEBT_SECONDS: Final = 0.001
"""What a sender that was kept off its CPU makes up for. More would overflow any queue; so it is left out, and the rate
is then less than was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """`rate` datagrams a second with `size` bytes of payload each, from `flows` ports in turn."""

    rate: float
    flows: int
    size: int
    seconds: float


def send(address: str, port: int, stream: Stream) -> int:
    """Sends a stream and returns how many datagrams that were."""
    rate, flows = stream.rate, stream.flows
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    for udp in sockets:
        udp.connect((address, port))
    sends = [udp.send for udp in sockets]
    payload = bytes(stream.size)
    clock, sleep = time.perf_counter, time.sleep
    sent = 0
    began = due_since = clock()  # all that was due before due_since has been sent, or left out
    while (now := clock()) < began + stream.seconds:
        due_since = max(due_since, now - DEBT_SECONDS)
        burst = int((now - due_since) * rate)
        for number in range(sent, sent + burst):
            sends[number % flows](payload)
        sent += burst
        due_since += burst / rate
        if clock() - now < TICK_SECONDS:
            sleep(TICK_SECONDS)
    return sent


def receive(port: int) -> int:
    """Binds, says that it is ready, and returns how many datagrams came before there was silence."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    udp.bind(("", port))
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    buffer, received = bytearray(2048), 0
    receive_into = udp.recv_into
    # SO_RCVTIMEO, for settimeout() would cost a poll() before each datagram.
    try:
        _set_timeout(udp, FIRST_SECONDS)
        receive_into(buffer)
        _set_timeout(udp, SILENCE_SECONDS)
        received = 1
        while True:
            receive_into(buffer)
            received += 1
    except BlockingIOError:
        return received


def _set_timeout(udp: socket.socket, seconds: float) -> None:
    whole = int(seconds)
    timeval = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


def main(arguments: list[str]) -> None:
    """Runs one of the two and prints the number of datagrams."""
    if arguments[0] == "receive":
        count = receive(int(arguments[1]))
    else:
        address, port, rate, flows, size, seconds = arguments[1:]
        stream = Stream(rate=float(rate), flows=int(flows), size=int(size), seconds=float(seconds))
        count = send(address, int(port), stream)
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
