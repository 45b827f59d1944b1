from __future__ import annotations

import os
import socket
from typing import Any

import msgspec
import pytest

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.epoch import EpochKey
from dataplane.datachannel.peer import Peer
from dataplane.messages import (
    Configure,
    DeleteKey,
    FromWorker,
    PeerExpired,
    PeerFloated,
    RemovePeer,
    Reply,
    Request,
    SwapKeys,
)
from dataplane.statistics_page import StatisticsPage
from dataplane.vocabulary import Column, KeySlot, Mode
from dataplane.worker.command_channel import CommandChannel
from dataplane.worker.datapath import Datapath
from dataplane.worker.loop import Loop
from tests.worker.conftest import ROWS, DaemonSide, Device, Worker, install_key


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


@pytest.mark.root
def test_packet_that_came_before_its_key_is_delivered_when_the_key_comes(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(DeleteKey(1, KeySlot.PRIMARY))
    far.move()
    far.say(b"early, from elsewhere")
    device.worker.do(install_key(1))
    assert device.worker.event() == PeerFloated(1, 101, far.endpoint, 1)
    assert device.application.recv(100) == b"early, from elsewhere"


class ScriptedPath:
    """A packet path, and its data channel, to which something happens by a command alone."""

    def __init__(self) -> None:
        self.channel = self
        self.messages: list[FromWorker] = []

    def serve(self) -> bool:
        return True

    def run_timers(self) -> None:
        pass

    def set_switches(self, **_: bool) -> None:
        pass

    def remove_peer(self, peer_id: int) -> None:
        self.messages.append(PeerExpired(peer_id, uid=5))

    def take_messages(self) -> list[FromWorker]:
        taken = self.messages.copy()
        self.messages.clear()
        return taken


def test_what_a_command_brought_about_is_told_in_the_same_round() -> None:
    path: Any = ScriptedPath()
    datapath = Datapath(lambda *_: path, Peer, DataKey, EpochKey, lambda *_: path)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    loop = Loop(CommandChannel(theirs.detach()), datapath)
    page_fd = StatisticsPage.create_memfd(ROWS)
    daemon = DaemonSide(ours)
    for command, descriptors in ((Configure("device", Mode.MP, ROWS), [page_fd, page_fd]), (RemovePeer(1), [])):
        daemon.send(msgspec.msgpack.encode(Request(1, command)), *descriptors)
        loop._round()
    assert [daemon.reply(), daemon.reply(), daemon.event()] == [Reply(1), Reply(1), PeerExpired(1, 5)]
    os.close(page_fd)
    ours.close()
