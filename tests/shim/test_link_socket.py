"""Which transport a socket of OpenVPN's is."""

from __future__ import annotations

import os
import socket
from errno import ENOTSOCK

import pytest

from controlplane_shim.link_socket import Transport, UnsuitableSocketError, link_socket


@pytest.mark.parametrize(
    ("family", "kind", "transport"),
    [
        (socket.AF_INET, socket.SOCK_DGRAM, Transport.UDP),
        (socket.AF_INET6, socket.SOCK_DGRAM, Transport.UDP),
        (socket.AF_INET, socket.SOCK_STREAM, Transport.TCP),
        (socket.AF_INET6, socket.SOCK_STREAM, Transport.TCP),
        (socket.AF_UNIX, socket.SOCK_STREAM, Transport.SWITCHED),
    ],
)
def test_a_link_socket_is_told_by_family_and_type(
    family: socket.AddressFamily, kind: socket.SocketKind, transport: Transport
) -> None:
    with socket.socket(family, kind) as openvpn:
        copy, found = link_socket(os.dup(openvpn.fileno()))
        with copy:
            assert found is transport
            assert os.fstat(copy.fileno()).st_ino == os.fstat(openvpn.fileno()).st_ino


def refused(fd: int) -> int:
    """The errno; the descriptor must be closed then."""
    with pytest.raises(UnsuitableSocketError) as caught:
        link_socket(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    return caught.value.errno


def test_what_is_neither_udp_nor_tcp_is_refused_and_closed() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        assert refused(os.dup(unix.fileno())) == ENOTSOCK


def test_what_is_no_socket_is_refused_and_closed() -> None:
    assert refused(os.open(os.devnull, os.O_RDONLY)) == ENOTSOCK
