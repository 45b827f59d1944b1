"""The compiled packet path in this process; tests/worker runs it in a worker beside the readable one."""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from select import select

import pytest

from dataplane.datachannel.wire import KEEPALIVE, PACKET_ID_MAX
from dataplane.fastpath.channel import Peer
from dataplane.fastpath.packet_path import PacketPath
from dataplane.messages import (
    DeviceClosed,
    Endpoint,
    KeyExhausted,
    PeerExpired,
    PeerFloatAsked,
    PeerFloated,
)
from dataplane.statistics_page import drops_of
from dataplane.transport.udp import UdpTransport
from dataplane.transport.udp_socket import UDP_GRO, UDP_SEGMENT
from dataplane.tun.link import set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.vocabulary import Column, DropReason, FloatPolicy, KeySlot, Mode
from tests.fastpath.tunnel import SOCKET_ID, Tunnel, far_key, near_key, new_row, tunnel
from tests.tun.conftest import (
    delete_link,
    fresh_namespace,
    ipv4,
    ipv4_udp,
    tun_in,
    udp_in,
)
from tests.tun.packets import UDP, Packet, slow_checksum

BATCH = 64
HOST, PEER = "10.8.0.1", "10.8.0.11"


class Bench:
    """A packet path over a socket that stands for a TUN, or over a TUN if there is a descriptor of one."""

    def __init__(self, near: Tunnel, tun_fd: int | None = None) -> None:
        self.near = near
        self.waker, self.wake_fd = socket.socketpair()
        self.path = PacketPath(near.channel, tun_fd or near.tun.fileno(), self.wake_fd.fileno())
        self.path.add_transport(near.transport)
        self.far = near.add_peer()

    def round(self) -> None:
        """Waits until something is reported, and serves it and no more."""
        assert select([self.path], [], [], 10)[0]
        self.round_of_what_there_is()

    def round_of_what_there_is(self) -> None:
        """The same without waiting."""
        self.waker.send(b"x")
        assert self.path.serve()
        self.wake_fd.recv(1)

    def is_quiet(self) -> bool:
        """Whether nothing is reported."""
        return select([self.path], [], [], 0)[0] == []


def packet_from_peer(payload: bytes = b"hello") -> bytes:
    return ipv4_udp((PEER, 7), (HOST, 9), payload)


def packet_to_peer(payload: bytes = b"hello") -> bytes:
    return ipv4_udp((HOST, 9), (PEER, 7), payload)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tunnel(Mode.MP) as near:
        yield Bench(near)


# serve() and what makes it return


def test_packets_are_moved_without_return_until_commands_wait(bench: Bench) -> None:
    with ThreadPoolExecutor(max_workers=1) as thread:
        served = thread.submit(bench.path.serve)
        for number in range(50):
            packet = packet_from_peer(bytes([number]))
            bench.far.send(*bench.far.seal(packet))
            assert select([bench.near.frames], [], [], 10)[0]
            assert bench.near.written() == [packet]
            bench.near.frames.send(packet_to_peer(bytes([number])))
            assert bench.far.hear(1) == [packet_to_peer(bytes([number]))]
        assert not served.done()
        bench.waker.send(b"x")
        assert served.result(10)


def test_what_came_before_a_command_is_moved_before_serve_returns(bench: Bench) -> None:
    bench.far.send(*bench.far.seal(packet_from_peer()))
    bench.waker.send(b"x")
    assert bench.path.serve()
    assert bench.near.written() == [packet_from_peer()]


def test_under_load_every_packet_arrives_and_commands_are_heard(bench: Bench) -> None:
    packets = [packet_from_peer(number.to_bytes(2, "big")) for number in range(5000)]
    arrived = []
    with ThreadPoolExecutor(max_workers=1) as thread:
        served = thread.submit(bench.path.serve)
        for sealed in bench.far.seal(*packets):
            bench.far.send(sealed)
            arrived += bench.near.written()
        while len(arrived) < len(packets) and select([bench.near.frames], [], [], 10)[0]:
            arrived += bench.near.written()
        bench.waker.send(b"x")
        assert served.result(10)
    assert arrived == packets


def test_keepalive_is_sent_when_it_is_due(bench: Bench) -> None:
    bench.near.channel.set_keepalive(1, 1, 0, 0)  # due a second after the machine was started
    assert not bench.path.serve()
    bench.path.run_timers()
    assert bench.far.hear(1) == [KEEPALIVE]


def test_silent_peer_expires(bench: Bench) -> None:
    bench.near.channel.set_keepalive(1, 0, 1, 0)
    assert not bench.path.serve()
    bench.path.run_timers()
    assert bench.path.take_messages() == [PeerExpired(1, 101)]
    assert bench.path.take_messages() == []


def test_float_is_told(bench: Bench) -> None:
    moved = bench.near.loopback_socket()
    moved.sendto(bench.far.seal(packet_from_peer())[0], bench.near.udp.getsockname())
    assert not bench.path.serve()
    host, port = moved.getsockname()
    assert bench.path.take_messages() == [PeerFloated(1, 101, Endpoint(socket.inet_aton(host), port), SOCKET_ID)]
    bench.far.udp = moved
    bench.near.frames.send(packet_to_peer())
    bench.round()
    assert bench.far.hear(1) == [packet_to_peer()]


def test_question_for_a_float_is_told(bench: Bench) -> None:
    bench.near.channel.set_float_policy(FloatPolicy.ASK)
    elsewhere = bench.near.loopback_socket()
    elsewhere.sendto(bench.far.seal(packet_from_peer())[0], bench.near.udp.getsockname())
    assert not bench.path.serve()
    host, port = elsewhere.getsockname()
    assert bench.path.take_messages() == [PeerFloatAsked(1, 101, Endpoint(socket.inet_aton(host), port), SOCKET_ID)]
    assert bench.near.written() == []


def test_exhausted_key_is_told(bench: Bench) -> None:
    key = near_key(3)
    key.sent = PACKET_ID_MAX
    bench.path.install_key(1, KeySlot.PRIMARY, key)
    bench.near.frames.send(packet_to_peer())
    assert not bench.path.serve()
    assert bench.path.take_messages() == [KeyExhausted(1, 101, 3)]


# Keys that come late


def test_packets_that_came_before_their_key_are_delivered_with_it(bench: Bench) -> None:
    bench.far.key = far_key(5)
    bench.far.send(*bench.far.seal(packet_from_peer()))
    bench.round()
    assert bench.near.written() == []
    bench.path.install_key(1, KeySlot.SECONDARY, near_key(5))
    assert bench.near.written() == [packet_from_peer()]
    assert bench.far.drops == {}


def test_packets_whose_key_does_not_come_are_counted_in_time(bench: Bench) -> None:
    bench.far.key = far_key(5)
    bench.far.send(*bench.far.seal(packet_from_peer()))
    # No other deadline makes it return.
    assert not bench.path.serve()
    bench.path.run_timers()
    assert bench.far.drops == {DropReason.RX_UNKNOWN_KEY_ID: 1}


# Sockets


def test_each_socket_is_served(bench: Bench) -> None:
    with bench.near.loopback_socket() as second:
        transport = UdpTransport(2, second.fileno())
        bench.path.add_transport(transport)
        assert (bench.path.transport(2), bench.path.transport(3)) == (transport, None)
        bench.far.udp.sendto(bench.far.seal(packet_from_peer())[0], second.getsockname())
        bench.round()
        assert bench.near.written() == [packet_from_peer()]
        # The peer is where it was heard last.
        bench.near.frames.send(packet_to_peer())
        bench.round()
        assert bench.far.udp.recvfrom(100)[1] == second.getsockname()


def test_removed_socket_is_reported_no_more_though_its_owner_keeps_it(
    bench: Bench,
) -> None:
    bench.path.remove_transport(bench.near.transport)
    bench.far.send(b"for the owner")
    assert select([bench.near.udp], [], [], 10)[0]
    assert bench.is_quiet()
    bench.near.frames.send(packet_to_peer())
    bench.round()
    assert bench.far.drops == {DropReason.TX_SEND_FAILED: 1}


def test_socket_that_its_owner_shut_down_is_reported_once(bench: Bench) -> None:
    with pytest.raises(OSError, match="not connected"):  # nevertheless it is shut down
        bench.near.udp.shutdown(socket.SHUT_RDWR)
    bench.round()
    assert bench.is_quiet()


def test_error_of_a_socket_is_reported_once(bench: Bench) -> None:
    ip_recverr = 11
    bench.near.udp.setsockopt(socket.IPPROTO_IP, ip_recverr, 1)
    nobody = bench.far.udp.getsockname()
    bench.far.udp.close()
    bench.near.udp.sendto(b"is anybody there", nobody)
    bench.round()
    assert bench.is_quiet()


def test_one_source_gets_one_batch_a_round(bench: Bench) -> None:
    total = 3 * BATCH
    bench.far.send(*[b"garbage"] * total)
    counts = [0]
    while counts[-1] < total:
        bench.round()
        counts.append(bench.near.row[Column.DROPS + DropReason.RX_TRUNCATED])
    assert max(after - before for before, after in pairwise(counts)) <= BATCH


# A real TUN


@pytest.fixture
def namespace() -> Iterator[str]:
    with fresh_namespace() as path:
        yield path


@pytest.fixture
def device(namespace: str) -> Iterator[Bench]:
    with tun_in(namespace, "tun0", f"{HOST}/24") as tun_fd, tunnel(Mode.MP) as near:
        yield Bench(near, tun_fd)


@pytest.mark.root
def test_answer_of_the_host_is_sent_without_another_wake_up(device: Bench) -> None:
    echo_request = b"\x08\0" + slow_checksum(b"\x08\0" + bytes(6)).to_bytes(2, "big") + bytes(4)
    device.far.send(*device.far.seal(ipv4(PEER, HOST, socket.IPPROTO_ICMP, echo_request)))
    device.round()
    (echo_reply,) = device.far.hear(1)
    assert echo_reply[20:21] == b"\0"


@pytest.mark.root
def test_what_the_host_gives_as_one_goes_to_the_peer_as_one(device: Bench, namespace: str) -> None:
    application = udp_in(namespace, HOST)
    device.far.udp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    payload = bytes(range(250)) * 40
    application.sendmsg(
        [payload],
        [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))],
        0,
        (PEER, 7),
    )
    device.round()
    train = device.far.udp.recv(65535)
    size = len(train) // 10
    opened = [device.far.key.open(train[at : at + size]) for at in range(0, len(train), size)]
    assert b"".join(packet[28:] for packet in opened) == payload


@pytest.mark.root
def test_what_the_peer_sends_as_one_reaches_the_host_as_one(device: Bench, namespace: str) -> None:
    application = udp_in(namespace, HOST)
    application.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    payload = bytes(range(250)) * 40
    port = application.getsockname()[1]
    packets = [
        Packet(protocol=UDP, ports=(7, port), payload=payload[at : at + 1000], identification=at // 1000).pack()
        for at in range(0, len(payload), 1000)
    ]
    device.far.send_train(*device.far.seal(*packets))
    device.round()
    assert application.recv(65535) == payload
    assert device.far.row[Column.VPN_RX_PACKETS] == len(packets)


@pytest.mark.root
def test_deleted_interface_is_told_once_and_nothing_is_served_any_more(device: Bench, namespace: str) -> None:
    device.near.channel.set_keepalive(1, 1, 1, 0)
    delete_link(namespace, "tun0")
    assert not device.path.serve()
    device.path.run_timers()
    assert device.path.take_messages() == [DeviceClosed(errno.EBADFD)]
    device.far.send(b"is anybody there")
    assert device.is_quiet()
    device.path.install_key(1, KeySlot.SECONDARY, near_key(1))
    device.path.remove_transport(device.near.transport)
    device.path.add_transport(UdpTransport(SOCKET_ID, device.near.udp.fileno()))
    assert device.is_quiet()
    device.round_of_what_there_is()
    assert device.path.take_messages() == []


@pytest.mark.root
def test_device_that_is_down_costs_packets_but_is_served_again_when_up(device: Bench, namespace: str) -> None:
    application = udp_in(namespace, HOST)
    set_link("tun0", namespace, admin_up=False)
    packet = ipv4_udp((PEER, 7), application.getsockname(), b"hello")
    device.far.send_train(*device.far.seal(packet, packet))
    device.round()
    assert device.far.drops == {DropReason.RX_TUN_WRITE_FAILED: 2}
    set_link("tun0", namespace, admin_up=True)
    device.far.send(*device.far.seal(packet))
    device.round()
    assert application.recv(100) == b"hello"


# Both ends


class End:
    """A packet path that serves in a thread of its own; `number` 0 or 1 tells which of the two."""

    def __init__(self, number: int, stack: ExitStack) -> None:
        self.number = number
        self.address = f"10.8.0.{1 + number}"
        self.namespace = stack.enter_context(fresh_namespace())
        self._tun_fd = stack.enter_context(tun_in(self.namespace, "tun0", f"{self.address}/24"))
        set_link("tun0", self.namespace, mtu=1420)
        self.near = stack.enter_context(tunnel(Mode.P2P))
        self.row = new_row()

    @contextmanager
    def serving(self, other: End) -> Iterator[None]:
        waker, wake_fd = socket.socketpair()
        path = PacketPath(self.near.channel, self._tun_fd, wake_fd.fileno())
        path.add_transport(self.near.transport)
        remote = other.near.udp.getsockname()
        path.channel.add_peer(Peer(peer_id=1, uid=1, socket_id=SOCKET_ID, remote=remote, row=self.row), 0)
        path.install_key(1, KeySlot.PRIMARY, near_key() if self.number else far_key())
        with waker, wake_fd, ThreadPoolExecutor(max_workers=1) as thread:
            served = thread.submit(path.serve)
            yield
            waker.send(b"x")
            assert served.result(10)


def exchange(connection: socket.socket, sent: bytes) -> bytes:
    """Sends, and receives as much at the same time."""
    received = bytearray()
    with ThreadPoolExecutor(max_workers=1) as thread:
        sending = thread.submit(connection.sendall, sent)
        while len(received) < len(sent):
            received += connection.recv(1 << 20)
        sending.result()
    return bytes(received)


@pytest.mark.root
def test_streams_both_ways_at_full_speed_arrive_intact() -> None:
    size = 8 << 20
    with ExitStack() as stack:
        first, second = End(0, stack), End(1, stack)
        stack.enter_context(first.serving(second))
        stack.enter_context(second.serving(first))
        with (
            in_network_namespace(first.namespace, lambda: socket.create_server((first.address, 7))) as listener,
            in_network_namespace(second.namespace, lambda: socket.create_connection((first.address, 7))) as client,
            listener.accept()[0] as server,
            ThreadPoolExecutor(max_workers=2) as threads,
        ):
            to_server, to_client = (random.Random(seed).randbytes(size) for seed in (1, 2))
            arrived = [threads.submit(exchange, server, to_client), threads.submit(exchange, client, to_server)]
            assert [exchanged.result() for exchanged in arrived] == [to_server, to_client]
    for end in (first, second):
        assert end.row[Column.VPN_RX_PACKETS] > size // 1420
        assert drops_of(end.row) == {}
