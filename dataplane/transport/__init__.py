"""Transports of OpenVPN packets: UDP and TCP."""

from __future__ import annotations

from dataplane.transport.tcp import OrderMark, TcpTransport
from dataplane.transport.tcp_socket import is_tcp
from dataplane.transport.udp import UdpTransport

Transport = UdpTransport | TcpTransport


def open_transport(
    socket_id: int, fd: int, control_fd: int | None, order_mark: OrderMark, *, copy_dscp: bool = False
) -> Transport:
    """Makes what serves this socket. order_mark: for TCP; copy_dscp: for UDP.

    Raises OSError, ValueError and what the transports of both kinds raise.
    """
    if not is_tcp(fd):
        return UdpTransport(socket_id, fd, control_fd, copy_dscp=copy_dscp)
    if control_fd is None:
        raise ValueError("a TCP socket without control stream")
    return TcpTransport(socket_id, fd, control_fd, order_mark)
