"""Sockets of every kind under one device: families, zones, namespaces, and the DSCP that some of them copy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv6Address, ip_address, ip_interface
from pathlib import Path

import pytest

from dataplane.messages import (
    AddPeer,
    AddSocket,
    Endpoint,
    PeerFloatAsked,
    PeerFloated,
    Route,
    SetFloatPolicy,
    SetRoutes,
    SetSwitches,
    UpdatePeer,
)
from dataplane.transport.udp_socket import bind_udp
from dataplane.tun.link import get_link, set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.vocabulary import FloatPolicy, RouteTarget
from tests.fastpath.tunnel import add_veth
from tests.tun.conftest import enable_ipv6, fresh_namespace, ipv4_udp, udp_in, wait_for_addresses
from tests.worker.conftest import Device, FarPeer, far_key, install_key

pytestmark = pytest.mark.root


def add_socket(device: Device, socket_id: int, bound_to: str, namespace: str = "", *, copy_dscp: bool = False) -> int:
    """Its port."""
    path = namespace or device.namespace
    with in_network_namespace(path, lambda: bind_udp(ip_address(bound_to), 0)) as udp:
        device.worker.do(AddSocket(socket_id, copy_dscp), udp.fileno())
        return int(udp.getsockname()[1])


def assert_carries(device: Device, far: FarPeer) -> None:
    """Both ways."""
    far.say(b"to the device")
    assert device.application.recv(100) == b"to the device"
    device.say(b"from the device", to=far.vpn_ipv4)
    assert far.hear().endswith(b"from the device")


def test_sockets_of_both_families_serve_one_device(device: Device) -> None:
    peers = [device.add_peer(1)]
    for peer_id, (bound_to, at) in enumerate([("::1", "::1"), ("::", "::1"), ("0.0.0.0", "127.0.0.1")], start=2):
        port = add_socket(device, peer_id, bound_to)
        peers.append(device.add_peer(peer_id, at=at, socket_id=peer_id))
        peers[-1].port = port
    for far in peers:
        assert_carries(device, far)


def test_peer_floats_from_one_socket_to_another_of_the_other_family(device: Device) -> None:
    far = device.add_peer(1)
    port = add_socket(device, 2, "::1")
    far.udp.close()
    far.udp = udp_in(device.namespace, "::1")
    far.udp.sendto(far.seal(device.packet_from(far, b"hello")), ("::1", port))
    assert device.application.recv(100) == b"hello"
    event = device.worker.event()
    assert isinstance(event, PeerFloated)
    assert (event.socket_id, event.remote) == (2, Endpoint(IPv6Address("::1").packed, far.udp.getsockname()[1]))
    device.say(b"answer", to=far.vpn_ipv4)
    assert far.hear().endswith(b"answer")


def test_peer_that_asked_for_a_place_on_another_socket_is_given_that(device: Device) -> None:
    far = device.add_peer(1)
    port = add_socket(device, 2, "::1")
    device.worker.do(SetFloatPolicy(FloatPolicy.ASK))
    far.udp.close()
    far.udp = udp_in(device.namespace, "::1")
    far.udp.sendto(far.seal(device.packet_from(far, b"not yet")), ("::1", port))
    event = device.worker.event()
    assert isinstance(event, PeerFloatAsked)
    device.worker.do(UpdatePeer(1, remote=event.remote, local=None, socket_id=event.socket_id))
    device.say(b"hello", to=far.vpn_ipv4)
    assert far.hear().endswith(b"hello")
    far.udp.sendto(far.seal(device.packet_from(far, b"there")), ("::1", port))
    assert device.application.recv(100) == b"there"


def expect_no_duplicates(namespace: str, interface: str) -> None:
    """Spares an interface the seconds in which it looks for others with its address."""
    path = Path(f"/proc/sys/net/ipv6/conf/{interface}/accept_dad")
    in_network_namespace(namespace, lambda: path.write_text("0"))


@contextmanager
def neighbours() -> Iterator[tuple[str, str]]:
    """Two namespaces beside that of the device, joined by a veth pair with addresses of both families."""
    with fresh_namespace() as near, fresh_namespace() as far:
        add_veth((near, far))
        for path, name, number in ((near, "veth0", 1), (far, "veth1", 2)):
            expect_no_duplicates(path, name)
            enable_ipv6(path, name)
            set_link(name, path, addresses=[IPv4Interface(f"192.0.2.{number}/24"), ip_interface(f"fe80::{number}/64")])
            wait_for_addresses(path)
        yield near, far


@pytest.mark.parametrize(
    ("bound_to", "at", "knows_local"),
    [
        ("0.0.0.0", "192.0.2.2", False),
        ("::", "192.0.2.2", True),
        ("::", "fe80::2", False),
        ("::", "fe80::2", True),
    ],
)
def test_socket_of_another_namespace_carries_the_packets(
    device: Device, bound_to: str, at: str, knows_local: bool
) -> None:
    with neighbours() as (near, far_namespace):
        port = add_socket(device, 2, bound_to, near)
        near_index, far_index = get_link("veth0", near).index, get_link("veth1", far_namespace).index
        is_ipv6 = ":" in at
        near_at = "fe80::1" if is_ipv6 else "192.0.2.1"

        def bind() -> socket.socket:
            udp = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((at, 0, 0, far_index) if is_ipv6 else (at, 0))
            return udp

        with in_network_namespace(far_namespace, bind) as udp:
            udp.settimeout(10)
            remote = Endpoint(ip_address(at).packed, udp.getsockname()[1], near_index if is_ipv6 else 0)
            device.worker.do(
                AddPeer(
                    1,
                    uid=101,
                    row=1,
                    socket_id=2,
                    remote=remote,
                    local=ip_address(near_at).packed if knows_local else None,
                    vpn_ipv4=bytes([10, 8, 0, 11]),
                )
            )
            device.worker.do(install_key(1))
            device.say(b"from the device", to="10.8.0.11")
            sealed, source = udp.recvfrom(1000)
            assert source[:2] == (near_at, port)
            key = far_key(1)
            opened = key.open(sealed)
            assert opened is not None
            assert opened.endswith(b"from the device")
            answer = key.seal(1, opened[:12] + opened[16:20] + opened[12:16] + opened[20:])
            assert answer is not None
            udp.sendto(answer, (near_at, port, 0, far_index) if is_ipv6 else (near_at, port))
            device.worker.settle()
            assert (device.page.snapshot(1)[1], device.drops(1, 0)) == (1, {})


# The DSCP


@pytest.mark.parametrize(("bound_to", "at"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "::1")])
def test_dscp_is_copied_and_ecn_is_not(device: Device, bound_to: str, at: str) -> None:
    port = add_socket(device, 2, bound_to, copy_dscp=True)
    far = device.add_peer(1, at=at, socket_id=2)
    far.port = port
    for tos, expected in ((0xBB, 0xB8), (0x00, 0x00), (0x02, 0x00), (0x20, 0x20)):
        device.application.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        device.say(b"hello", to=far.vpn_ipv4)
        assert tos_heard(far.udp) == expected


def test_dscp_is_copied_by_those_sockets_that_are_told_to(device: Device) -> None:
    add_socket(device, 2, "127.0.0.1", copy_dscp=True)
    peers = [device.add_peer(1), device.add_peer(2, socket_id=2)]
    device.application.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8)
    for far in peers:
        device.say(b"hello", to=far.vpn_ipv4)
    assert [tos_heard(far.udp) for far in peers] == [0, 0xB8]


@pytest.fixture
def marking(device: Device) -> list[FarPeer]:
    """Peers 1 and 2 on a socket that copies the DSCP, 3 on one that does not; client_to_client is on."""
    port = add_socket(device, 2, "127.0.0.1", copy_dscp=True)
    fars = [device.add_peer(1, socket_id=2), device.add_peer(2, socket_id=2), device.add_peer(3)]
    fars[0].port = fars[1].port = port
    device.worker.do(SetSwitches(skip_source_check=False, client_to_client=True))
    return fars


def packet_to(destination: str, far: FarPeer, tos: int) -> bytes:
    # The header's checksum, which is then wrong, is looked at by nobody on the way.
    packet = bytearray(ipv4_udp((far.vpn_ipv4, 7), (destination, 9), b"hello"))
    packet[1] = tos
    return bytes(packet)


def test_dscp_is_copied_from_peer_to_peer(marking: list[FarPeer]) -> None:
    for tos, expected in ((0xBB, 0xB8), (0x03, 0x00), (0x20, 0x20)):
        marking[0].send(packet_to(marking[1].vpn_ipv4, marking[0], tos))
        marking[0].send(packet_to(marking[2].vpn_ipv4, marking[0], tos))
        assert [tos_heard(far.udp) for far in marking[1:]] == [expected, 0]


def test_packets_of_one_batch_from_peer_to_peer_keep_their_own_dscp(marking: list[FarPeer]) -> None:
    first, second, _ = marking
    marks = [0xB8, 0xB8, 0x00, 0x20, 0xB8]
    first.send_train([first.seal(packet_to(second.vpn_ipv4, first, tos)) for tos in marks])
    assert sorted(tos_heard(second.udp) for _ in marks) == sorted(marks)


def test_dscp_is_copied_to_everyone(device: Device, marking: list[FarPeer]) -> None:
    group = "10.8.0.200"
    device.worker.do(SetRoutes((Route(ip_address(group).packed, 32, RouteTarget.EVERYONE),)))
    device.application.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xBA)
    device.say(b"hear ye", to=group)
    assert [tos_heard(far.udp) for far in marking] == [0xB8, 0xB8, 0]
    marking[0].send(packet_to(group, marking[0], 0x48))
    assert [tos_heard(far.udp) for far in marking[1:]] == [0x48, 0]


def tos_heard(udp: socket.socket) -> int:
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    if udp.family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    _, ((_, _, value),), _, _ = udp.recvmsg(1000, 100)
    return value[0]
