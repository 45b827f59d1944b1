from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, ip_address

import pytest

from dataplane.transport.sockaddr import AddressFamilyMismatch, SockAddr
from dataplane.transport.udp import UdpTransport
from dataplane.transport.udp_socket import UDP_SEGMENT, NotAUdpSocket, bind_udp
from dataplane.tun.link import get_link, set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.vocabulary import DropReason
from tests.tun.conftest import enable_ipv6, fresh_namespace, tun_in, udp_in, wait_for_addresses

IP_RECVERR = 11

MakeTransport = Callable[..., UdpTransport]


class Destination:
    def __init__(self, remote: SockAddr, local: bytes | None = None) -> None:
        self.remote = remote
        self.local = local
        self.drops: list[DropReason] = []

    def drop(self, reason: DropReason) -> None:
        self.drops.append(reason)


@pytest.fixture
def namespace() -> Iterator[str]:
    """With nothing in it but a loopback interface, so that nothing else is reachable."""
    with fresh_namespace() as path:
        set_link("lo", path, admin_up=True)
        yield path


@pytest.fixture
def make_transport() -> Iterator[MakeTransport]:
    made: list[UdpTransport] = []

    def make(address: str, *, ipv6_only: bool = False, namespace: str = "", copy_dscp: bool = False) -> UdpTransport:
        udp = in_network_namespace(namespace, lambda: bind_udp(ip_address(address), 0, ipv6_only=ipv6_only))
        with udp:
            made.append(UdpTransport(1, udp.fileno(), copy_dscp=copy_dscp))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


def port_of(transport: UdpTransport) -> int:
    with socket.socket(fileno=transport.fd) as udp:
        port = int(udp.getsockname()[1])
        udp.detach()
    return port


def client(address: str = "127.0.0.1") -> socket.socket:
    return udp_in("", address)


# Receiving


@pytest.mark.parametrize(
    ("bound_to", "client_at", "sent_to", "source", "local"),
    [
        ("0.0.0.0", "127.0.0.1", "127.0.0.5", "127.0.0.1", "127.0.0.5"),
        ("::1", "::1", "::1", "::1", "::1"),
        ("::", "::1", "::1", "::1", "::1"),
        ("::", "127.0.0.1", "127.0.0.5", "::ffff:127.0.0.1", "::ffff:127.0.0.5"),
    ],
)
def test_datagram_comes_with_its_source_and_the_address_it_was_sent_to(
    make_transport: MakeTransport, bound_to: str, client_at: str, sent_to: str, source: str, local: str
) -> None:
    transport = make_transport(bound_to)
    with client(client_at) as udp:
        udp.sendto(b"hello", (sent_to, port_of(transport)))
        ((payload, where_from, where_to),) = transport.receive_batch(64)
        expected = transport.sockaddr(ip_address(client_at).packed, udp.getsockname()[1])
        assert (payload, where_from, where_to) == (b"hello", expected, ip_address(local).packed)
        assert where_from[0] == source


def test_datagrams_come_in_order_and_not_more_than_the_limit(make_transport: MakeTransport) -> None:
    transport = make_transport("127.0.0.1")
    with client() as udp:
        for number in range(5):
            udp.sendto(bytes([number]), ("127.0.0.1", port_of(transport)))
    batches = [[payload for payload, _, _ in transport.receive_batch(3)] for _ in range(3)]
    assert batches == [[b"\0", b"\1", b"\2"], [b"\3", b"\4"], []]


@pytest.mark.parametrize("size", [0, 1, 65507])
def test_datagram_of_any_size_is_whole(make_transport: MakeTransport, size: int) -> None:
    transport = make_transport("127.0.0.1")
    with client() as udp:
        udp.sendto(b"x" * size, ("127.0.0.1", port_of(transport)))
    ((payload, _, _),) = transport.receive_batch(64)
    assert payload == b"x" * size


def test_receiving_does_not_wait_although_the_socket_is_blocking(make_transport: MakeTransport) -> None:
    assert make_transport("127.0.0.1").receive_batch(64) == []


def test_socket_stays_blocking_for_those_who_share_it() -> None:
    with bind_udp(IPv4Address("127.0.0.1"), 0) as udp:
        UdpTransport(1, udp.fileno()).close()
        assert udp.getblocking()


def test_error_about_an_earlier_packet_does_not_hide_the_next_datagram(make_transport: MakeTransport) -> None:
    transport = make_transport("127.0.0.1")
    provoke_icmp_error(transport)
    with client() as udp:
        udp.sendto(b"hello", ("127.0.0.1", port_of(transport)))
    assert [payload for payload, _, _ in transport.receive_batch(64)] == [b"hello"]


def test_clearing_errors_silences_epoll(make_transport: MakeTransport) -> None:
    transport = make_transport("127.0.0.1")
    with select.epoll() as poller:
        poller.register(transport.fd, 0)
        provoke_icmp_error(transport)
        before = poller.poll(0)
        transport.clear_errors(64)
        assert (before, poller.poll(0)) == ([(transport.fd, select.EPOLLERR)], [])


def provoke_icmp_error(transport: UdpTransport) -> None:
    """Has the socket hear of a port that nobody listens to; only one with IP_RECVERR does."""
    with socket.socket(fileno=transport.fd) as udp:
        udp.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        udp.detach()
    with client() as closed:
        nobody = closed.getsockname()
    transport.send_batch([(Destination(nobody), b"is anybody there")])
    poller = select.poll()
    poller.register(transport.fd, 0)
    assert poller.poll(10_000) == [(transport.fd, select.POLLERR)]


# Sending


@pytest.mark.parametrize(("bound_to", "client_at"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_packets_are_sent_in_order(make_transport: MakeTransport, bound_to: str, client_at: str) -> None:
    transport = make_transport(bound_to)
    with client(client_at) as udp:
        destination = Destination(transport.sockaddr(ip_address(client_at).packed, udp.getsockname()[1]))
        transport.send_batch([(destination, b"one"), (destination, b"two")])
        assert [udp.recv(100), udp.recv(100), destination.drops] == [b"one", b"two", []]


@pytest.mark.parametrize("bound_to", ["0.0.0.0", "::"])
def test_answer_leaves_from_the_address_that_was_asked(make_transport: MakeTransport, bound_to: str) -> None:
    transport = make_transport(bound_to)
    with client() as udp:
        udp.sendto(b"question", ("127.0.0.5", port_of(transport)))
        ((_, source, local),) = transport.receive_batch(64)
        transport.send_batch([(Destination(source, local), b"answer")])
        assert udp.recvfrom(100) == (b"answer", ("127.0.0.5", port_of(transport)))


@pytest.mark.parametrize(
    ("bound_to", "client_at", "gone"),
    [
        ("0.0.0.0", "127.0.0.1", "203.0.113.7"),
        ("::", "127.0.0.1", "203.0.113.7"),
        ("::", "::1", "2001:db8::7"),
        ("::", "::1", "203.0.113.7"),
    ],
)
def test_local_address_that_is_gone_is_forgotten_and_the_packet_sent_all_the_same(
    make_transport: MakeTransport, bound_to: str, client_at: str, gone: str
) -> None:
    transport = make_transport(bound_to)
    with client(client_at) as udp:
        remote = transport.sockaddr(ip_address(client_at).packed, udp.getsockname()[1])
        destination = Destination(remote, transport.local_address(ip_address(gone).packed))
        transport.send_batch([(destination, b"hello")])
        assert (udp.recv(100), destination.local, destination.drops) == (b"hello", None, [])


@pytest.mark.root
def test_local_address_is_kept_when_it_was_not_to_blame(make_transport: MakeTransport, namespace: str) -> None:
    transport = make_transport("0.0.0.0", namespace=namespace)
    local = IPv4Address("127.0.0.1").packed
    unreachable = Destination(("192.0.2.1", 1194), local)
    transport.send_batch([(unreachable, b"hello")])
    assert (unreachable.local, unreachable.drops) == (local, [DropReason.TX_SEND_FAILED])


def test_packet_that_cannot_be_sent_does_not_stop_what_follows(make_transport: MakeTransport) -> None:
    transport = make_transport("127.0.0.1")
    with client() as udp:
        destination = Destination(udp.getsockname())
        transport.send_batch([(destination, b"x" * 65508), (destination, b"hello")])
        assert (udp.recv(100), destination.drops) == (b"hello", [DropReason.TX_SEND_FAILED])


@pytest.mark.root
def test_packet_for_which_the_send_buffer_has_no_room_is_a_drop_of_its_own(
    make_transport: MakeTransport, namespace: str
) -> None:
    set_link("lo", namespace, mtu=1500)
    transport = make_transport("127.0.0.1", namespace=namespace)
    with socket.socket(fileno=transport.fd) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as little as Linux gives; the fragments need more
        udp.detach()
    destination = Destination(("127.0.0.1", 9))
    transport.send_batch([(destination, b"x" * 60000)])
    assert destination.drops == [DropReason.TX_QUEUE_FULL]


@pytest.mark.root
def test_link_local_peers_are_reached_in_their_zone(make_transport: MakeTransport, namespace: str) -> None:
    with tun_in(namespace, "tun0"):
        enable_ipv6(namespace, "tun0")
        set_link("tun0", namespace, addresses=[IPv6Interface("fe80::1/64")])
        wait_for_addresses(namespace)
        index = get_link("tun0", namespace).index
        transport = make_transport("::", namespace=namespace)
        with in_network_namespace(namespace, lambda: bind_udp(IPv6Address("fe80::1%tun0"), 0)) as udp:
            udp.settimeout(10)
            udp.sendto(b"question", ("fe80::1", port_of(transport), 0, index))
            ((_, source, local),) = transport.receive_batch(64)
            assert source == transport.sockaddr(IPv6Address("fe80::1").packed, udp.getsockname()[1], index)
            destination = Destination(source, local)
            transport.send_batch([(destination, b"answer")])
            assert (udp.recv(100), destination.local) == (b"answer", IPv6Address("fe80::1").packed)


# Trains


@pytest.mark.parametrize(("bound_to", "client_at"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_train_is_received_as_its_datagrams(make_transport: MakeTransport, bound_to: str, client_at: str) -> None:
    transport = make_transport(bound_to)
    with client(client_at) as udp:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 4)
        udp.sendto(b"one.two.end", (client_at, port_of(transport)))
        source = transport.sockaddr(ip_address(client_at).packed, udp.getsockname()[1])
    local = transport.local_address(ip_address(client_at).packed)
    assert transport.receive_batch(64) == [(payload, source, local) for payload in (b"one.", b"two.", b"end")]


def test_limit_counts_datagrams_and_leaves_no_train_half_read(make_transport: MakeTransport) -> None:
    transport = make_transport("127.0.0.1")
    with client() as udp:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1)
        for _ in range(2):
            udp.sendto(b"five!", ("127.0.0.1", port_of(transport)))
    assert [len(transport.receive_batch(limit)) for limit in (3, 6, 6)] == [5, 5, 0]


class Recorder(socket.socket):
    """Counts the messages that it sends."""

    messages = 0

    def sendmsg(self, *arguments: object) -> int:
        self.messages += 1
        return super().sendmsg(*arguments)  # type: ignore[arg-type]


def recorded(transport: UdpTransport) -> Recorder:
    """Puts a Recorder in place of its socket."""
    recorder = Recorder(fileno=transport._socket.detach())
    transport._socket = recorder
    return recorder


@pytest.mark.parametrize(("bound_to", "client_at"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
@pytest.mark.parametrize("with_local", [True, False])
def test_packets_of_one_size_are_sent_at_once_and_arrive_as_they_were(
    make_transport: MakeTransport, bound_to: str, client_at: str, with_local: bool
) -> None:
    transport = make_transport(bound_to)
    recorder = recorded(transport)
    local = transport.local_address(ip_address(client_at).packed) if with_local else None
    packets = [bytes([number]) * (100 if number < 9 else 50) for number in range(10)]
    with client(client_at) as udp:
        remote = transport.sockaddr(ip_address(client_at).packed, udp.getsockname()[1])
        destination = Destination(remote, local)
        transport.send_batch([(destination, packet) for packet in packets])
        assert [udp.recv(1000) for _ in packets] == packets
    assert (recorder.messages, destination.drops) == (1, [])


@pytest.mark.parametrize(("address", "longest"), [("127.0.0.1", 65507), ("::1", 65487)])
@pytest.mark.parametrize("surplus", [0, 1])
def test_train_is_as_long_as_a_packet_may_be(
    make_transport: MakeTransport, address: str, longest: int, surplus: int
) -> None:
    transport = make_transport(address)
    recorder = recorded(transport)
    first = longest // 2 + 1
    sizes = [first, longest - first + surplus]
    with client(address) as udp:
        destination = Destination(transport.sockaddr(ip_address(address).packed, udp.getsockname()[1]))
        transport.send_batch([(destination, bytes(size)) for size in sizes])
        assert [len(udp.recv(65535)) for _ in sizes] == sizes
    assert recorder.messages == 1 + surplus


@pytest.mark.root
def test_packets_longer_than_the_path_are_sent_one_by_one(make_transport: MakeTransport, namespace: str) -> None:
    set_link("lo", namespace, mtu=1300)
    transport = make_transport("127.0.0.1", namespace=namespace)
    recorder = recorded(transport)
    with udp_in(namespace, "127.0.0.1") as udp:
        destination = Destination(udp.getsockname())
        transport.send_batch([(destination, bytes(2000))] * 3)
        assert [len(udp.recv(65535)) for _ in range(3)] == [2000] * 3
    assert (recorder.messages, destination.drops) == (4, [])


def test_local_address_that_is_gone_costs_a_train_nothing(make_transport: MakeTransport) -> None:
    transport = make_transport("0.0.0.0")
    with client() as udp:
        destination = Destination(udp.getsockname(), IPv4Address("203.0.113.7").packed)
        transport.send_batch([(destination, bytes([number])) for number in range(3)])
        assert [udp.recv(100) for _ in range(3)] == [b"\0", b"\1", b"\2"]
    assert (destination.local, destination.drops) == (None, [])


def test_kernel_that_knows_no_trains_is_given_none(
    make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that would not know this option either.
    monkeypatch.setattr("dataplane.transport.udp.UDP_SEGMENT", 9999)
    transport = make_transport("127.0.0.1")
    recorder = recorded(transport)
    with client() as udp:
        transport.send_batch([(Destination(udp.getsockname()), b"one"), (Destination(udp.getsockname()), b"two")])
        destination = Destination(udp.getsockname())
        transport.send_batch([(destination, b"one"), (destination, b"two")])
        assert [udp.recv(100) for _ in range(4)] == [b"one", b"two"] * 2
    assert recorder.messages == 4


# Addresses and descriptors


def test_ipv4_endpoint_on_a_socket_that_is_ipv6_only_is_a_mismatch(make_transport: MakeTransport) -> None:
    transport = make_transport("::", ipv6_only=True)
    with pytest.raises(AddressFamilyMismatch):
        transport.sockaddr(IPv4Address("192.0.2.1").packed, 1194)


def test_v4_mapped_endpoint_on_a_socket_that_is_ipv6_only_is_a_mismatch(make_transport: MakeTransport) -> None:
    transport = make_transport("::", ipv6_only=True)
    with pytest.raises(AddressFamilyMismatch):
        transport.local_address(IPv6Address("::ffff:192.0.2.1").packed)


def test_outlet_for_control_packets_is_a_duplicate_and_closed_with_the_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with bind_udp(IPv4Address("127.0.0.1"), 0) as udp:
        transport = UdpTransport(1, udp.fileno(), ours.fileno())
        assert UdpTransport(1, udp.fileno()).control_fd is None
    assert transport.control_fd not in {None, ours.fileno()}
    ours.close()
    assert transport.control is not None
    assert transport.control.send(b"hello", ("192.0.2.1", 1194), None)
    transport.close()
    with theirs:
        assert (theirs.recv(100)[40:], theirs.recv(100)) == (b"hello", b"")


def test_descriptor_that_is_no_udp_socket_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, pytest.raises(NotAUdpSocket):
        UdpTransport(1, tcp.fileno())


# The type of service


def hears_tos(udp: socket.socket) -> socket.socket:
    level, option = (
        (socket.IPPROTO_IP, socket.IP_RECVTOS)
        if udp.family == socket.AF_INET
        else (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS)
    )
    udp.setsockopt(level, option, 1)
    return udp


def tos_heard(udp: socket.socket) -> int:
    _, ((_, _, value),), _, _ = udp.recvmsg(1000, 100)
    return value[0]


@pytest.mark.parametrize(("bound_to", "client_at"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
@pytest.mark.parametrize(("with_local", "count"), [(True, 1), (True, 3), (False, 1), (False, 3)])
def test_tos_is_on_every_packet_of_a_train_and_of_those_alone(
    make_transport: MakeTransport, bound_to: str, client_at: str, with_local: bool, count: int
) -> None:
    transport = make_transport(bound_to, copy_dscp=True)
    local = transport.local_address(ip_address(client_at).packed) if with_local else None
    with hears_tos(client(client_at)) as udp:
        destination = Destination(transport.sockaddr(ip_address(client_at).packed, udp.getsockname()[1]), local)
        transport.send_batch([(destination, b"hello")] * count, 0xB8)
        assert [tos_heard(udp) for _ in range(count)] == [0xB8] * count
        transport.send_batch([(destination, b"hello")] * count)
        assert [tos_heard(udp) for _ in range(count)] == [0] * count


def test_socket_that_does_not_copy_the_dscp_sends_as_ever(make_transport: MakeTransport) -> None:
    transport = make_transport("127.0.0.1")
    with hears_tos(client()) as udp:
        transport.send_batch([(Destination(udp.getsockname()), b"hello")], 0xB8)
        assert tos_heard(udp) == 0


def test_tos_stays_when_the_local_address_is_gone(make_transport: MakeTransport) -> None:
    transport = make_transport("0.0.0.0", copy_dscp=True)
    with hears_tos(client()) as udp:
        destination = Destination(udp.getsockname(), IPv4Address("203.0.113.7").packed)
        transport.send_batch([(destination, b"hello")], 0xB8)
        assert (tos_heard(udp), destination.local) == (0xB8, None)
