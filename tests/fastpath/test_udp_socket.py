from __future__ import annotations

import socket
from select import EPOLLERR, EPOLLIN, epoll

from dataplane.fastpath.udp_socket import clear_errors_of

IP_RECVERR = 11


def test_cleared_errors_are_reported_no_more() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
        nobody.close()
        udp.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        poller = epoll()
        poller.register(udp.fileno(), EPOLLIN)
        for _ in range(3):
            # The first takes the error that the one before it brought about.
            udp.settimeout(0)
            _send_whatever_it_says(udp, address)
        assert poller.poll(10) == [(udp.fileno(), EPOLLERR)]
        clear_errors_of(udp.fileno(), 1)
        assert poller.poll(0) == [(udp.fileno(), EPOLLERR)]
        clear_errors_of(udp.fileno(), 64)
        assert poller.poll(0) == []


def _send_whatever_it_says(udp: socket.socket, address: tuple[str, int]) -> None:
    try:
        udp.sendto(b"nobody listens", address)
    except ConnectionRefusedError:
        udp.sendto(b"nobody listens", address)
