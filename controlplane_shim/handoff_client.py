"""Gives descriptors to the data plane: a SOCK_SEQPACKET Unix connection that lasts as long as the session.

Knows the hand-off protocol: one datagram "adopt" with one descriptor (SCM_RIGHTS) is answered by one datagram,
"token " and 32 hex digits or "error REASON text". Must not know what the descriptors are. The connection is the
lease of the devices made with its tokens: when it closes, even because the shim was killed, the daemon deletes them.
"""

from __future__ import annotations

import re
import socket
from typing import Final, Protocol

from controlplane_shim.dataplane_client import DataPlaneError

TIMEOUT_SECONDS: Final = 2.0
"""Longest wait for the daemon's answer."""

_TOKEN: Final = re.compile(rb"token ([0-9a-f]{32})")
_ERROR: Final = re.compile(rb"error ([A-Z_]+) (.*)", re.DOTALL)
_REPLY_SIZE: Final = 1024


class Handoff(Protocol):
    """Where descriptors are given to the data plane."""

    def hand_over(self, fd: int) -> str:
        """Gives a copy of `fd`; returns the one-time token that a gRPC call names it by. Raises DataPlaneError."""

    def close(self) -> None:
        """Ends the lease."""


class HandoffClient:
    """Handoff over the daemon's socket."""

    def __init__(self, path: str) -> None:
        """Connects to the Unix socket at `path`. Raises OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(TIMEOUT_SECONDS)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def hand_over(self, fd: int) -> str:
        """See Handoff. A connection that failed is closed for good: a late answer would be taken for the next one's."""
        try:
            socket.send_fds(self._socket, [b"adopt"], [fd])
            reply = self._socket.recv(_REPLY_SIZE)
        except OSError as error:
            self._socket.close()
            raise DataPlaneError("UNAVAILABLE", "", f"hand-off socket: {error}") from error
        if token := _TOKEN.fullmatch(reply):
            return token[1].decode()
        if refusal := _ERROR.fullmatch(reply):
            raise DataPlaneError("FAILED_PRECONDITION", refusal[1].decode(), refusal[2].decode(errors="replace"))
        self._socket.close()
        raise DataPlaneError("UNAVAILABLE", "", "hand-off socket: closed by the data plane, or not one")

    def close(self) -> None:
        """See Handoff."""
        self._socket.close()
