"""Unix sockets in the file system: the run directory, whose a path is, and modes.

Knows files. Must not know what is served there.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_RUN_DIRECTORY_MODE: Final = 0o750
_SOCKET_UMASK: Final = 0o117
"""Leaves sockets mode 0660."""


class SocketPathError(Exception):
    """A socket cannot be made at a path; the text says why and what to do."""


@contextmanager
def run_directory(path: Path) -> Iterator[None]:
    """Makes a directory with mode 0750 if it is missing, and then removes it at the end. Raises SocketPathError."""
    try:
        path.mkdir()
    except OSError as error:
        if not path.is_dir():
            raise SocketPathError(f"cannot make the directory {path}: {error.strerror}") from error
        yield
        return
    try:
        path.chmod(_RUN_DIRECTORY_MODE)  # whatever the umask
        yield
    finally:
        # What others have put there is not ours to remove.
        with contextlib.suppress(OSError):
            path.rmdir()


def claim_socket_path(path: Path, kind: socket.SocketKind) -> None:
    """Makes way for a new socket of this kind: removes a socket file on which nobody listens.

    Raises SocketPathError if somebody does, if something else is there, or if there is no directory.
    """
    if not path.parent.is_dir():
        raise SocketPathError(f"there is no directory {path.parent}: make it or choose another path")
    if not path.is_socket():
        if path.exists():
            raise SocketPathError(f"{path} is there and is no socket: remove it or choose another path")
        return
    if _has_listener(path, kind):
        raise SocketPathError(f"{path} is in use: another daemon runs; end it or choose another path")
    path.unlink(missing_ok=True)


def listen_unix(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A listening, non-blocking socket that owner and group may connect to. Raises SocketPathError."""
    claim_socket_path(path, kind)
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        listener.setblocking(False)
        with socket_umask():
            listener.bind(os.fspath(path))
        listener.listen()
    except OSError as error:
        listener.close()
        raise SocketPathError(f"cannot listen at {path}: {error.strerror or error}") from error
    return listener


@contextmanager
def socket_umask() -> Iterator[None]:
    """Sockets bound inside get mode 0660, without a moment at which others could connect."""
    previous = os.umask(_SOCKET_UMASK)
    try:
        yield
    finally:
        os.umask(previous)


def _has_listener(path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        # A blocking connect() would wait for room in the listener's queue.
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # Busy, of another kind, or not ours to connect to: somebody's in any case.
            return True
        return True
