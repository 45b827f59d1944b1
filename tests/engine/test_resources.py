"""The operating system's part: sockets on the loopback, TUNs in network namespaces, and the names of what fails."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from dataplane.engine.resources import LinuxResources, Tun, closed_on_failure
from dataplane.engine.types import DeviceChange, EngineError, ErrorKind
from dataplane.transport.socket_options import IP_MTU_DISCOVER, OptionRefused, SocketOptions
from dataplane.transport.udp_socket import BUFFER_BYTES, bind_udp
from dataplane.tun.device import IFF_NO_PI, IFF_TUN, IFF_VNET_HDR
from dataplane.tun.link import get_link
from dataplane.tun.routes import Hop
from dataplane.vocabulary import FragmentationPolicy, Mode
from tests.descriptors import open_fds
from tests.engine.conftest import device_spec, socket_spec
from tests.tun.conftest import LinkNotices, fresh_namespace, opened_with

RESOURCES = LinuxResources()


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() <= before


def refusal(caught: pytest.ExceptionInfo[EngineError]) -> tuple[ErrorKind, str, str]:
    return caught.value.kind, caught.value.reason, caught.value.metadata.get("errno", "")


def test_a_bound_socket_tells_its_port() -> None:
    bound = RESOURCES.bind_udp(replace(socket_spec(address="127.0.0.1"), port=0))
    assert (bound.address, bound.ipv6_only) == (ip_address("127.0.0.1"), False)
    with socket.socket(fileno=bound.fd) as udp:
        assert udp.getsockname() == ("127.0.0.1", bound.port)


def test_a_port_in_use_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        spec = replace(socket_spec(address="127.0.0.1"), port=udp.getsockname()[1])
        with pytest.raises(EngineError) as caught:
            RESOURCES.bind_udp(spec)
    assert refusal(caught) == (ErrorKind.FAILED_PRECONDITION, "BIND_FAILED", "EADDRINUSE")
    assert caught.value.metadata["port"] == str(spec.port)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(EngineError) as caught:
        RESOURCES.bind_udp(socket_spec(address="192.0.2.77"))
    assert refusal(caught) == (ErrorKind.FAILED_PRECONDITION, "BIND_FAILED", "EADDRNOTAVAIL")


def test_an_adopted_socket_is_only_looked_at() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp.bind(("::1", 0))
        bound = RESOURCES.adopt_socket(udp.fileno())
        assert (bound.address, bound.port, bound.ipv6_only) == (ip_address("::1"), udp.getsockname()[1], True)


@pytest.mark.root
def test_options_are_told_as_they_were_got() -> None:
    wanted = SocketOptions(7, "lo", 4096, 8192, copy_dscp=True, fragmentation=FragmentationPolicy.DONT_FRAGMENT)
    bound = RESOURCES.bind_udp(replace(socket_spec(address="127.0.0.1"), port=0, options=wanted))
    with socket.socket(fileno=bound.fd) as udp:
        assert bound.options == wanted
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 7


@pytest.mark.root
def test_an_adopted_socket_keeps_what_its_owner_gave_it() -> None:
    with bind_udp(IPv4Address("127.0.0.1"), 0, options=SocketOptions(7, "lo")) as udp:
        udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 2)
        expected = SocketOptions(7, "lo", BUFFER_BYTES, BUFFER_BYTES, fragmentation=FragmentationPolicy.DONT_FRAGMENT)
        assert RESOURCES.adopt_socket(udp.fileno()).options == expected


def test_an_interface_that_is_not_there_is_named() -> None:
    spec = replace(socket_spec(address="127.0.0.1"), port=0, options=SocketOptions(bind_to_interface="none-such"))
    with pytest.raises(EngineError) as caught:
        RESOURCES.bind_udp(spec)
    assert refusal(caught) == (ErrorKind.FAILED_PRECONDITION, "SOCKET_OPTION_REFUSED", "ENODEV")
    assert caught.value.metadata["option"] == "bind_to_interface"


def test_a_mark_that_may_not_be_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OptionRefused("mark", PermissionError(errno.EPERM, "Operation not permitted"))

    monkeypatch.setattr("dataplane.engine.resources.bind_udp", refuse)
    with pytest.raises(EngineError, match="mark") as caught:
        RESOURCES.bind_udp(socket_spec())
    assert refusal(caught) == (ErrorKind.PERMISSION_DENIED, "PERMISSION_DENIED", "EPERM")


def test_a_socket_without_a_port_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(EngineError) as caught:
        RESOURCES.adopt_socket(udp.fileno())
    assert refusal(caught) == (ErrorKind.FAILED_PRECONDITION, "SOCKET_NOT_BOUND", "")


def test_what_is_neither_udp_nor_tcp_is_refused() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix, pytest.raises(EngineError) as caught:
        RESOURCES.adopt_socket(unix.fileno())
    assert refusal(caught) == (ErrorKind.FAILED_PRECONDITION, "NOT_A_UDP_SOCKET", "")


def test_what_is_no_tun_is_refused() -> None:
    with Path("/dev/null").open() as file, pytest.raises(EngineError) as caught:
        RESOURCES.adopt_tun(file.fileno(), 0)
    assert refusal(caught) == (ErrorKind.FAILED_PRECONDITION, "NOT_A_TUN", "")


def test_closed_on_failure_closes_only_then() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    with closed_on_failure(fd):
        pass
    os.fstat(fd)
    with pytest.raises(KeyError), closed_on_failure(fd):
        raise KeyError
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.fixture
def namespace() -> Iterator[str]:
    """Path of a new network namespace."""
    name = f"engine-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield f"/run/netns/{name}"
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.root
def test_a_tun_is_made_and_set_up_in_its_namespace(namespace: str) -> None:
    addresses = (ip_interface("10.8.0.1/24"), ip_interface("fd00::1/64"))
    spec = replace(device_spec(), network_namespace=namespace, addresses=addresses, admin_up=True, mtu=1400)
    tun = RESOURCES.make_tun(spec)
    with closed_on_failure(tun.fd):
        assert (tun.interface_name, tun.mtu) == ("tun-d", 1400)
        link = get_link("tun-d", namespace)
        assert (link.mtu, link.admin_up, link.addresses) == (1400, True, frozenset(addresses))
    os.close(tun.fd)


@pytest.mark.root
def test_a_p2p_interface_is_never_up_with_a_carrier(namespace: str) -> None:
    with closing(LinkNotices(namespace, "tun-d")) as notices:
        spec = replace(device_spec(mode=Mode.P2P), network_namespace=namespace, admin_up=True)
        with os.fdopen(RESOURCES.make_tun(spec).fd):
            assert not notices.first_carrier_when_up()


@pytest.mark.root
def test_an_interface_that_is_there_is_named(namespace: str) -> None:
    spec = replace(device_spec(), network_namespace=namespace)
    tun = RESOURCES.make_tun(spec)
    with pytest.raises(EngineError) as caught:
        RESOURCES.make_tun(spec)
    os.close(tun.fd)
    assert refusal(caught)[:2] == (ErrorKind.ALREADY_EXISTS, "INTERFACE_EXISTS")


@pytest.mark.root
@pytest.mark.parametrize("path", ["/run/netns/there-is-none", "/dev/null", "/dev/null/x"])
def test_a_missing_namespace_is_named(path: str) -> None:
    with pytest.raises(EngineError) as caught:
        RESOURCES.make_tun(replace(device_spec(), network_namespace=path))
    assert refusal(caught)[:2] == (ErrorKind.NOT_FOUND, "NETWORK_NAMESPACE_NOT_FOUND")
    assert caught.value.metadata == {"path": path}
    with pytest.raises(EngineError) as caught:
        RESOURCES.bind_udp(replace(socket_spec(), network_namespace=path))
    assert caught.value.reason == "NETWORK_NAMESPACE_NOT_FOUND"


@pytest.mark.root
def test_an_interface_is_found_in_whatever_namespace_it_is(namespace: str) -> None:
    made = RESOURCES.make_tun(replace(device_spec(), network_namespace=namespace, mtu=1400))
    with closed_on_failure(made.fd):
        subprocess.run(
            ["ip", "netns", "exec", Path(namespace).name, "ip", "link", "set", "tun-d", "name", "renamed"], check=True
        )
        adopted = RESOURCES.adopt_tun(made.fd, 0)
        assert (adopted.fd, adopted.interface_name, adopted.mtu) == (made.fd, "renamed", 1400)
        RESOURCES.change_link(made.fd, DeviceChange(mtu=1300, admin_up=True))
        assert (get_link("renamed", namespace).mtu, get_link("renamed", namespace).admin_up) == (1300, True)
    os.close(made.fd)


@pytest.mark.root
@pytest.mark.parametrize("flags", [IFF_TUN | IFF_NO_PI, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR])
def test_a_tun_is_adopted_with_and_without_virtio_headers(flags: int) -> None:
    with fresh_namespace() as namespace:
        fd = opened_with(namespace, flags)
        with closed_on_failure(fd):
            assert RESOURCES.adopt_tun(fd, 1400) == Tun(fd, "tun0", 1400)
        os.close(fd)


@pytest.mark.root
def test_a_tun_that_puts_packet_information_before_its_packets_is_refused() -> None:
    with fresh_namespace() as namespace:
        fd = opened_with(namespace, IFF_TUN)
        with closed_on_failure(fd), pytest.raises(EngineError) as caught:
            RESOURCES.adopt_tun(fd, 0)
        os.close(fd)
    assert refusal(caught)[1] == "NOT_A_TUN"


@pytest.mark.root
def test_the_routes_of_an_interface_are_watched_where_it_is(namespace: str) -> None:
    addresses = (ip_interface("10.8.0.1/24"),)
    spec = replace(device_spec(), network_namespace=namespace, addresses=addresses, admin_up=True)
    tun = RESOURCES.make_tun(spec)
    with closed_on_failure(tun.fd):
        feed = RESOURCES.watch_routes(tun.fd)
        assert feed.read()[ip_network("10.8.0.0/24")] == (Hop.ON_LINK,)
        feed.close()
    os.close(tun.fd)


@pytest.mark.root
def test_the_routes_of_an_interface_that_is_gone_are_not_watched(namespace: str) -> None:
    tun = RESOURCES.make_tun(replace(device_spec(), network_namespace=namespace))
    with closed_on_failure(tun.fd):
        subprocess.run(["ip", "netns", "exec", Path(namespace).name, "ip", "link", "del", "tun-d"], check=True)
        with pytest.raises(EngineError) as caught:
            RESOURCES.watch_routes(tun.fd)
    assert refusal(caught)[1] == "NOT_A_TUN"
    os.close(tun.fd)


@pytest.mark.root
def test_an_interface_that_is_gone_takes_no_setting(namespace: str) -> None:
    tun = RESOURCES.make_tun(replace(device_spec(), network_namespace=namespace))
    with closed_on_failure(tun.fd):
        subprocess.run(["ip", "netns", "exec", Path(namespace).name, "ip", "link", "del", "tun-d"], check=True)
        with pytest.raises(EngineError) as caught:
            RESOURCES.change_link(tun.fd, DeviceChange(mtu=1300))
    os.close(tun.fd)
    assert refusal(caught)[:2] == (ErrorKind.FAILED_PRECONDITION, "NOT_A_TUN")


@pytest.mark.root
def test_a_setting_that_linux_refuses_is_named_and_leaves_no_interface(namespace: str) -> None:
    with pytest.raises(EngineError) as caught:
        RESOURCES.make_tun(replace(device_spec(), network_namespace=namespace, mtu=10))
    assert refusal(caught) == (ErrorKind.FAILED_PRECONDITION, "LINK_SETTING_REFUSED", "EINVAL")
    with pytest.raises(OSError, match="No such device"):
        get_link("tun-d", namespace)


def deny(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_missing_privilege_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataplane.engine.resources.open_tun", deny)
    with pytest.raises(EngineError) as caught:
        RESOURCES.make_tun(device_spec())
    assert refusal(caught) == (ErrorKind.PERMISSION_DENIED, "PERMISSION_DENIED", "EPERM")


@pytest.mark.root
def test_a_missing_privilege_to_change_an_interface_is_named(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tun = RESOURCES.make_tun(replace(device_spec(), network_namespace=namespace))
    monkeypatch.setattr("dataplane.engine.resources.set_link", deny)
    with pytest.raises(EngineError) as caught:
        RESOURCES.change_link(tun.fd, DeviceChange(mtu=1300))
    os.close(tun.fd)
    assert refusal(caught) == (ErrorKind.PERMISSION_DENIED, "PERMISSION_DENIED", "EPERM")
