from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, ip_address
from pathlib import Path

import pytest

from dataplane.transport.socket_options import (
    IP_MTU_DISCOVER,
    IPV6_MTU_DISCOVER,
    NO_OPTIONS,
    OptionRefused,
    SocketOptions,
    read_options,
    set_options,
)
from dataplane.transport.udp_socket import BUFFER_BYTES, bind_udp
from dataplane.tun.link import set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.vocabulary import FragmentationPolicy
from tests.fastpath.tunnel import add_veth
from tests.tun.conftest import fresh_namespace, tun_in, udp_in

DF = 0x40
EVERY_FAMILY = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])


@pytest.fixture
def namespace() -> Iterator[str]:
    with fresh_namespace() as path:
        set_link("lo", path, admin_up=True)
        yield path


def bind_in(namespace: str, address: str, options: SocketOptions) -> socket.socket:
    return in_network_namespace(namespace, lambda: bind_udp(ip_address(address), 0, options=options))


@EVERY_FAMILY
@pytest.mark.parametrize("policy", list(FragmentationPolicy))
def test_policy_is_read_as_it_was_set(family: int, policy: FragmentationPolicy) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        set_options(udp, SocketOptions(fragmentation=policy))
        assert read_options(udp).fragmentation is policy


@pytest.mark.parametrize(
    ("option", "policy"),
    [
        (3, FragmentationPolicy.DONT_FRAGMENT),
        (4, FragmentationPolicy.DONT_FRAGMENT),
        (5, FragmentationPolicy.MAY_FRAGMENT),
    ],
)
def test_policies_of_other_owners_are_told_by_what_they_come_to(option: int, policy: FragmentationPolicy) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, option)
        assert read_options(udp).fragmentation is policy
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, option)
        assert read_options(udp).fragmentation is policy


@pytest.mark.root
@EVERY_FAMILY
def test_options_are_read_as_they_were_set(family: int) -> None:
    options = SocketOptions(0xFFFFFFFF, "lo", 5000, 1 << 20, copy_dscp=False)
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        set_options(udp, options)
        assert read_options(udp) == options


@EVERY_FAMILY
def test_nothing_but_the_policy_is_set_unless_asked_for(family: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        before = read_options(udp)
        set_options(udp, NO_OPTIONS)
        assert before.fragmentation is FragmentationPolicy.PATH_MTU
        after = read_options(udp)
        assert after.fragmentation is FragmentationPolicy.MAY_FRAGMENT
        assert (after.mark, after.bind_to_interface) == (0, "")
        assert after.receive_buffer_bytes == before.receive_buffer_bytes
        assert after.send_buffer_bytes == before.send_buffer_bytes


class Unprivileged(socket.socket):
    """A socket of a process without capabilities."""

    refused = frozenset({socket.SO_MARK, 32, 33})

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:  # type: ignore[override]
        if level == socket.SOL_SOCKET and option in self.refused:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        super().setsockopt(level, option, value)


def test_buffers_are_as_large_as_allowed_and_that_is_told() -> None:
    allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
    with Unprivileged(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        set_options(udp, SocketOptions(receive_buffer_bytes=allowed + 4096, send_buffer_bytes=8192))
        got = read_options(udp)
    assert (got.receive_buffer_bytes, got.send_buffer_bytes) == (allowed, 8192)


def test_refused_option_is_named() -> None:
    with Unprivileged(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(OptionRefused, match="mark") as refused:
        set_options(udp, SocketOptions(mark=7))
    assert (refused.value.option, refused.value.error.errno) == ("mark", errno.EPERM)


def test_interface_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionRefused) as refused:
        bind_udp(IPv4Address("127.0.0.1"), 0, options=SocketOptions(bind_to_interface="none-such"))
    assert (refused.value.option, refused.value.error.errno) == ("bind_to_interface", errno.ENODEV)


@pytest.mark.root
def test_interface_that_is_gone_is_none(namespace: str) -> None:
    with tun_in(namespace, "tun0"):
        udp = bind_in(namespace, "0.0.0.0", SocketOptions(bind_to_interface="tun0"))
        assert read_options(udp).bind_to_interface == "tun0"
    with udp:
        assert read_options(udp).bind_to_interface == ""


@pytest.mark.root
def test_default_buffers_are_told(namespace: str) -> None:
    with bind_in(namespace, "127.0.0.1", NO_OPTIONS) as udp:
        got = read_options(udp)
    assert (got.receive_buffer_bytes, got.send_buffer_bytes) == (BUFFER_BYTES, BUFFER_BYTES)


@pytest.mark.root
def test_every_packet_is_routed_by_the_mark(namespace: str) -> None:
    with fresh_namespace() as far, ExitStack() as stack:
        set_link("lo", far, admin_up=True, addresses=[IPv4Interface("198.51.100.1/32")])
        add_veth((namespace, far), IPv4Interface("192.0.2.1/24"), IPv4Interface("192.0.2.2/24"))
        for command in ("rule add fwmark 42 lookup 100", "route add 198.51.100.1 via 192.0.2.2 table 100"):
            in_network_namespace(namespace, lambda line=command: subprocess.run(["ip", *line.split()], check=True))  # type: ignore[misc]
        heard = stack.enter_context(udp_in(far, "198.51.100.1"))
        marked, other = (
            stack.enter_context(bind_in(namespace, "192.0.2.1", SocketOptions(mark=mark))) for mark in (42, 43)
        )
        marked.sendto(b"marked", heard.getsockname())
        assert heard.recv(100) == b"marked"
        with pytest.raises(OSError, match="unreachable"):
            other.sendto(b"other", heard.getsockname())


@pytest.mark.root
def test_only_the_interface_it_is_bound_to_is_used(namespace: str) -> None:
    with fresh_namespace() as far, ExitStack() as stack:
        add_veth((namespace, far), IPv4Interface("192.0.2.1/24"), IPv4Interface("192.0.2.2/24"))
        bound = stack.enter_context(bind_in(namespace, "0.0.0.0", SocketOptions(bind_to_interface="veth0")))
        bound.settimeout(10)
        port = bound.getsockname()[1]
        neighbour = stack.enter_context(udp_in(namespace, "127.0.0.1"))
        neighbour.connect(("127.0.0.1", port))
        neighbour.send(b"by lo")
        with pytest.raises(ConnectionRefusedError):
            neighbour.recv(100)
        stack.enter_context(udp_in(far, "192.0.2.2")).sendto(b"by veth0", ("192.0.2.1", port))
        assert bound.recv(100) == b"by veth0"


@pytest.mark.root
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (FragmentationPolicy.MAY_FRAGMENT, (0, True)),
        (FragmentationPolicy.PATH_MTU, (DF, True)),
        (FragmentationPolicy.DONT_FRAGMENT, (DF, False)),
    ],
)
def test_df_is_set_and_a_long_packet_goes_as_the_policy_says(
    namespace: str, policy: FragmentationPolicy, expected: tuple[int, bool]
) -> None:
    set_link("lo", namespace, mtu=1500)
    raw = in_network_namespace(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP))
    with raw, bind_in(namespace, "127.0.0.1", SocketOptions(fragmentation=policy)) as udp:
        raw.settimeout(10)
        udp.sendto(b"short", udp.getsockname())
        flags = raw.recv(100)[6]
        assert (flags & DF, is_sent(udp, bytes(2000))) == expected


@pytest.mark.root
@pytest.mark.parametrize("bound_to", ["::", "::1"])
@pytest.mark.parametrize("policy", list(FragmentationPolicy))
def test_policy_holds_for_both_families(namespace: str, bound_to: str, policy: FragmentationPolicy) -> None:
    set_link("lo", namespace, mtu=1500)
    with bind_in(namespace, bound_to, SocketOptions(fragmentation=policy)) as udp:
        port = udp.getsockname()[1]
        goes = policy is not FragmentationPolicy.DONT_FRAGMENT
        assert is_sent(udp, bytes(2000), ("::1", port)) is goes
        if bound_to == "::":
            assert is_sent(udp, bytes(2000), ("::ffff:127.0.0.1", port)) is goes


def is_sent(udp: socket.socket, payload: bytes, to: tuple[str, int] | None = None) -> bool:
    try:
        udp.sendto(payload, to or udp.getsockname())
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        return False
    return True
