from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from dataplane.datachannel.wire import reset_mark
from dataplane.transport import open_transport
from dataplane.transport.tcp import TcpTransport
from dataplane.transport.tcp_socket import (
    NotAControlStream,
    NotATcpStream,
    TcpSocketInfo,
    inspect_control_stream,
    inspect_tcp,
    is_tcp,
    tune,
)
from dataplane.transport.udp import UdpTransport


@pytest.fixture(params=["127.0.0.1", "::1", "::"])
def connected(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection; with "::" over IPv4, which the near end has v4-mapped."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    dual = request.param == "::"
    with (
        socket.create_server((request.param, 0), family=family, dualstack_ipv6=dual) as server,
        ExitStack() as stack,
    ):
        host, port = server.getsockname()[:2]
        far = stack.enter_context(socket.create_connection(("127.0.0.1" if dual else host, port)))
        near = stack.enter_context(server.accept()[0])
        yield near, far


def test_both_ends_are_told(connected: tuple[socket.socket, socket.socket]) -> None:
    near, far = connected
    local, remote = near.getsockname(), far.getsockname()
    expected = [(ip_address(end[0].removeprefix("::ffff:")), end[1], 0) for end in (local, remote)]
    assert inspect_tcp(near.fileno()) == TcpSocketInfo(*expected)
    assert near.fileno() >= 0


def test_socket_that_is_not_connected_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(NotATcpStream, match="not connected"):
        inspect_tcp(listening.fileno())


def test_what_is_tcp_is_known_by_the_descriptor() -> None:
    read_fd, write_fd = os.pipe()
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_UNIX) as unix:
        assert is_tcp(tcp.fileno())
        assert [is_tcp(fd) for fd in (udp.fileno(), unix.fileno(), read_fd)] == [False] * 3
    os.close(read_fd)
    os.close(write_fd)


def test_a_control_stream_is_a_connected_unix_stream() -> None:
    stream, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    packets, another = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with stream, other, packets, another, socket.socket(socket.AF_UNIX) as lonely, socket.socket() as tcp:
        inspect_control_stream(stream.fileno())
        for wrong in (packets, lonely, tcp):
            with pytest.raises(NotAControlStream):
                inspect_control_stream(wrong.fileno())
    with pytest.raises(NotAControlStream, match="not a socket"):
        inspect_control_stream(os.open("/dev/null", os.O_RDWR))


def test_packets_wait_for_nothing(connected: tuple[socket.socket, socket.socket]) -> None:
    near, _ = connected
    tune(near)
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_transport_is_made_for_what_the_descriptor_is(connected: tuple[socket.socket, socket.socket]) -> None:
    near, _ = connected
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        for fd, control_fd, kind in (
            (near.fileno(), ours.fileno(), TcpTransport),
            (udp.fileno(), None, UdpTransport),
        ):
            transport = open_transport(1, fd, control_fd, reset_mark)
            assert isinstance(transport, kind)
            transport.close()
        with pytest.raises(ValueError, match="without control stream"):
            open_transport(1, near.fileno(), None, reset_mark)
