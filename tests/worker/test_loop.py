from __future__ import annotations

import msgspec
import pytest

from dataplane.messages import Request, SwapKeys
from dataplane.vocabulary import Column
from tests.worker.conftest import Device, Worker


def test_message_that_is_no_request_ends_nothing(worker: Worker) -> None:
    worker.send(b"\xc1garbage")
    assert worker.reply().error == "INTERNAL"
    worker.settle()


def test_replies_wait_for_a_daemon_that_reads_late(worker: Worker) -> None:
    count = 3000  # more than both buffers hold
    for number in range(count):
        worker.send(msgspec.msgpack.encode(Request(number, SwapKeys(9))))
    assert [worker.reply().request_id for _ in range(count)] == list(range(count))


@pytest.mark.root
def test_more_than_a_batch_comes_through_in_order(device: Device) -> None:
    far = device.add_peer(1)
    said = [str(number).encode() for number in range(200)]
    for payload in said:
        far.say(payload)
    assert [device.application.recv(100) for _ in said] == said


@pytest.mark.root
def test_commands_and_both_directions_go_on_beside_each_other(device: Device) -> None:
    far = device.add_peer(1)
    for number in range(200):
        far.say(str(number).encode())
        device.say(str(number).encode(), to=far.vpn_ipv4)
        device.worker.settle()
    assert [int(device.application.recv(100)) for _ in range(200)] == list(range(200))
    assert [int(far.hear()[28:]) for _ in range(200)] == list(range(200))


@pytest.mark.root
def test_two_sockets_and_their_peers_are_served(device: Device) -> None:
    port = device.add_socket(2, "127.0.0.1")
    on_first, on_second = device.add_peer(1), device.add_peer(2, socket_id=2)
    for far in (on_first, on_second):
        device.say(b"hello", to=far.vpn_ipv4)
    senders = [far.udp.recvfrom(100)[1][1] for far in (on_first, on_second)]
    assert senders == [device.port, port]


@pytest.mark.root
def test_counters_are_settled_when_a_reply_comes(device: Device) -> None:
    far = device.add_peer(1)
    far.say(b"hello")
    device.application.recv(100)
    device.worker.settle()
    assert device.page.snapshot(1)[Column.VPN_RX_PACKETS] == 1
