"""What each command of the daemon does.

Knows the messages and whose business each is: the data channel's, or the packet path's. Must not know how messages
come and go. A command that fails changes nothing and ends nothing: its Reply says why.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from select import epoll
from typing import Final

from msgspec import UNSET

from dataplane.datachannel.aead import DataKey, KeyDirection
from dataplane.datachannel.channel import DataChannel, Peer, PeerExists, UnknownPeer
from dataplane.datachannel.keepalive import Keepalive
from dataplane.messages import (
    AddPeer,
    AddSocket,
    Command,
    Configure,
    DeleteKey,
    InstallKey,
    RemovePeer,
    RemoveSocket,
    Reply,
    Request,
    Stop,
    SwapKeys,
    UpdatePeer,
)
from dataplane.statistics_page import DEVICE_ROW, StatisticsPage
from dataplane.transport.sockaddr import AddressFamilyMismatch
from dataplane.transport.udp import UdpTransport
from dataplane.transport.udp_socket import NotAUdpSocket, SocketNotBound
from dataplane.tun.device import TunDevice
from dataplane.vocabulary import PEER_ID_UNDEF, Cipher, KeySlot, Mode
from dataplane.worker.packet_path import PacketPath


class Refused(Exception):  # noqa: N818 - the leaf names the fact
    """A command that cannot be done. reason: as in the API's ErrorInfo."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


_REASONS: Final[dict[type[Exception], str]] = {
    UnknownPeer: "PEER_NOT_FOUND",
    PeerExists: "PEER_EXISTS",
    AddressFamilyMismatch: "ADDRESS_FAMILY_MISMATCH",
    NotAUdpSocket: "NOT_A_UDP_SOCKET",
    SocketNotBound: "SOCKET_NOT_BOUND",
}

_DESCRIPTORS: Final[dict[type, int]] = {Configure: 2, AddSocket: 1}


class Commands:
    """Does commands. path: None before Configure; stopped: after Stop."""

    def __init__(self, poller: epoll) -> None:
        self._poller = poller
        self._page: StatisticsPage | None = None
        self.path: PacketPath | None = None
        self.stopped = False
