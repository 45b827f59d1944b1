"""What is answered to a datagram, and that its descriptors are in the vault or closed."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.api.handoff_protocol import Datagram, answer
from dataplane.api.handoff_vault import MAX_TOKENS_PER_CONNECTION, HandoffVault
from tests.api.conftest import device_fd, device_fds


def ask(vault: HandoffVault, data: bytes, fds: list[int], *, is_cut: bool = False) -> bytes:
    return answer(vault, vault.open_connection(), Datagram(data, fds, is_cut), now=time.monotonic())


def test_adopt_with_one_descriptor_gets_a_token() -> None:
    vault = HandoffVault()
    verb, token = ask(vault, b"adopt", [fd := device_fd()]).split(b" ")
    assert verb == b"token"
    assert vault.take(token.decode(), time.monotonic()).fd == fd
    os.close(fd)


@pytest.mark.parametrize(
    ("data", "descriptors", "is_cut", "reason"),
    [
        (b"adopt", 0, False, b"DESCRIPTOR_COUNT"),
        (b"adopt", 2, False, b"DESCRIPTOR_COUNT"),
        (b"adopt", 4, True, b"DATAGRAM_MALFORMED"),
        (b"ADOPT", 1, False, b"DATAGRAM_MALFORMED"),
        (b"adopt\n", 1, False, b"DATAGRAM_MALFORMED"),
        (b"adop", 1, False, b"DATAGRAM_MALFORMED"),
        (b"", 1, False, b"DATAGRAM_MALFORMED"),
        (b"adopt" * 12, 1, True, b"DATAGRAM_MALFORMED"),
    ],
)
def test_anything_else_gets_an_error_and_its_descriptors_are_closed(
    data: bytes, descriptors: int, is_cut: bool, reason: bytes
) -> None:
    before = device_fds()
    reply = ask(HandoffVault(), data, [device_fd() for _ in range(descriptors)], is_cut=is_cut)
    verb, its_reason, text = reply.split(b" ", 2)
    assert (verb, its_reason) == (b"error", reason)
    assert text
    assert device_fds() == before


def test_beyond_the_limit_there_is_an_error_and_the_descriptor_is_closed() -> None:
    vault = HandoffVault()
    connection = vault.open_connection()
    for _ in range(MAX_TOKENS_PER_CONNECTION):
        answer(vault, connection, Datagram(b"adopt", [device_fd()]), now=0)
    before = device_fds()
    assert answer(vault, connection, Datagram(b"adopt", [device_fd()]), now=0).startswith(b"error TOKEN_LIMIT ")
    assert device_fds() == before
    vault.close()


@given(st.binary(max_size=64) | st.just(b"adopt"), st.integers(0, 4), st.booleans())
def test_no_datagram_loses_a_descriptor(data: bytes, descriptors: int, is_cut: bool) -> None:
    before = device_fds()
    vault = HandoffVault()
    reply = ask(vault, data, [device_fd() for _ in range(descriptors)], is_cut=is_cut)
    assert reply.startswith(b"token ") == (data == b"adopt" and descriptors == 1 and not is_cut)
    vault.close()
    assert device_fds() == before
