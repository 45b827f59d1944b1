"""Carries operations out in the data plane, and tells which peers were lost.

Knows what each operation means there, in which order things are made and undone, and what OpenVPN makes of each
answer. Must not know netlink bytes, port ids or groups (session.py).

Three rules stand above all:
* The twin of a UDP socket is deleted before OpenVPN hears that its last peer is gone: it may bind the port anew.
* NewKey never fails, for any error to it ends the whole OpenVPN. It is answered Done, and the peer is lost.
* When the data plane does not answer, everything is lost at once (`fatal`), and no further call is made.
"""

from __future__ import annotations

import os
import socket
import string
from collections.abc import Callable
from errno import EBUSY, EEXIST, EINVAL, ENOENT, ENOTSOCK, EPERM, errorcode
from pathlib import Path
from typing import Final

from ovpn.dataplane.v1 import event_pb2, peer_pb2
from structlog.typing import FilteringBoundLogger

from controlplane_shim.dataplane_client import DEADLINE_SECONDS, DataPlaneError
from controlplane_shim.event_feed import Arrived, Ended
from controlplane_shim.operations import (
    DeletionNotice,
    DelKey,
    DelPeer,
    DelReason,
    Done,
    DumpPeers,
    Failed,
    Family,
    GetFamily,
    GetPeer,
    NewKey,
    NewLink,
    NewPeer,
    Operation,
    Outcome,
    PeerFound,
    PeersFound,
    SetPeer,
    SwapKeys,
)
from controlplane_shim.peers import Device, Peer, Socket
from controlplane_shim.selftest import Link
from controlplane_shim.supervisor.handler import Caller
from controlplane_shim.translate import rpc
from controlplane_shim.tun import delete_interface, open_tun
from controlplane_shim.udp_split import UnsuitableSocketError, split, udp_socket

CLOSE_SECONDS: Final = 2.0
"""How long the deletion of a device may take when the program has ended."""

_NAME_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "._-")


class RefusedError(Exception):
    """OpenVPN gets this errno."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class Offload:
    """The devices, sockets and peers of one session. Single-threaded."""

    def __init__(self, link: Link, ring: Callable[[], None], log: FilteringBoundLogger) -> None:
        """ring: called when take_deletions() has something new, or `fatal` was set."""
        self._link = link
        self._dataplane = link.dataplane
        self._ring = ring
        self._log = log
        self._devices: dict[int, Device] = {}
        self._deletions: list[DeletionNotice] = []
        self._heartbeat = link.heartbeat
        self.fatal = ""
        """Why OpenVPN cannot be served any more; empty while it can."""

    def perform(self, operation: Operation, family: Family, caller: Caller) -> Outcome:
        """Does what OpenVPN asks for; whatever the data plane refuses becomes Failed."""
        if self.fatal:
            return _after_the_end(operation)
        try:
            return self._dispatch(operation, family, caller)
        except (RefusedError, UnsuitableSocketError) as refusal:
            return Failed(refusal.errno, str(refusal))
        except DataPlaneError as error:
            if error.gone:
                self.give_up(str(error))
                return _after_the_end(operation)
            return rpc.failure(operation, error.code, error.reason, error.message)
