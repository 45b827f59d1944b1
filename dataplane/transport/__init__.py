"""Transports of OpenVPN packets: UDP and TCP."""

from __future__ import annotations

from dataplane.transport.tcp import TcpTransport
from dataplane.transport.tcp_socket import is_tcp
from dataplane.transport.udp import UdpTransport

Transport = UdpTransport | TcpTransport


def open_transport(socket_id: int, fd: int, control_fd: int | None) -> Transport:
    """Makes what serves this socket. Raises OSError, ValueError and what the transports of both kinds raise."""
    if not is_tcp(fd):
        return UdpTransport(socket_id, fd, control_fd)
    if control_fd is None:
        raise ValueError("a TCP socket without control stream")
    return TcpTransport(socket_id, fd, control_fd)
