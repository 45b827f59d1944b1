"""Hands control packets that came on a shared port to the control plane, over an AF_UNIX socket.

Knows how such a packet is wrapped. Must not know which packets these are. One datagram a packet:

    byte  0       IP version, 4 or 6
    byte  1       zero
    bytes 2-3     source port, big endian
    bytes 4-7     scope id (interface index) of an IPv6 source, big endian; 0 for none
    bytes 8-23    source address
    bytes 24-39   address of this host that it came to; zero if unknown
    bytes 40-     the packet

Addresses have 16 bytes; IPv4 stands v4-mapped (::ffff:a.b.c.d), also when it came on an IPv6 socket.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from dataplane.transport.sockaddr import SockAddr, from_sockaddr, pack_address

HEADER: Final = struct.Struct(">BxHI16s16s")


class ControlOutlet:
    """A connected AF_UNIX socket that keeps messages apart. Works on a duplicate of the descriptor, `fd`."""

    def __init__(self, fd: int) -> None:
        """Raises OSError if it is no socket and ValueError if it is another one."""
        self._socket = socket.socket(fileno=os.dup(fd))
        if self._socket.family != socket.AF_UNIX or self._socket.type == socket.SOCK_STREAM:
            self._socket.close()
            raise ValueError("the control outlet is no AF_UNIX socket that keeps messages apart")
        self.fd = self._socket.fileno()

    def close(self) -> None:
        """Closes the duplicate."""
        self._socket.close()

    def send(self, packet: bytes, source: SockAddr, local: bytes | None) -> bool:
        """Hands over a packet; local: packed address it came to. False if there is no room, or nobody any more."""
        message = _header(source, local) + packet
        try:
            self._socket.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True


def _header(source: SockAddr, local: bytes | None) -> bytes:
    address, port, scope_id = from_sockaddr(source)
    version = 4 if len(address) == 4 else 6
    mapped_local = bytes(16) if local is None else pack_address(local, socket.AF_INET6)
    return HEADER.pack(version, port, scope_id, pack_address(address, socket.AF_INET6), mapped_local)
