"""Splitting a UDP port, with real sockets on loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from errno import EADDRINUSE, EINVAL

import pytest

from controlplane_shim.link_socket import UnsuitableSocketError
from controlplane_shim.udp_split import gather, scatter, split

IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23

DATA = [bytes([9 << 3 | key_id, 0, 0, 1, number]) for key_id in (0, 7) for number in range(10)]
CONTROL = [bytes([opcode << 3, number]) for opcode in (1, 4, 5, 6, 7, 8, 10, 11, 31) for number in range(3)]

Bind = Callable[..., socket.socket]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Makes UDP sockets, as OpenVPN does."""
    opened = []

    def make(address: str, port: int = 0, *, v6only: bool | None = None, owner: int | None = None) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        opened.append(made)
        if v6only is not None:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        if owner is not None:
            os.fchown(made.fileno(), owner, -1)
        made.bind((address, port))
        return made

    yield make
    for made in opened:
        made.close()


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def send(datagrams: list[bytes], address: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
        for datagram in datagrams:
            client.sendto(datagram, (address, port))


def receive(receiver: socket.socket, count: int) -> list[bytes]:
    receiver.settimeout(5)
    return sorted(receiver.recv(100) for _ in range(count))


def assert_is_split(openvpn: socket.socket, ours: socket.socket, address: str) -> None:
    # As many are received as were sent, so none can have gone astray.
    send([*CONTROL, *DATA], address, port_of(openvpn))
    assert receive(openvpn, len(CONTROL)) == sorted(CONTROL)
    assert receive(ours, len(DATA)) == sorted(DATA)


@pytest.mark.root
@pytest.mark.parametrize(
    ("bound_to", "v6only", "sent_to"),
    [
        ("0.0.0.0", None, "127.0.0.1"),
        ("127.0.0.2", None, "127.0.0.2"),
        ("::1", True, "::1"),
        ("::", True, "::1"),
        ("::", False, "::1"),
        ("::", False, "127.0.0.1"),
    ],
)
def test_data_packets_come_to_us_and_all_others_to_openvpn(
    bind: Bind, bound_to: str, v6only: bool | None, sent_to: str
) -> None:
    openvpn = bind(bound_to, v6only=v6only)
    with split(openvpn) as ours:
        assert_is_split(openvpn, ours, sent_to)


@pytest.mark.root
def test_a_socket_that_was_bound_by_sending_is_split() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as openvpn:
        openvpn.sendto(b"x", ("127.0.0.1", 9))
        with split(openvpn) as ours:
            assert_is_split(openvpn, ours, "127.0.0.1")


@pytest.mark.root
def test_an_empty_datagram_goes_to_openvpn(bind: Bind) -> None:
    openvpn = bind("127.0.0.1")
    with split(openvpn):
        send([b""], "127.0.0.1", port_of(openvpn))
        assert receive(openvpn, 1) == [b""]


@pytest.mark.root
def test_a_socket_of_another_user_is_split(bind: Bind) -> None:
    openvpn = bind("127.0.0.1", owner=65534)
    with split(openvpn) as ours:
        assert os.fstat(ours.fileno()).st_uid == 65534
        assert_is_split(openvpn, ours, "127.0.0.1")


@pytest.mark.root
def test_openvpn_gets_everything_when_ours_is_closed(bind: Bind) -> None:
    openvpn = bind("127.0.0.1")
    split(openvpn).close()
    send([*CONTROL, *DATA], "127.0.0.1", port_of(openvpn))
    assert receive(openvpn, len(CONTROL) + len(DATA)) == sorted([*CONTROL, *DATA])


@pytest.mark.root
def test_a_port_is_split_again_after_ours_was_closed(bind: Bind) -> None:
    openvpn = bind("127.0.0.1")
    split(openvpn).close()
    with split(openvpn) as ours:
        assert_is_split(openvpn, ours, "127.0.0.1")


@pytest.mark.root
def test_a_port_is_split_right_after_its_sockets_had_been_the_wrong_way_round(bind: Bind) -> None:
    # Ours became member 0 when OpenVPN's closed, and OpenVPN's next one joined as member 1.
    first = bind("127.0.0.1")
    stale = split(first)
    first.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as openvpn:
        openvpn.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        openvpn.bind(stale.getsockname())
        stale.close()
        with split(openvpn) as ours:
            assert_is_split(openvpn, ours, "127.0.0.1")


@pytest.mark.root
def test_openvpn_can_bind_the_port_again_without_reuseport_once_ours_is_closed(bind: Bind) -> None:
    openvpn = bind("127.0.0.1")
    port = port_of(openvpn)
    ours = split(openvpn)
    openvpn.close()
    with pytest.raises(OSError, match="in use") as caught:
        bind("127.0.0.1", port)
    assert caught.value.errno == EADDRINUSE
    ours.close()
    assert port_of(bind("127.0.0.1", port)) == port


@pytest.mark.root
def test_ours_has_the_options_of_openvpns(bind: Bind) -> None:
    openvpn = bind("::", v6only=True)
    openvpn.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1056)
    openvpn.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    openvpn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    openvpn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
    openvpn.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 2)
    openvpn.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, 3)
    with split(openvpn) as ours:
        assert ours.getsockname() == openvpn.getsockname()
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 1056
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 200_000
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 100_000
        assert ours.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert ours.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == 2
        assert ours.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) == 3
        assert not os.get_blocking(ours.fileno())


@pytest.mark.root
def test_openvpns_socket_stays_blocking(bind: Bind) -> None:
    # O_NONBLOCK belongs to the open file, which OpenVPN shares.
    openvpn = bind("127.0.0.1")
    with openvpn.dup() as copy, split(copy):
        assert os.get_blocking(openvpn.fileno())


def gro(member: socket.socket) -> int:
    return member.getsockopt(17, 104)  # SOL_UDP, UDP_GRO


@pytest.mark.root
def test_what_is_local_goes_by_opcode_while_all_else_is_gathered(bind: Bind) -> None:
    # What comes from a device: test_gathering.py.
    openvpn = bind("127.0.0.1")
    with split(openvpn) as ours:
        gather(openvpn, ours)
        assert (gro(openvpn), gro(ours)) == (1, 1)
        assert_is_split(openvpn, ours, "127.0.0.1")


@pytest.mark.root
def test_a_port_is_split_as_before_once_it_is_scattered(bind: Bind) -> None:
    openvpn = bind("127.0.0.1")
    with split(openvpn) as ours:
        gather(openvpn, ours)
        for _ in range(2):
            scatter(openvpn)
        assert gro(openvpn) == 0
        assert_is_split(openvpn, ours, "127.0.0.1")


def refusal(function: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(UnsuitableSocketError) as caught:
        function()
    return caught.value.errno, str(caught.value)


def test_an_unbound_socket_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as openvpn:
        assert refusal(lambda: split(openvpn)) == (EINVAL, "the UDP socket is not bound")


def test_a_connected_socket_is_refused(bind: Bind) -> None:
    openvpn = bind("127.0.0.1")
    openvpn.connect(("127.0.0.1", 9))
    assert refusal(lambda: split(openvpn)) == (EINVAL, "the UDP socket is connected")


@pytest.mark.root
def test_a_port_that_somebody_else_shares_is_refused_with_its_number(bind: Bind) -> None:
    openvpn = bind("127.0.0.1", owner=65534)
    port = port_of(openvpn)
    openvpn.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        os.fchown(other.fileno(), 65534, -1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("0.0.0.0", port))
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        errno, text = refusal(lambda: split(openvpn))
    assert errno == EINVAL
    assert f"127.0.0.1 port {port}" in text
