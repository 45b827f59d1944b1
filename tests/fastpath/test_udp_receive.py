from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dataplane.fastpath.udp_receive import UdpReceiver
from dataplane.transport.udp import UdpTransport
from dataplane.transport.udp_socket import UDP_GRO, UDP_SEGMENT

BATCH = 64
LOOPBACK: dict[int, tuple[str, int]] = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}


class Link:
    """A socket to receive on, as the packet path has it, and one that sends to it."""

    def __init__(self, family: int, stack: ExitStack, *, any_address: bool = False) -> None:
        self.near = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        self.near.bind(("", 0) if any_address else LOOPBACK[family])
        self.transport = UdpTransport(1, self.near.fileno())
        stack.callback(self.transport.close)
        self.far = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        self.far.bind(LOOPBACK[family])
        self.far.connect((LOOPBACK[family][0], self.near.getsockname()[1]))

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.far.send(datagram)

    def send_train(self, payload: bytes, segment_size: int) -> None:
        self.far.sendmsg(
            [payload],
            [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", segment_size))],
        )


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as closing:
        yield closing


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def link(request: pytest.FixtureRequest, stack: ExitStack) -> Link:
    return Link(request.param, stack)


def test_datagrams_come_in_order_with_source_and_local_address(link: Link) -> None:
    payloads = [b"first", b"", b"third" * 200]
    link.send(*payloads)
    local = socket.inet_pton(link.near.family, link.near.getsockname()[0])
    assert UdpReceiver().take(link.transport.fd) == [
        (payload, len(payload), link.far.getsockname(), local) for payload in payloads
    ]


def test_nothing_waits(link: Link) -> None:
    assert UdpReceiver().take(link.transport.fd) == []


def test_a_batch_is_bounded_and_the_rest_stays(link: Link) -> None:
    link.send(*[bytes([number]) for number in range(BATCH + 3)])
    receiver = UdpReceiver()
    assert [len(receiver.take(link.transport.fd)) for _ in range(3)] == [BATCH, 3, 0]


def test_longest_datagram_comes_whole(link: Link) -> None:
    longest = bytes(range(256)) * 255 + bytes(200)
    link.send(longest, b"next")
    assert [payload for payload, *_ in UdpReceiver().take(link.transport.fd)] == [
        longest,
        b"next",
    ]


def test_a_train_comes_as_one_and_tells_its_segments(link: Link) -> None:
    link.near.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    payload = bytes(range(250)) * 10
    link.send_train(payload, 1000)
    link.send(b"lone")
    received = UdpReceiver().take(link.transport.fd)
    assert [(data, size) for data, size, *_ in received] == [
        (payload, 1000),
        (b"lone", 4),
    ]


def test_without_gro_a_train_comes_as_its_segments(link: Link) -> None:
    link.send_train(bytes(2500), 1000)
    assert [size for _, size, *_ in UdpReceiver().take(link.transport.fd)] == [
        1000,
        1000,
        500,
    ]


def test_sockets_of_both_families_share_a_receiver(stack: ExitStack) -> None:
    receiver = UdpReceiver()
    for family in (socket.AF_INET6, socket.AF_INET, socket.AF_INET6):
        link = Link(family, stack)
        link.send(b"hello")
        ((payload, _, source, local),) = receiver.take(link.transport.fd)
        assert (payload, source) == (b"hello", link.far.getsockname())
        assert local == socket.inet_pton(family, LOOPBACK[family][0])


def test_ipv4_peer_of_a_dual_stack_socket_is_v4_mapped(stack: ExitStack) -> None:
    link = Link(socket.AF_INET6, stack, any_address=True)
    # A second kind of packet info, which the owner of an adopted socket may have asked for.
    link.near.setsockopt(socket.IPPROTO_IP, 8, 1)
    peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer.sendto(b"hello", ("127.0.0.1", link.near.getsockname()[1]))
    assert UdpReceiver().take(link.transport.fd) == [
        (
            b"hello",
            5,
            ("::ffff:127.0.0.1", peer.getsockname()[1], 0, 0),
            socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1"),
        )
    ]


def test_local_address_is_unknown_without_packet_info(stack: ExitStack) -> None:
    link = Link(socket.AF_INET, stack)
    link.near.setsockopt(socket.IPPROTO_IP, 8, 0)
    link.send(b"hello")
    assert UdpReceiver().take(link.near.fileno())[0][3] is None


def test_other_ancillary_data_is_ignored(link: Link) -> None:
    so_timestamp = 29
    link.near.setsockopt(socket.SOL_SOCKET, so_timestamp, 1)
    link.send(b"hello")
    ((payload, size, source, local),) = UdpReceiver().take(link.transport.fd)
    assert (payload, size, source) == (b"hello", 5, link.far.getsockname())
    assert local is not None


def test_an_icmp_error_costs_no_datagram(link: Link) -> None:
    gone = socket.socket(link.near.family, socket.SOCK_DGRAM)
    gone.bind(LOOPBACK[link.near.family])
    nobody = gone.getsockname()
    gone.close()
    ip_recverr = (socket.IPPROTO_IP, 11) if link.near.family == socket.AF_INET else (socket.IPPROTO_IPV6, 25)
    link.near.setsockopt(*ip_recverr, 1)
    link.near.sendto(b"nobody listens", nobody)
    link.send(b"hello")
    receiver = UdpReceiver()
    received = [*receiver.take(link.transport.fd), *receiver.take(link.transport.fd)]
    assert [payload for payload, *_ in received] == [b"hello"]
