"""UDP: datagrams in and out in batches, with the local address of each.

Knows one bound socket; packet info (ip(7) IP_PKTINFO, RFC 3542 IPV6_PKTINFO), by which an answer leaves from the
address that was asked; and trains, many datagrams of a flow that the kernel takes and gives as one (UDP_SEGMENT,
UDP_GRO). Must not know what a datagram holds, nor peers beyond what `Destination` says.

Every call carries MSG_DONTWAIT: O_NONBLOCK would also change the socket for whoever shares it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final, Protocol

from dataplane.transport.control_outlet import ControlOutlet
from dataplane.transport.segment_runs import segment_runs
from dataplane.transport.sockaddr import (
    AddressFamilyMismatch,
    SockAddr,
    from_sockaddr,
    pack_address,
    to_sockaddr,
    unmap,
)
from dataplane.transport.udp_socket import UDP_GRO, UDP_SEGMENT, inspect_udp
from dataplane.vocabulary import DropReason

Datagram = tuple[bytes, SockAddr, bytes | None]
"""Payload, source, and the packed local address it came to."""

_ControlMessage = tuple[int, int, bytes]
"""Level, type and data, as recvmsg and sendmsg have them."""

# Not in the socket module of Python 3.11; value of <linux/in.h>.
IP_PKTINFO: Final = 8

_PKTINFO4: Final = struct.Struct("=i4s4s")  # in_pktinfo: interface index, local address, address in the header
_PKTINFO6: Final = struct.Struct("=16sI")  # in6_pktinfo: address, interface index

_SEGMENT_SIZE: Final = struct.Struct("=H")
_GRO_SIZE: Final = struct.Struct("=i")
_TOS: Final = struct.Struct("=i")
_TRAIN_MAX: Final[dict[int, int]] = {socket.AF_INET: 65535 - 20 - 8, socket.AF_INET6: 65535 - 40 - 8}
"""Bytes that a train may have: it is a single packet, with its headers, until the kernel cuts it."""

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
    """A bound UDP socket, and where the control packets that come on it go. Works on duplicates of the descriptors.

    fd: the socket; control: where control packets go, None if nobody wants them; control_fd: its descriptor or None.
    copy_dscp: packets get the TOS that send_batch() is told.
    """

    def __init__(self, socket_id: int, fd: int, control_fd: int | None = None, *, copy_dscp: bool = False) -> None:
        """Raises NotAUdpSocket, SocketNotBound; OSError, ValueError if control_fd is not what ControlOutlet wants."""
        info = inspect_udp(fd)
        self.control = None if control_fd is None else ControlOutlet(control_fd)
        self.control_fd = None if self.control is None else self.control.fd
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
        self._sends_trains = _knows_segments(self._socket)
        self.copy_dscp = copy_dscp

    def close(self) -> None:
        """Closes the duplicates."""
        self._socket.close()
        if self.control is not None:
            self.control.close()

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
        """Takes the datagrams that wait, until there are `limit`, and all of the last train."""
        receive = self._socket.recvmsg
        datagrams: list[Datagram] = []
        for _ in range(limit):
            if len(datagrams) >= limit:
                break
            try:
                payload, ancillary, _, source = receive(_LONGEST_DATAGRAM, _ANCILLARY_SPACE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error about an earlier packet; Linux tells it once, in place of a datagram.
                continue
            local, size = self._read_ancillary(ancillary)
            size = size or len(payload)
            if len(payload) <= size:
                datagrams.append((payload, source, local))
            else:
                datagrams += [(payload[at : at + size], source, local) for at in range(0, len(payload), size)]
        return datagrams

    def _read_ancillary(self, ancillary: list[_ControlMessage]) -> tuple[bytes | None, int]:
        """The local address, if it is known, and the size of a datagram in a train, 0 if it is none."""
        local, size = None, 0
        for level, kind, data in ancillary:
            if (level, kind) == self._pktinfo:
                local = data[4:8] if self.family == socket.AF_INET else data[:16]
            elif (level, kind) == (socket.IPPROTO_UDP, UDP_GRO):
                (size,) = _GRO_SIZE.unpack(data)
        return local, size

    def send_batch(self, packets: Iterable[tuple[Destination, bytes]], tos: int = 0) -> None:
        """Sends packets in order; one that cannot be sent is dropped: TX_QUEUE_FULL or TX_SEND_FAILED.

        tos: of all of them, 0..255, for a socket that copies the DSCP.
        """
        tos = tos if self.copy_dscp else 0
        for destination, run in segment_runs(packets, _TRAIN_MAX[self.family] if self._sends_trains else 0):
            if len(run) == 1 or not self._send_train(run, destination, tos):
                self._send_each(run, destination, tos)

    def _send_train(self, run: list[bytes], destination: Destination, tos: int) -> bool:
        """False if the kernel refuses: datagrams longer than the path's MTU, a device without checksum offload."""
        size = (socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(len(run[0])))
        ancillary = [size, *self._ancillary_of(destination.remote, destination.local, tos)]
        try:
            self._socket.sendmsg(run, ancillary, socket.MSG_DONTWAIT, destination.remote)
        except OSError:
            return False
        return True

    def _send_each(self, run: list[bytes], destination: Destination, tos: int) -> None:
        for packet in run:
            try:
                self._send(packet, destination.remote, destination.local, tos)
            except OSError as error:
                self._send_failed(destination, packet, tos, error.errno)

    def _send(self, packet: bytes, remote: SockAddr, local: bytes | None, tos: int) -> None:
        self._socket.sendmsg((packet,), self._ancillary_of(remote, local, tos), socket.MSG_DONTWAIT, remote)

    def _ancillary_of(self, remote: SockAddr, local: bytes | None, tos: int) -> list[_ControlMessage]:
        return [*self._pktinfo_of(remote, local), *([_tos_message(remote, tos)] if tos else [])]

    def _pktinfo_of(self, remote: SockAddr, local: bytes | None) -> list[_ControlMessage]:
        if local is None:
            return []
        if self.family == socket.AF_INET:
            return [(*self._pktinfo, _PKTINFO4.pack(0, local, local))]
        # A link-local source means nothing without its interface, which is the one of the remote.
        return [(*self._pktinfo, _PKTINFO6.pack(local, remote[3] if len(remote) == 4 else 0))]

    def _send_failed(self, destination: Destination, packet: bytes, tos: int, number: int | None) -> None:
        if destination.local is not None and number in _LOCAL_ADDRESS_GONE:
            try:
                self._send(packet, destination.remote, None, tos)
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


def _tos_message(remote: SockAddr, tos: int) -> _ControlMessage:
    # What goes to a v4-mapped address is an IPv4 packet.
    if len(from_sockaddr(remote)[0]) == 4:
        return socket.IPPROTO_IP, socket.IP_TOS, _TOS.pack(tos)
    return socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _TOS.pack(tos)


def _knows_segments(udp: socket.socket) -> bool:
    # A kernel that does not would ignore the control message and send the whole train as one datagram.
    try:
        udp.getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True
