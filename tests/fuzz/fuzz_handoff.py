"""Fuzzes the hand-off socket's requests and the vault: any datagrams, tokens and times, and no descriptor lost.

Run: python tests/fuzz/fuzz_handoff.py -max_total_time=60
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dataplane"]):
    from dataplane.api.handoff_protocol import MAX_REQUEST_BYTES, Datagram, answer
    from dataplane.api.handoff_vault import MAX_TOKENS, MAX_TOKENS_PER_CONNECTION, HandoffVault
    from dataplane.engine.types import EngineError

REASONS = {b"DATAGRAM_MALFORMED", b"DESCRIPTOR_COUNT", b"TOKEN_LIMIT"}


class Client:
    """Does what the input says, and knows which tokens must be good."""

    def __init__(self) -> None:
        self.vault = HandoffVault()
        self.connections = [self.vault.open_connection()]
        self.tokens: dict[str, float] = {}
        self.now = 0.0

    def send(self, data: bytes, descriptors: int, connection: int, *, is_cut: bool) -> None:
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(descriptors)]
        reply = answer(self.vault, connection, Datagram(data, fds, is_cut), self.now)
        verb, rest = reply.split(b" ", 1)
        if verb == b"token":
            assert data == b"adopt"
            assert (descriptors, is_cut) == (1, False)
            assert len(bytes.fromhex(rest.decode())) == 16
            self.tokens[rest.decode()] = self.now + 60
        else:
            assert verb == b"error"
            assert rest.split(b" ")[0] in REASONS

    def take(self, token: str) -> None:
        expiry = self.tokens.pop(token, None)
        try:
            handed = self.vault.take(token, self.now)
        except EngineError:
            assert expiry is None or expiry <= self.now
            return
        assert expiry is not None
        assert expiry > self.now
        os.close(handed.fd)

    def close_all(self) -> None:
        self.vault.close()
        assert self.vault.next_expiry() is None


def open_fds() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_one_input(data: bytes) -> None:
    """One run: a list of deeds, after which no descriptor may be left."""
    provider = atheris.FuzzedDataProvider(data)
    before = open_fds()
    client = Client()
    while provider.remaining_bytes():
        connection = provider.PickValueInList(client.connections)
        match provider.ConsumeIntInRange(0, 6):
            case 0:
                client.connections.append(client.vault.open_connection())
            case 1:
                client.vault.close_connection(connection)
                assert not client.vault.is_open(connection)
            case 2:
                client.now += provider.ConsumeIntInRange(0, 70)
                client.vault.expire(client.now)
            case 3:
                good = [*client.tokens, provider.ConsumeUnicode(32)]
                client.take(provider.PickValueInList(good))
            case 4:
                for _ in range(provider.ConsumeIntInRange(0, MAX_TOKENS_PER_CONNECTION + 2)):
                    client.send(b"adopt", 1, connection, is_cut=False)
            case 5:
                client.send(b"adopt", provider.ConsumeIntInRange(0, 3), connection, is_cut=False)
            case _:
                size = provider.ConsumeIntInRange(0, MAX_REQUEST_BYTES)
                client.send(
                    provider.ConsumeBytes(size),
                    provider.ConsumeIntInRange(0, 4),
                    connection,
                    is_cut=provider.ConsumeBool(),
                )
        live = sum(expiry > client.now for expiry in client.tokens.values())
        assert live <= MAX_TOKENS
    client.close_all()
    assert open_fds() == before


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
