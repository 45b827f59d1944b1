"""Tokens: one-time, limited in number and time, and no descriptor lost."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dataplane.api.handoff_vault import (
    LIFETIME_SECONDS,
    MAX_TOKENS,
    MAX_TOKENS_PER_CONNECTION,
    HandoffRefused,
    HandoffVault,
)
from dataplane.engine.types import EngineError
from tests.api.conftest import device_fd, device_fds

NOW = 1000.0


@pytest.fixture
def vault() -> Iterator[HandoffVault]:
    """A vault that must leave no descriptor behind."""
    before = device_fds()
    vault = HandoffVault()
    yield vault
    vault.close()
    assert device_fds() == before


def test_a_token_gives_its_descriptor_and_connection(vault: HandoffVault) -> None:
    connection = vault.open_connection()
    token = vault.deposit(connection, fd := device_fd(), NOW)
    handed = vault.take(token, NOW)
    assert (handed.fd, handed.connection) == (fd, connection)
    os.close(handed.fd)


def test_tokens_are_32_hexadecimal_digits_and_differ(vault: HandoffVault) -> None:
    connection = vault.open_connection()
    tokens = {vault.deposit(connection, device_fd(), NOW) for _ in range(10)}
    assert len(tokens) == 10
    assert all(len(bytes.fromhex(token)) == 16 for token in tokens)


def test_a_token_is_good_once(vault: HandoffVault) -> None:
    token = vault.deposit(vault.open_connection(), device_fd(), NOW)
    os.close(vault.take(token, NOW).fd)
    with pytest.raises(EngineError) as raised:
        vault.take(token, NOW)
    assert raised.value.reason == "HANDOFF_TOKEN_UNKNOWN"
    assert token not in str(raised.value)


def test_an_unknown_token_is_refused(vault: HandoffVault) -> None:
    with pytest.raises(EngineError, match="hand-off token"):
        vault.take("0" * 32, NOW)


def test_a_token_is_good_up_to_its_expiry(vault: HandoffVault) -> None:
    token = vault.deposit(vault.open_connection(), device_fd(), NOW)
    os.close(vault.take(token, NOW + LIFETIME_SECONDS - 0.001).fd)


def test_an_expired_token_is_unknown_and_its_descriptor_closed(vault: HandoffVault) -> None:
    before = device_fds()
    token = vault.deposit(vault.open_connection(), device_fd(), NOW)
    with pytest.raises(EngineError):
        vault.take(token, NOW + LIFETIME_SECONDS)
    assert device_fds() == before


def test_expire_closes_what_is_due_and_no_more(vault: HandoffVault) -> None:
    connection = vault.open_connection()
    vault.deposit(connection, device_fd(), NOW)
    late = vault.deposit(connection, device_fd(), NOW + 1)
    assert vault.next_expiry() == NOW + LIFETIME_SECONDS
    vault.expire(NOW + LIFETIME_SECONDS)
    assert vault.next_expiry() == NOW + 1 + LIFETIME_SECONDS
    os.close(vault.take(late, NOW + LIFETIME_SECONDS).fd)
    assert vault.next_expiry() is None


def test_a_connection_has_64_tokens_at_most(vault: HandoffVault) -> None:
    connection, other = vault.open_connection(), vault.open_connection()
    tokens = [vault.deposit(connection, device_fd(), NOW) for _ in range(MAX_TOKENS_PER_CONNECTION)]
    fd = device_fd()
    with pytest.raises(HandoffRefused) as raised:
        vault.deposit(connection, fd, NOW)
    assert raised.value.reason == "TOKEN_LIMIT"
    os.close(fd)  # it was not taken
    vault.deposit(other, device_fd(), NOW)
    os.close(vault.take(tokens[0], NOW).fd)
    vault.deposit(connection, device_fd(), NOW)


def test_all_connections_together_have_1024_tokens_at_most(vault: HandoffVault) -> None:
    for _ in range(MAX_TOKENS // MAX_TOKENS_PER_CONNECTION):
        connection = vault.open_connection()
        for _ in range(MAX_TOKENS_PER_CONNECTION):
            vault.deposit(connection, device_fd(), NOW)
    fd = device_fd()
    with pytest.raises(HandoffRefused) as raised:
        vault.deposit(vault.open_connection(), fd, NOW)
    assert raised.value.reason == "TOKEN_LIMIT"
    os.close(fd)
    vault.deposit(vault.open_connection(), device_fd(), NOW + LIFETIME_SECONDS)


def test_tokens_outlive_their_connection(vault: HandoffVault) -> None:
    connection = vault.open_connection()
    token = vault.deposit(connection, device_fd(), NOW)
    vault.close_connection(connection)
    assert not vault.is_open(connection)
    os.close(vault.take(token, NOW).fd)


def test_connection_numbers_are_never_used_twice(vault: HandoffVault) -> None:
    first = vault.open_connection()
    vault.close_connection(first)
    assert vault.open_connection() != first
