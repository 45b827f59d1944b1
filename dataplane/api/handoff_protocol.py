"""The datagrams of the hand-off socket: what is answered to a request and where its descriptors go.

Knows bytes and the vault. Must not know sockets or clocks.

A client connects (AF_UNIX, SOCK_SEQPACKET) and sends `adopt` with exactly one descriptor by SCM_RIGHTS. Each
datagram is answered by one: `token ` and 32 hexadecimal digits, or `error `, a reason, a space and a text
for people. An empty datagram reads as the end of the connection.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dataplane.api.handoff_vault import HandoffRefused, HandoffVault

MAX_REQUEST_BYTES: Final = 64
"""The kernel cuts longer datagrams, which are refused."""

_ADOPT: Final = b"adopt"


@dataclass(frozen=True, slots=True)
class Datagram:
    """What arrived in one datagram. is_cut: not all of it did."""

    data: bytes
    fds: Sequence[int]
    is_cut: bool = False


def answer(vault: HandoffVault, connection: int, datagram: Datagram, now: float) -> bytes:
    """Reply to a datagram, each of whose descriptors is then in the vault or closed."""
    try:
        _check(datagram)
        return b"token " + vault.deposit(connection, datagram.fds[0], now).encode()
    except HandoffRefused as refusal:
        for fd in datagram.fds:
            os.close(fd)
        return error_reply(refusal)


def error_reply(refusal: HandoffRefused) -> bytes:
    """The datagram that says so."""
    return f"error {refusal.reason} {refusal}".encode()


def _check(datagram: Datagram) -> None:
    if datagram.is_cut or datagram.data != _ADOPT:
        raise HandoffRefused("DATAGRAM_MALFORMED", "send the five bytes 'adopt' with one descriptor")
    if len(datagram.fds) != 1:
        raise HandoffRefused("DESCRIPTOR_COUNT", f"send one descriptor with 'adopt'; there were {len(datagram.fds)}")
