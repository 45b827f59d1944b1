"""UDP: datagrams in and out in batches, with the local address of each.

Knows one bound socket and packet info (ip(7) IP_PKTINFO, RFC 3542 IPV6_PKTINFO), by which an answer leaves from the
address that was asked. Must not know what a datagram holds, nor peers beyond what `Destination` says.

Every call carries MSG_DONTWAIT: O_NONBLOCK would also change the socket for whoever shares it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final, Protocol

from dataplane.transport.sockaddr import AddressFamilyMismatch, SockAddr, pack_address, to_sockaddr, unmap
from dataplane.transport.udp_socket import inspect_udp
from dataplane.vocabulary import DropReason

Datagram = tuple[bytes, SockAddr, bytes | None]
"""Payload, source, and the packed local address it came to."""

# Not in the socket module of Python 3.11; value of <linux/in.h>.
IP_PKTINFO: Final = 8

_PKTINFO4: Final = struct.Struct("=i4s4s")  # in_pktinfo: interface index, local address, address in the header
_PKTINFO6: Final = struct.Struct("=16sI")  # in6_pktinfo: address, interface index

# No UDP payload is longer; so a datagram is never cut, and one too long to be OpenVPN's shows by its length.
_LONGEST_DATAGRAM: Final = 65535
_ANCILLARY_SPACE: Final = 256  # packet info and whatever else the owner of an adopted socket asked for

_QUEUE_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS})
# What Linux says when a source address is not (or no longer) this host's, by IP version and age of the kernel.
_LOCAL_ADDRESS_GONE: Final = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH})


class Destination(Protocol):
    """Where a packet goes. local: packed, as receive_batch gives it, or None to let the kernel choose."""

    remote: SockAddr
    local: bytes | None

    def drop(self, reason: DropReason) -> None:
        """Counts a packet that was not sent."""


class UdpTransport:
    """A bound UDP socket. Works on a duplicate of the descriptor, `fd`."""

    def __init__(self, socket_id: int, fd: int) -> None:
        """Raises NotAUdpSocket, SocketNotBound."""
        info = inspect_udp(fd)
        self.socket_id = socket_id
        self.family = info.family
        self._ipv6_only = info.ipv6_only
        self._socket = socket.socket(fileno=os.dup(fd))
        self.fd = self._socket.fileno()
        if self.family == socket.AF_INET:
            self._pktinfo = (socket.IPPROTO_IP, IP_PKTINFO)
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        else:
            self._pktinfo = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

    def close(self) -> None:
        """Closes the duplicate."""
        self._socket.close()

    def sockaddr(self, address: bytes, port: int, scope_id: int = 0) -> SockAddr:
        """The form in which this socket knows an endpoint. Raises AddressFamilyMismatch, ValueError."""
        return to_sockaddr(self._require_reachable(address), port, scope_id, self.family)

    def local_address(self, address: bytes) -> bytes:
        """The form in which this socket knows a local address. Raises AddressFamilyMismatch, ValueError."""
        return pack_address(self._require_reachable(address), self.family)

    def _require_reachable(self, address: bytes) -> bytes:
        if self._ipv6_only and len(unmap(address)) == 4:
            raise AddressFamilyMismatch("an IPv4 address on a socket that is IPv6 only")
        return address

    def receive_batch(self, limit: int) -> list[Datagram]:
        """Takes the datagrams that wait, `limit` at most."""
        receive = self._socket.recvmsg
        datagrams: list[Datagram] = []
        for _ in range(limit):
            try:
                payload, ancillary, _, source = receive(_LONGEST_DATAGRAM, _ANCILLARY_SPACE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error about an earlier packet; Linux tells it once, in place of a datagram.
                continue
            datagrams.append((payload, source, self._local_address_in(ancillary)))
        return datagrams

    def _local_address_in(self, ancillary: list[tuple[int, int, bytes]]) -> bytes | None:
        for level, kind, data in ancillary:
            if (level, kind) == self._pktinfo:
                return data[4:8] if self.family == socket.AF_INET else data[:16]
        return None

    def send_batch(self, packets: Iterable[tuple[Destination, bytes]]) -> None:
        """Sends packets in order; one that cannot be sent is dropped: TX_QUEUE_FULL or TX_SEND_FAILED."""
        for destination, packet in packets:
            try:
                self._send(packet, destination.remote, destination.local)
            except OSError as error:
                self._send_failed(destination, packet, error.errno)

    def _send(self, packet: bytes, remote: SockAddr, local: bytes | None) -> None:
        if local is None:
            self._socket.sendto(packet, socket.MSG_DONTWAIT, remote)
            return
        if self.family == socket.AF_INET:
            pktinfo = _PKTINFO4.pack(0, local, local)
        else:
            # A link-local source means nothing without its interface, which is the one of the remote.
            pktinfo = _PKTINFO6.pack(local, remote[3] if len(remote) == 4 else 0)
        self._socket.sendmsg((packet,), ((*self._pktinfo, pktinfo),), socket.MSG_DONTWAIT, remote)

    def _send_failed(self, destination: Destination, packet: bytes, number: int | None) -> None:
        if destination.local is not None and number in _LOCAL_ADDRESS_GONE:
            try:
                self._send(packet, destination.remote, None)
            except OSError as error:
                number = error.errno
            else:
                destination.local = None
                return
        destination.drop(DropReason.TX_QUEUE_FULL if number in _QUEUE_FULL else DropReason.TX_SEND_FAILED)

    def clear_errors(self, limit: int) -> None:
        """Takes pending errors off the socket, which otherwise make epoll report EPOLLERR for ever.

        The owner of an adopted socket may have set IP_RECVERR, which queues errors: `limit` of them at most are taken.
        """
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        for _ in range(limit):
            try:
                self._socket.recvmsg(0, 0, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except OSError:
                return
