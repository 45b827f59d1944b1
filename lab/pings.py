"""Echo requests at a steady rate, and what became of them: python -m lab.pings ADDRESS COUNT INTERVAL SIZE.

Prints how many were sent, how many were answered, and the average round trip in ms. Knows ICMP (RFC 792, RFC 4443);
must not know what carries it. ping(8) will not do where a lost packet is a fault: after its last request it waits for
two round trips, and counts as lost what a busy machine answers later.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

FIRST_ANSWER_SECONDS: Final = 1
"""How long the first answer may take after the last request."""

OTHER_ANSWER_SECONDS: Final = 10
"""How long the others may take once there was one."""

_HEADER: Final = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number."""


class Echo:
    """The exchange with one host, by a raw socket. The identifier is the process's."""

    def __init__(self, address: str, size: int) -> None:
        if ip_address(address).version == 4:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            self._request_type, self._reply_type = 8, 0
        else:
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            self._request_type, self._reply_type = 128, 129
        self._to = (address, 0)
        self._payload = bytes(size)
        self._identifier = os.getpid() & 0xFFFF
        self._waiting: dict[int, float] = {}  # when it was sent, by sequence number
        self.sent = 0
        self.round_trips: list[float] = []

    def ask(self) -> None:
        """Sends the next request. One that the system refuses counts as lost."""
        sequence = self.sent & 0xFFFF
        self.sent += 1
        with suppress(OSError):
            self._socket.sendto(self._message(sequence), self._to)
            self._waiting[sequence] = time.perf_counter()

    def hear(self, until: float) -> None:
        """Takes the answers that come until then."""
        while (left := until - time.perf_counter()) > 0:
            self._socket.settimeout(left)
            try:
                packet, source = self._socket.recvfrom(65536)
            except TimeoutError:
                return
            if source[0] == self._to[0]:
                self._take(packet, time.perf_counter())

    def finish(self) -> None:
        """Waits for the answers that are still to come."""
        deadline = time.perf_counter() + FIRST_ANSWER_SECONDS
        late = deadline - FIRST_ANSWER_SECONDS + OTHER_ANSWER_SECONDS
        while self._waiting and time.perf_counter() < (late if self.round_trips else deadline):
            self.hear(time.perf_counter() + 0.01)

    def _take(self, packet: bytes, now: float) -> None:
        if self._request_type == 8:
            packet = packet[(packet[0] & 15) * 4 :]  # raw sockets of IPv4 give the header, too
        kind, _code, _sum, identifier, sequence = _HEADER.unpack_from(packet)
        if kind == self._reply_type and identifier == self._identifier and packet[_HEADER.size :] == self._payload:
            sent_at = self._waiting.pop(sequence, None)
            if sent_at is not None:
                self.round_trips.append(now - sent_at)

    def _message(self, sequence: int) -> bytes:
        """The checksum is that of IPv4; for IPv6 the kernel puts in its own (RFC 3542)."""
        words = (self._request_type << 8) + self._identifier + sequence
        while words >> 16:
            words = (words & 0xFFFF) + (words >> 16)
        return _HEADER.pack(self._request_type, 0, words ^ 0xFFFF, self._identifier, sequence) + self._payload


def main(arguments: list[str]) -> None:
    """Sends all requests in time, or as soon after as may be, and prints the result."""
    address, count, interval, size = arguments
    echo = Echo(address, int(size))
    due = time.perf_counter()
    for _ in range(int(count)):
        echo.ask()
        due += float(interval)
        echo.hear(due)
    echo.finish()
    average_ms = 1000 * sum(echo.round_trips) / max(1, len(echo.round_trips))
    sys.stdout.write(f"{echo.sent} {len(echo.round_trips)} {average_ms:.3f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
