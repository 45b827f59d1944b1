from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, ip_address

import pytest

from dataplane.transport.socket_options import SO_RCVBUFFORCE, SO_SNDBUFFORCE, SocketOptions
from dataplane.transport.udp_socket import (
    BUFFER_BYTES,
    UDP_GRO,
    NotAUdpSocket,
    SocketNotBound,
    UdpSocketInfo,
    bind_udp,
    enlarge_buffers,
    inspect_udp,
    receive_trains,
)
from dataplane.tun.link import get_link, set_link
from dataplane.tun.network_namespace import in_network_namespace
from tests.tun.conftest import enable_ipv6, fresh_namespace, tun_in, wait_for_addresses

LOCALHOST = IPv4Address("127.0.0.1")


@pytest.fixture
def namespace() -> Iterator[str]:
    with fresh_namespace() as path:
        yield path


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_bound_socket_is_where_it_was_asked_to_be(address: str) -> None:
    with bind_udp(ip_address(address), 0) as udp:
        info = inspect_udp(udp.fileno())
        assert (info.address, info.port) == (ip_address(address), udp.getsockname()[1])


def test_port_in_use_is_an_error() -> None:
    with bind_udp(LOCALHOST, 0) as udp, pytest.raises(OSError) as raised:
        bind_udp(LOCALHOST, udp.getsockname()[1])
    assert raised.value.errno == errno.EADDRINUSE


def test_address_of_another_host_is_an_error() -> None:
    with pytest.raises(OSError) as raised:
        bind_udp(IPv4Address("203.0.113.1"), 0)
    assert raised.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("ipv6_only", [True, False])
def test_ipv6_only_is_as_asked(ipv6_only: bool) -> None:
    with bind_udp(IPv6Address("::"), 0, ipv6_only=ipv6_only) as udp:
        assert inspect_udp(udp.fileno()).ipv6_only == ipv6_only


@pytest.mark.root
def test_link_local_address_is_bound_in_its_zone(namespace: str) -> None:
    with tun_in(namespace, "tun0"):
        enable_ipv6(namespace, "tun0")
        set_link("tun0", namespace, addresses=[IPv6Interface("fe80::1/64")])
        wait_for_addresses(namespace)
        udp = in_network_namespace(namespace, lambda: bind_udp(IPv6Address("fe80::1%tun0"), 0))
        with udp:
            assert udp.getsockname()[3] == get_link("tun0", namespace).index


@pytest.mark.root
def test_buffers_are_large_with_cap_net_admin() -> None:
    with bind_udp(LOCALHOST, 0) as udp:
        sizes = [udp.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)]
        assert sizes == [2 * BUFFER_BYTES] * 2  # socket(7): Linux doubles the value


@pytest.mark.root
def test_buffers_that_are_larger_stay_as_they_are() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 * BUFFER_BYTES)
        enlarge_buffers(udp)
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 8 * BUFFER_BYTES


@pytest.mark.root
def test_buffers_that_were_asked_for_are_not_enlarged() -> None:
    options = SocketOptions(receive_buffer_bytes=4096, send_buffer_bytes=8192)
    with bind_udp(LOCALHOST, 0, options=options) as udp:
        sizes = [udp.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)]
        assert sizes == [2 * 4096, 2 * 8192]


@pytest.mark.root
def test_link_local_address_is_bound_on_an_interface(namespace: str) -> None:
    with tun_in(namespace, "tun0"):
        enable_ipv6(namespace, "tun0")
        set_link("tun0", namespace, addresses=[IPv6Interface("fe80::1/64")])
        wait_for_addresses(namespace)
        options = SocketOptions(bind_to_interface="tun0")
        udp = in_network_namespace(namespace, lambda: bind_udp(IPv6Address("fe80::1"), 0, options=options))
        with udp:
            assert inspect_udp(udp.fileno()).address == IPv6Address("fe80::1")


class Unprivileged(socket.socket):
    """A socket of a process without CAP_NET_ADMIN."""

    def setsockopt(self, level: int, option: int, value: int) -> None:  # type: ignore[override]
        if option in {SO_RCVBUFFORCE, SO_SNDBUFFORCE}:
            raise PermissionError
        super().setsockopt(level, option, value)


def test_buffers_are_as_large_as_allowed_without_cap_net_admin() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as expected:
        expected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        size = expected.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    with Unprivileged(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        enlarge_buffers(udp)
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == size


def test_bound_socket_receives_trains() -> None:
    with bind_udp(LOCALHOST, 0) as udp:
        assert udp.getsockopt(socket.IPPROTO_UDP, UDP_GRO) == 1


class Refusing(socket.socket):
    """A socket that refuses all options with one error."""

    error = errno.ENOPROTOOPT

    def setsockopt(self, *_: object) -> None:
        raise OSError(self.error, os.strerror(self.error))


def test_kernel_without_trains_does_without() -> None:
    with Refusing(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        receive_trains(udp)


def test_other_reasons_against_trains_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refusing, "error", errno.EPERM)
    with Refusing(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(PermissionError):
        receive_trains(udp)


def test_inspection_leaves_the_descriptor_open() -> None:
    with bind_udp(LOCALHOST, 0) as udp:
        assert inspect_udp(udp.fileno()) == inspect_udp(udp.fileno())


def test_socket_bound_to_a_v4_mapped_address_is_shown_as_ipv4() -> None:
    with bind_udp(IPv6Address("::ffff:127.0.0.1"), 0) as udp:
        port = udp.getsockname()[1]
        assert inspect_udp(udp.fileno()) == UdpSocketInfo(socket.AF_INET6, LOCALHOST, port, ipv6_only=False)


@pytest.mark.parametrize(
    ("family", "kind"),
    [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)],
)
def test_other_sockets_are_refused(family: int, kind: int) -> None:
    with socket.socket(family, kind) as other, pytest.raises(NotAUdpSocket):
        inspect_udp(other.fileno())


def test_descriptor_of_no_socket_is_refused_and_left_open() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(NotAUdpSocket):
        inspect_udp(fd)
    os.close(fd)


def test_unbound_socket_is_refused() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp, pytest.raises(SocketNotBound):
        inspect_udp(udp.fileno())
