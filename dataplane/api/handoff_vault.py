"""Descriptors that clients handed over and that no call has asked for yet, each under a one-time token.

Knows tokens, connections as numbers, limits and times that are passed in. Must not know sockets, asyncio or
what a descriptor is for. Owns every descriptor it holds: it is given to the one who takes it, or closed.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dataplane.engine.types import EngineError, ErrorKind

LIFETIME_SECONDS: Final = 60.0
MAX_TOKENS: Final = 1024
MAX_TOKENS_PER_CONNECTION: Final = 64
_TOKEN_BYTES: Final = 16


class HandoffRefused(Exception):
    """A descriptor is not taken; `reason` is one word, the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A descriptor, which now belongs to whoever took it, and the connection that gave it."""

    fd: int
    connection: int


@dataclass(frozen=True, slots=True)
class _Deposit:
    fd: int
    connection: int
    expires_at: float


def token_unknown() -> EngineError:
    """No such token was given, or it was used, or is older than 60 s, or the connection it needs is closed."""
    return EngineError(
        ErrorKind.NOT_FOUND,
        "HANDOFF_TOKEN_UNKNOWN",
        "the hand-off token is unknown, used, expired or its connection is closed; hand the descriptor over again",
    )


class HandoffVault:
    """Tokens and what they stand for. Times are seconds of one clock that never goes back."""

    def __init__(self) -> None:
        # In order of expiry, for all live equally long.
        self._deposits: dict[str, _Deposit] = {}
        self._tokens_of: Counter[int] = Counter()
        self._open_connections: set[int] = set()
        self._last_connection = 0

    def open_connection(self) -> int:
        """A number for a new connection; never used twice."""
        self._last_connection += 1
        self._open_connections.add(self._last_connection)
        return self._last_connection

    def close_connection(self, connection: int) -> None:
        """The connection is closed. Its tokens stay good until they expire."""
        self._open_connections.discard(connection)

    def is_open(self, connection: int) -> bool:
        """Whether a device may be bound to the life of this connection."""
        return connection in self._open_connections

    def deposit(self, connection: int, fd: int, now: float) -> str:
        """Takes a descriptor; gives its token of 32 hexadecimal digits. Raises HandoffRefused, and takes nothing."""
        self.expire(now)
        if self._tokens_of[connection] >= MAX_TOKENS_PER_CONNECTION:
            raise HandoffRefused("TOKEN_LIMIT", f"{MAX_TOKENS_PER_CONNECTION} tokens of this connection are unused")
        if len(self._deposits) >= MAX_TOKENS:
            raise HandoffRefused("TOKEN_LIMIT", f"{MAX_TOKENS} tokens are unused; each expires after 60 s")
        token = secrets.token_hex(_TOKEN_BYTES)
        self._deposits[token] = _Deposit(fd, connection, now + LIFETIME_SECONDS)
        self._tokens_of[connection] += 1
        return token

    def take(self, token: str, now: float) -> HandedOver:
        """Spends a token. Raises EngineError HANDOFF_TOKEN_UNKNOWN."""
        self.expire(now)
        if token not in self._deposits:
            raise token_unknown()
        deposit = self._remove(token)
        return HandedOver(deposit.fd, deposit.connection)

    def take_all(self, tokens: Iterable[str], now: float) -> list[int]:
        """Spends several tokens; gives their descriptors. Raises as take(), and the others are spent all the same."""
        fds: list[int] = []
        failure = None
        for token in tokens:
            try:
                fds.append(self.take(token, now).fd)
            except EngineError as error:
                failure = error
        if failure is None:
            return fds
        for fd in fds:
            os.close(fd)
        raise failure

    def expire(self, now: float) -> None:
        """Closes the descriptors whose time is over."""
        while (deadline := self.next_expiry()) is not None and deadline <= now:
            os.close(self._remove(next(iter(self._deposits))).fd)

    def next_expiry(self) -> float | None:
        """When expire() has something to do; None if nothing is held."""
        return next((deposit.expires_at for deposit in self._deposits.values()), None)

    def close(self) -> None:
        """Closes all descriptors."""
        for token in list(self._deposits):
            os.close(self._remove(token).fd)

    def _remove(self, token: str) -> _Deposit:
        deposit = self._deposits.pop(token)
        self._tokens_of[deposit.connection] -= 1
        self._tokens_of += Counter()  # forgets connections without tokens
        return deposit
