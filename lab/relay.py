"""A bad network: a UDP relay that loses, reorders and duplicates datagrams, in both directions alike.

    python -m lab.relay PORT ADDRESS SEED

takes datagrams on PORT and passes them to ADDRESS, same port, from a port of its own for each client, and what comes
back there to that client. Knows UDP; must not know what the datagrams are, nor what has become of them.
"""

from __future__ import annotations

import random
import select
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lab.lab import Lab
from lab.netns import Namespace
from lab.processes import Process

PORTION: Final = 0.01
"""The portion of datagrams lost, and of those held back, and of those sent twice."""

HELD_FOR: Final = 3
"""A datagram that is held back goes after the third one that follows it."""

DATAGRAM_BYTES: Final = 65535
BUFFER_BYTES: Final = 4 << 20
SO_RCVBUFFORCE: Final = 33  # <asm-generic/socket.h>; not in the socket module
READY: Final = "relaying"
BATCH: Final = 64
"""Datagrams taken from one socket before the others have their turn."""


class BadLine:
    """One direction of one client: which datagrams go out, and when."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - the same each time is what is wanted
        self._held: bytes | None = None
        self._following = 0

    def passes(self, datagram: bytes) -> Iterator[bytes]:
        """What leaves the line as this datagram enters it. One that is held back stays until others follow it."""
        lot = self._random.random()
        if lot < PORTION:
            return
        if lot < 2 * PORTION and self._held is None:
            self._held, self._following = datagram, HELD_FOR
            return
        yield datagram
        if lot > 1 - PORTION:
            yield datagram
        if self._held is not None:
            self._following -= 1
            if not self._following:
                yield self._held
                self._held = None


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends to the relay: his address, the socket towards the server that is his, a line each way."""

    address: tuple[str, int]
    socket: socket.socket
    to_server: BadLine
    to_client: BadLine


class Relay:
    """The listening socket and the clients that it has heard of."""

    def __init__(self, port: int, server: str, seed: int) -> None:
        self._server = (server, port)
        self._seeds = random.Random(seed)  # noqa: S311 - the same each time is what is wanted
        self._listening = _udp_socket()
        self._listening.bind(("", port))
        self._clients: dict[tuple[str, int], Client] = {}
        self._by_descriptor: dict[int, Client] = {}
        self._poll = select.epoll()
        self._poll.register(self._listening, select.EPOLLIN)

    def run(self) -> None:
        """Relays until the process ends."""
        while True:
            for descriptor, _events in self._poll.poll():
                client = self._by_descriptor.get(descriptor)
                if client is None:
                    self._from_clients()
                else:
                    self._from_server(client)

    def _from_clients(self) -> None:
        for datagram, address in _waiting(self._listening):
            client = self._clients.get(address) or self._new_client(address)
            for copy in client.to_server.passes(datagram):
                client.socket.send(copy)

    def _from_server(self, client: Client) -> None:
        for datagram, _address in _waiting(client.socket):
            for copy in client.to_client.passes(datagram):
                self._listening.sendto(copy, client.address)

    def _new_client(self, address: tuple[str, int]) -> Client:
        udp = _udp_socket()
        udp.connect(self._server)
        client = Client(address, udp, BadLine(self._seeds.getrandbits(64)), BadLine(self._seeds.getrandbits(64)))
        self._clients[address] = self._by_descriptor[udp.fileno()] = client
        self._poll.register(udp, select.EPOLLIN)
        return client


def _udp_socket() -> socket.socket:
    """With buffers so large that nothing is lost but what is meant to be."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    return udp


def _waiting(udp: socket.socket) -> Iterator[tuple[bytes, tuple[str, int]]]:
    """The datagrams that are there already, BATCH at most."""
    for _ in range(BATCH):
        try:
            yield udp.recvfrom(DATAGRAM_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionRefusedError:  # the server is not there (any more); its datagrams were not either
            continue


def start_relay(lab: Lab, namespace: Namespace, server: str, port: int, seed: int = 1) -> Process:
    """Starts a relay in a namespace; it passes what comes to `port` there to the server's same port."""
    argv = [sys.executable, "-m", "lab.relay", str(port), server, str(seed)]
    process = lab.start(namespace, argv, "relay")
    process.wait_for(READY)
    return process


def main(arguments: list[str]) -> None:
    """Relays until the process is ended by a signal."""
    port, server, seed = arguments
    relay = Relay(int(port), server, int(seed))
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    relay.run()


if __name__ == "__main__":
    main(sys.argv[1:])
