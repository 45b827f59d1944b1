"""The client of the hand-off socket, against a socket that answers as it is told."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.handoff_client import HandoffClient

TOKEN = "0123456789abcdef" * 2


class Daemon:
    """Accepts one connection and answers each datagram by the next of `replies`; closes it when none is left."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.replies: list[bytes] = []
        self.received: list[tuple[bytes, os.stat_result]] = []
        self.client_left = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            while True:
                data, fds, _, _ = socket.recv_fds(connection, 64, 4)
                if not data:
                    break
                for fd in fds:
                    self.received.append((data, os.fstat(fd)))
                    os.close(fd)
                if not self.replies:
                    return
                connection.send(self.replies.pop(0))
        self.client_left.set()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "handoff.sock")
    yield daemon
    daemon.close()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[HandoffClient]:
    client = HandoffClient(daemon.path)
    yield client
    client.close()


def error_of(function: Callable[[], object]) -> DataPlaneError:
    with pytest.raises(DataPlaneError) as caught:
        function()
    return caught.value


def test_a_descriptor_travels_with_adopt_and_a_token_comes_back(daemon: Daemon, client: HandoffClient) -> None:
    daemon.replies.append(b"token " + TOKEN.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        assert client.hand_over(given.fileno()) == TOKEN
        ((data, stat),) = daemon.received
        assert data == b"adopt"
        assert stat.st_ino == os.fstat(given.fileno()).st_ino


def test_a_refusal_carries_the_daemons_reason_and_is_survived(daemon: Daemon, client: HandoffClient) -> None:
    daemon.replies += [b"error TOKEN_LIMIT 64 tokens are unused", b"token " + TOKEN.encode()]
    error = error_of(lambda: client.hand_over(0))
    assert (error.reason, error.message, error.gone) == ("TOKEN_LIMIT", "64 tokens are unused", False)
    assert client.hand_over(0) == TOKEN


def test_a_closed_connection_means_that_the_data_plane_is_gone(client: HandoffClient) -> None:
    assert error_of(lambda: client.hand_over(0)).gone
    assert error_of(lambda: client.hand_over(0)).gone


@pytest.mark.parametrize("reply", [b"hello", b"token 12", b"token " + TOKEN.upper().encode(), b"error"])
def test_an_answer_that_makes_no_sense_ends_the_connection(daemon: Daemon, client: HandoffClient, reply: bytes) -> None:
    daemon.replies.append(reply)
    assert error_of(lambda: client.hand_over(0)).gone
    assert daemon.client_left.wait(5)


def test_closing_the_client_closes_the_lease(daemon: Daemon, client: HandoffClient) -> None:
    daemon.replies.append(b"token " + TOKEN.encode())
    client.hand_over(0)
    assert not daemon.client_left.is_set()
    client.close()
    assert daemon.client_left.wait(5)


def test_a_missing_socket_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HandoffClient(str(tmp_path / "missing.sock"))
