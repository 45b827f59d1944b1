"""The hand-off socket with real clients."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dataplane.api import handoff_server, handoff_vault
from dataplane.api.handoff_server import MAX_CONNECTIONS, HandoffServer, may_hand_over
from dataplane.api.handoff_vault import HandoffVault
from dataplane.api.socket_path import SocketPathError
from tests.api.conftest import closed, descriptors, device_fd, device_fds, exchange, receive


class Handoff:
    """A server whose connections we watch come and go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gone: asyncio.Queue[int] = asyncio.Queue()
        self.vault = HandoffVault()
        self.server = HandoffServer(path, self.vault, self.gone.put_nowait)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.setblocking(False)
        client.connect(str(self.path))
        return client


@pytest.fixture
async def handoff(directory: Path) -> AsyncIterator[Handoff]:
    """A server that must leave neither descriptors nor files."""
    before = descriptors()
    handoff = Handoff(directory / "handoff.sock")
    yield handoff
    handoff.server.close()
    assert not descriptors() - before
    assert not handoff.path.exists()


def test_root_and_the_own_user_may_hand_over_and_nobody_else() -> None:
    assert may_hand_over(uid=0, own_uid=65532)
    assert may_hand_over(uid=65532, own_uid=65532)
    assert may_hand_over(uid=0, own_uid=0)
    assert not may_hand_over(uid=1000, own_uid=65532)
    assert not may_hand_over(uid=1000, own_uid=0)


def test_the_socket_is_for_owner_and_group(handoff: Handoff) -> None:
    assert stat.S_IMODE(handoff.path.stat().st_mode) == 0o660


async def test_a_descriptor_is_exchanged_for_a_token(handoff: Handoff) -> None:
    path = "/proc/self/status"
    fd = os.open(path, os.O_RDONLY)
    with handoff.connect() as client:
        reply = await exchange(client, b"adopt", fd)
        os.close(fd)
    handed = handoff.vault.take(reply.removeprefix(b"token ").decode(), asyncio.get_running_loop().time())
    assert os.read(handed.fd, 5) == b"Name:"
    assert not os.get_inheritable(handed.fd)
    os.close(handed.fd)


async def test_several_datagrams_are_answered_in_order(handoff: Handoff) -> None:
    with handoff.connect() as client:
        fd = device_fd()
        socket.send_fds(client, [b"adopt"], [fd])
        client.send(b"what")
        socket.send_fds(client, [b"adopt"], [fd])
        os.close(fd)
        verbs = [(await receive(client)).split(b" ")[0] for _ in range(3)]
    assert verbs == [b"token", b"error", b"token"]


@pytest.mark.parametrize(
    ("data", "descriptors", "reason"),
    [
        (b"adopt", 0, b"DESCRIPTOR_COUNT"),
        (b"adopt", 2, b"DESCRIPTOR_COUNT"),
        (b"adopt", 5, b"DATAGRAM_MALFORMED"),
        (b"adopt", 200, b"DATAGRAM_MALFORMED"),
        (b"take", 1, b"DATAGRAM_MALFORMED"),
        (b"", 1, b"DATAGRAM_MALFORMED"),
        (b"adopt" + b"\0" * 60, 1, b"DATAGRAM_MALFORMED"),
        (b"x" * 100_000, 1, b"DATAGRAM_MALFORMED"),
    ],
)
async def test_a_malformed_datagram_gets_an_error_and_the_connection_goes_on(
    handoff: Handoff, data: bytes, descriptors: int, reason: bytes
) -> None:
    fd = device_fd()
    with handoff.connect() as client:
        await exchange(client, b"hello")
        before = device_fds()
        assert (await exchange(client, data, *[fd] * descriptors)).split(b" ")[:2] == [b"error", reason]
        assert device_fds() == before
        assert (await exchange(client, b"adopt", fd)).startswith(b"token ")
    os.close(fd)


async def test_an_empty_datagram_ends_the_connection(handoff: Handoff) -> None:
    with handoff.connect() as client:
        client.send(b"")
        await closed(client)


async def test_a_closed_connection_is_reported_once_with_its_number(handoff: Handoff) -> None:
    with handoff.connect() as client:
        await exchange(client, b"x")
        assert handoff.vault.is_open(1)
    assert await handoff.gone.get() == 1
    assert not handoff.vault.is_open(1)
    assert handoff.gone.empty()


async def test_a_client_that_reads_no_replies_is_dropped(handoff: Handoff) -> None:
    with handoff.connect() as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        await send_without_end(client)
    assert await handoff.gone.get() == 1


async def send_without_end(client: socket.socket) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(client, b"x")


async def test_another_users_client_is_refused_and_closed(handoff: Handoff, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoff_server, "may_hand_over", lambda *_: False)
    with handoff.connect() as client:
        assert (await receive(client)).startswith(b"error PERMISSION_DENIED user id ")
        await closed(client)


async def test_the_user_id_is_the_kernels(handoff: Handoff, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def ask(uid: int, own_uid: int) -> bool:
        asked.append((uid, own_uid))
        return True

    monkeypatch.setattr(handoff_server, "may_hand_over", ask)
    with handoff.connect() as client:
        await exchange(client, b"x")
    assert asked == [(os.getuid(), os.geteuid())]


async def test_connections_beyond_the_limit_are_refused_until_one_is_closed(handoff: Handoff) -> None:
    clients = []
    for _ in range(MAX_CONNECTIONS):
        clients.append(client := handoff.connect())
        await exchange(client, b"x")  # it is accepted
    with handoff.connect() as refused:
        assert (await receive(refused)).startswith(b"error CONNECTION_LIMIT ")
        await closed(refused)
    clients.pop().close()
    await handoff.gone.get()
    with handoff.connect() as client:
        assert (await exchange(client, b"adopt")).startswith(b"error DESCRIPTOR_COUNT ")
    for client in clients:
        client.close()


async def test_an_unused_token_expires_by_itself(handoff: Handoff, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoff_vault, "LIFETIME_SECONDS", 0.01)
    fd = device_fd()
    with handoff.connect() as client:
        await exchange(client, b"x")
        before = device_fds()
        await exchange(client, b"adopt", fd)
        async with asyncio.timeout(10):
            while device_fds() != before:  # noqa: ASYNC110 - nobody tells when a descriptor is closed
                await asyncio.sleep(0.001)
    assert handoff.vault.next_expiry() is None
    os.close(fd)


async def test_the_server_survives_running_out_of_descriptors(
    handoff: Handoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff_server, "_ACCEPT_PAUSE_SECONDS", 0.001)
    real = handoff.server._listener
    failing = OutOfDescriptors(real, failures=3)
    monkeypatch.setattr(handoff.server, "_listener", failing)
    with handoff.connect() as client:
        assert (await exchange(client, b"x")).startswith(b"error ")
    assert failing.failures == 0


class OutOfDescriptors:
    """A listener whose accept() fails a few times."""

    def __init__(self, listener: socket.socket, failures: int) -> None:
        self._listener = listener
        self.failures = failures

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        self._listener.close()


async def test_close_drops_connections_without_reporting_them(directory: Path) -> None:
    handoff = Handoff(directory / "handoff.sock")
    with handoff.connect() as client:
        await exchange(client, b"x")
        handoff.server.close()
        await closed(client)
    assert handoff.gone.empty()


async def test_a_path_in_use_is_refused(handoff: Handoff) -> None:
    with pytest.raises(SocketPathError, match="in use"):
        HandoffServer(handoff.path, HandoffVault(), lambda _: None)
    with handoff.connect() as client:
        await exchange(client, b"x")
