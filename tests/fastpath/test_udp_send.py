from __future__ import annotations

import socket
from contextlib import ExitStack
from ipaddress import IPv4Interface, ip_address

import pytest

from dataplane.fastpath.udp_receive import UdpReceiver
from dataplane.fastpath.udp_send import UdpSender
from dataplane.fastpath.udp_socket import UdpSockets
from dataplane.transport.udp_socket import UDP_GRO, bind_udp
from dataplane.tun.link import set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.vocabulary import DropReason
from tests.fastpath.tunnel import SOCKET_ID, FarEnd, Tunnel, add_veth, tunnel
from tests.tun.conftest import fresh_namespace

SECOND = 1_000_000_000
FAMILIES = [socket.AF_INET, socket.AF_INET6]


def datagrams(*sizes: int) -> list[bytes]:
    return [bytes([index]) * size for index, size in enumerate(sizes)]


def send(near: Tunnel, far: FarEnd, packets: list[bytes]) -> None:
    UdpSender().send_batch([(far.peer, packet) for packet in packets], near.sockets, 0)


def received(far: FarEnd) -> list[bytes]:
    return [payload for payload, *_ in UdpReceiver().take(far.udp.fileno())]


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_datagrams_leave_as_a_train(family: int) -> None:
    with tunnel(family=family) as near:
        far = near.add_peer()
        far.udp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        packets = datagrams(1000, 1000, 1000, 500, 1000)
        send(near, far, packets)
        assert received(far) == [b"".join(packets[:4]), packets[4]]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_peer_gets_its_own_in_order(family: int) -> None:
    with tunnel(family=family) as near:
        first, second = near.add_peer(), FarEnd(near, 2, near.loopback_socket())
        ends = [first, second, first, first, second, second]
        packets = datagrams(100, 200, 100, 101, 200, 10)
        batch = [(far.peer, packet) for far, packet in zip(ends, packets, strict=True)]
        UdpSender().send_batch(batch, near.sockets, 0)
        for far in (first, second):
            assert received(far) == [packet for end, packet in zip(ends, packets, strict=True) if end is far]


def test_socket_that_is_gone_is_a_failed_send() -> None:
    with tunnel() as near:
        far = near.add_peer()
        packets = [(far.peer, packet) for packet in datagrams(100, 100, 200)]
        UdpSender().send_batch(packets, UdpSockets(), 0)
        assert far.drops == {DropReason.TX_SEND_FAILED: 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_answer_leaves_from_the_address_that_was_asked(family: int) -> None:
    local = "127.0.0.9" if family == socket.AF_INET else "::1"
    with (
        tunnel(family=family) as near,
        bind_udp(ip_address("0.0.0.0" if family == socket.AF_INET else "::"), 0) as udp,
    ):
        far = near.add_peer()
        near.channel.set_remote(1, far.udp.getsockname(), ip_address(local).packed)
        sockets = UdpSockets()
        sockets.insert(SOCKET_ID, udp.fileno())
        UdpSender().send_batch([(far.peer, packet) for packet in datagrams(100, 100, 200)], sockets, 0)
        assert {far.udp.recvfrom(1000)[1][0] for _ in range(3)} == {local}
        assert far.peer.local == ip_address(local).packed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [(100,), (100, 100, 50)])
def test_local_address_that_is_gone_is_forgotten(family: int, sizes: tuple[int, ...]) -> None:
    gone = "192.0.2.77" if family == socket.AF_INET else "2001:db8::77"
    with tunnel(family=family) as near:
        far = near.add_peer()
        near.channel.set_remote(1, far.udp.getsockname(), ip_address(gone).packed)
        send(near, far, datagrams(*sizes))
        assert received(far) == datagrams(*sizes)
        assert (far.peer.local, far.drops) == (None, {})


def test_datagram_that_is_too_long_is_a_failed_send_and_the_others_go() -> None:
    with tunnel() as near:
        far = near.add_peer()
        send(near, far, [b"before", bytes(65508), b"behind"])
        assert received(far) == [b"before", b"behind"]
        assert far.drops == {DropReason.TX_SEND_FAILED: 1}


@pytest.mark.root
def test_train_that_the_path_refuses_goes_datagram_by_datagram_and_is_remembered_for_a_second() -> None:
    with fresh_namespace() as namespace, ExitStack() as stack:
        set_link("lo", namespace, admin_up=True, mtu=1000)
        near, far = in_network_namespace(namespace, lambda: one_peer(stack))
        far.udp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        longer, shorter = datagrams(1400, 1400, 1400, 700), datagrams(900, 900)
        sender = UdpSender()
        for packets in (longer, shorter):
            sender.send_batch([(far.peer, packet) for packet in packets], near.sockets, 0)
        assert received(far) == [*longer, b"".join(shorter)]
        assert far.drops == {}

        set_link("lo", namespace, mtu=65536)
        for now_ns, expected in ((SECOND - 1, longer), (SECOND, [b"".join(longer)])):
            sender.send_batch([(far.peer, packet) for packet in longer], near.sockets, now_ns)
            assert received(far) == expected


@pytest.mark.root
def test_full_queue_is_told_from_a_failure() -> None:
    with fresh_namespace() as namespace, ExitStack() as stack:
        set_link("lo", namespace, admin_up=True)
        add_veth((namespace, namespace), IPv4Interface("192.0.2.1/24"))
        near, far = in_network_namespace(namespace, lambda: one_peer(stack))
        # Nobody answers for that address, so all that is sent waits for an answer, and counts as unsent.
        near.channel.set_remote(1, ("192.0.2.2", 1194), None)
        udp = stack.enter_context(in_network_namespace(namespace, lambda: bind_udp(ip_address("192.0.2.1"), 0)))
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
        sockets = UdpSockets()
        sockets.insert(SOCKET_ID, udp.fileno())
        UdpSender().send_batch([(far.peer, bytes(size)) for size in range(1000, 1040)], sockets, 0)
        assert far.drops.keys() == {DropReason.TX_QUEUE_FULL}


def one_peer(stack: ExitStack) -> tuple[Tunnel, FarEnd]:
    near = stack.enter_context(tunnel())
    return near, near.add_peer()
