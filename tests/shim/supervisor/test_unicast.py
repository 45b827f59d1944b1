from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from controlplane_shim.supervisor.unicast import Unicaster

pytestmark = pytest.mark.root

GENERIC = 16


@pytest.fixture
def unicaster() -> Iterator[Unicaster]:
    made = Unicaster((0, GENERIC))
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, GENERIC) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.bind((0, 0))
        made.setblocking(False)
        yield made


def port_id(receiver: socket.socket) -> int:
    return int(receiver.getsockname()[0])


def drain(receiver: socket.socket) -> list[int]:
    found = []
    while True:
        try:
            found.append(struct.unpack_from("=I", receiver.recv(65536))[0])
        except BlockingIOError:
            return found


def send_numbers(unicaster: Unicaster, receiver: socket.socket, numbers: range) -> None:
    for number in numbers:
        unicaster.send(GENERIC, port_id(receiver), struct.pack("=I", number) + bytes(1000))


def test_datagram_arrives_from_a_sender_with_a_port_id(unicaster: Unicaster, receiver: socket.socket) -> None:
    unicaster.send(GENERIC, port_id(receiver), b"abcd")
    data, (sender, groups) = receiver.recvfrom(100)
    assert (data, groups) == (b"abcd", 0)
    assert sender not in {0, port_id(receiver)}


def test_nothing_waits_when_there_is_room(unicaster: Unicaster, receiver: socket.socket) -> None:
    unicaster.send(GENERIC, port_id(receiver), b"abcd")
    assert unicaster.retry_after_seconds() is None


def test_full_queue_loses_nothing_and_keeps_the_order(unicaster: Unicaster, receiver: socket.socket) -> None:
    send_numbers(unicaster, receiver, range(50))
    assert unicaster.retry_after_seconds() is not None
    found: list[int] = []
    while unicaster.retry_after_seconds() is not None:
        found += drain(receiver)
        assert unicaster.retry() == []
    assert found + drain(receiver) == list(range(50))


def test_datagram_does_not_overtake_those_that_wait(unicaster: Unicaster, receiver: socket.socket) -> None:
    send_numbers(unicaster, receiver, range(50))
    found = drain(receiver)
    send_numbers(unicaster, receiver, range(50, 51))
    while unicaster.retry_after_seconds() is not None:
        unicaster.retry()
        found += drain(receiver)
    assert found + drain(receiver) == list(range(51))


def test_full_queue_of_one_delays_no_other(unicaster: Unicaster, receiver: socket.socket) -> None:
    send_numbers(unicaster, receiver, range(50))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, GENERIC) as other:
        other.bind((0, 0))
        other.setblocking(False)
        send_numbers(unicaster, other, range(1))
        assert drain(other) == [0]


def test_closed_socket_is_refused(unicaster: Unicaster, receiver: socket.socket) -> None:
    gone = port_id(receiver)
    receiver.close()
    with pytest.raises(ConnectionRefusedError):
        unicaster.send(GENERIC, gone, b"abcd")


def test_socket_that_closes_while_datagrams_wait_is_told_once(unicaster: Unicaster, receiver: socket.socket) -> None:
    gone = port_id(receiver)
    send_numbers(unicaster, receiver, range(50))
    receiver.close()
    assert unicaster.retry() == [gone]
    assert unicaster.retry() == []
    assert unicaster.retry_after_seconds() is None
