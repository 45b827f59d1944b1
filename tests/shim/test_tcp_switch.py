"""The pair that takes the place of a TCP socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from errno import ENOTSOCK

import pytest

from controlplane_shim.link_socket import UnsuitableSocketError
from controlplane_shim.tcp_switch import ControlStream
from tests.descriptors import open_fds


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    """OpenVPN's."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as remote:
        tcp, _address = server.accept()
        with tcp, remote:
            tcp.setblocking(False)
            yield tcp


@pytest.fixture
def stream(tcp: socket.socket) -> Iterator[ControlStream]:
    stream = ControlStream(tcp)
    yield stream
    stream.close()


@pytest.mark.parametrize("blocking", [True, False])
def test_openvpns_end_blocks_as_its_tcp_socket_does(tcp: socket.socket, blocking: bool) -> None:
    tcp.setblocking(blocking)
    stream = ControlStream(tcp)
    assert os.get_blocking(stream.openvpn.fileno()) == blocking
    stream.close()


def test_the_tcp_socket_is_readable_by_the_byte_again(tcp: socket.socket) -> None:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 100)
    ControlStream(tcp).close()
    assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


def test_a_socket_that_is_not_connected_is_refused() -> None:
    before = open_fds()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, pytest.raises(UnsuitableSocketError) as caught:
        ControlStream(tcp)
    assert caught.value.errno == ENOTSOCK
    assert open_fds() <= before


def test_openvpn_reads_what_waits_and_then_the_end_when_told_to(stream: ControlStream) -> None:
    with stream.openvpn.dup() as openvpn:
        stream.begin()
        stream.outlet.send(b"last words")
        stream.hang_up()
        assert openvpn.recv(100) == b"last words"
        assert openvpn.recv(100) == b""
        openvpn.send(b"goodbye")
        assert stream.outlet.recv(100) == b"goodbye"


def test_openvpn_does_not_read_the_end_when_the_data_plane_has_died(stream: ControlStream) -> None:
    with stream.openvpn.dup() as openvpn:
        stream.begin()
        stream.outlet.dup().close()
        with pytest.raises(BlockingIOError):
            openvpn.recv(100)


def test_a_stream_is_abandoned_when_openvpn_has_closed_its_end(stream: ControlStream) -> None:
    openvpn = stream.openvpn.dup()
    stream.begin()
    openvpn.send(b"unread")
    assert not stream.is_abandoned()
    openvpn.close()
    assert stream.is_abandoned()
    assert stream.outlet.recv(100) == b"unread"


def test_nothing_is_left_open(tcp: socket.socket) -> None:
    before = open_fds()
    stream = ControlStream(tcp)
    stream.close()
    stream.close()
    stream.hang_up()
    assert open_fds() <= before
