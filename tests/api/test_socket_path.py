"""Run directory and socket files: what is made, what is replaced, what is left alone."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from dataplane.api.socket_path import SocketPathError, claim_socket_path, listen_unix, run_directory

STREAM, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_SEQPACKET


def stale_socket(path: Path, kind: socket.SocketKind = STREAM) -> None:
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(path))


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_missing_run_directory_is_made_and_removed(directory: Path, umask: int) -> None:
    path = directory / "run"
    previous = os.umask(umask)
    try:
        with run_directory(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o750
    finally:
        os.umask(previous)
    assert not path.exists()


def test_a_run_directory_that_was_there_stays_as_it_was(directory: Path) -> None:
    directory.chmod(0o711)
    with run_directory(directory):
        pass
    assert stat.S_IMODE(directory.stat().st_mode) == 0o711


def test_a_run_directory_with_other_files_stays(directory: Path) -> None:
    path = directory / "run"
    with run_directory(path):
        (path / "other").touch()
    assert path.is_dir()


@pytest.mark.parametrize("path", ["file", "missing/run"])
def test_a_run_directory_that_cannot_be_made_is_refused(directory: Path, path: str) -> None:
    (directory / "file").touch()
    with pytest.raises(SocketPathError, match="cannot make the directory"), run_directory(directory / path):
        pass


@pytest.mark.parametrize("kind", [STREAM, SEQPACKET])
def test_a_stale_socket_is_removed(directory: Path, kind: socket.SocketKind) -> None:
    stale_socket(path := directory / "s", kind)
    claim_socket_path(path, kind)
    assert not path.exists()


def test_a_free_path_is_fine(directory: Path) -> None:
    claim_socket_path(directory / "s", STREAM)


@pytest.mark.parametrize("kind", [STREAM, SEQPACKET])
def test_a_live_socket_is_left_alone(directory: Path, kind: socket.SocketKind) -> None:
    path = directory / "s"
    with listen_unix(path, STREAM), pytest.raises(SocketPathError, match="in use"):
        claim_socket_path(path, kind)
    assert path.exists()


def test_a_live_socket_with_a_full_queue_is_left_alone(directory: Path) -> None:
    path = directory / "s"
    with socket.socket(socket.AF_UNIX, STREAM) as busy, socket.socket(socket.AF_UNIX, STREAM) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        with pytest.raises(SocketPathError, match="in use"):
            claim_socket_path(path, STREAM)


def test_a_file_that_is_no_socket_is_left_alone(directory: Path) -> None:
    path = directory / "s"
    path.write_text("precious")
    with pytest.raises(SocketPathError, match="no socket"):
        claim_socket_path(path, STREAM)
    assert path.read_text() == "precious"


def test_a_missing_directory_is_named(directory: Path) -> None:
    with pytest.raises(SocketPathError, match=f"{directory}/missing"):
        claim_socket_path(directory / "missing" / "s", STREAM)


def test_a_listener_is_for_owner_and_group_and_does_not_block(directory: Path) -> None:
    before = os.umask(0o022)
    os.umask(before)
    with listen_unix(path := directory / "s", SEQPACKET) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert not listener.getblocking()
    assert os.umask(before) == before


def test_a_path_that_cannot_be_bound_is_refused(directory: Path) -> None:
    with pytest.raises(SocketPathError, match="too long"):
        listen_unix(directory / ("x" * 200), STREAM)
