"""Datagrams to netlink port ids: what the program reads as coming from the kernel.

Knows netlink sockets and full receive queues. Must not know what the datagrams say. A process with CAP_NET_ADMIN may
send to another's port id; the receiver sees our port id as the sender.
"""

from __future__ import annotations

import errno
import socket
from collections import deque

RETRY_SECONDS = 0.02
_SEND_BUFFER = 1 << 20
_QUEUE_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS})

_Address = tuple[int, int]  # protocol, port id


class Unicaster:
    """Sends in order to each port id, and keeps what does not fit until it does. Never blocks.

    What is kept is bounded by what one program can cause while it does not read: the answers to one system call, and
    a notice for each peer it has.
    """

    def __init__(self, protocols: tuple[int, ...]) -> None:
        self._sockets = {protocol: self._open(protocol) for protocol in protocols}
        self._kept: dict[_Address, deque[bytes]] = {}

    def send(self, protocol: int, port_id: int, datagram: bytes) -> None:
        """Sends, or keeps the datagram if the receiver's queue is full.

        Raises OSError: ECONNREFUSED if no socket has this port id, EPERM without CAP_NET_ADMIN.
        """
        address = protocol, port_id
        if address in self._kept:
            self._kept[address].append(datagram)
        elif not self._try(address, datagram):
            self._kept[address] = deque([datagram])

    def retry(self) -> list[int]:
        """Sends what was kept, as far as it goes; returns the port ids that are gone."""
        gone = []
        for address, datagrams in list(self._kept.items()):
            try:
                while datagrams and self._try(address, datagrams[0]):
                    datagrams.popleft()
            except OSError:
                datagrams.clear()
                gone.append(address[1])
            if not datagrams:
                del self._kept[address]
        return gone

    def retry_after_seconds(self) -> float | None:
        """When to call retry(); None if nothing is kept. The kernel gives no event for a foreign queue with room."""
        return RETRY_SECONDS if self._kept else None

    def close(self) -> None:
        """Closes the sockets and forgets what was kept."""
        self._kept.clear()
        for sender in self._sockets.values():
            sender.close()

    def _try(self, address: _Address, datagram: bytes) -> bool:
        protocol, port_id = address
        try:
            self._sockets[protocol].sendto(datagram, (port_id, 0))
        except OSError as error:
            if error.errno in _QUEUE_FULL:
                return False
            raise
        return True

    @staticmethod
    def _open(protocol: int) -> socket.socket:
        sender = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        sender.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        sender.bind((0, 0))  # now, lest it gets the port id of a closed receiver and hears what was meant for that
        return sender
