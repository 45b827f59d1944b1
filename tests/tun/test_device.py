from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_interface

import pytest
from pyroute2 import IPRoute

from dataplane.tun.device import (
    IFF_NO_PI,
    IFF_TUN,
    IFF_VNET_HDR,
    DeviceGone,
    NotATun,
    TunDevice,
    TunOffload,
    inspect_tun,
    open_tun,
    set_carrier,
    tun_offload,
)
from dataplane.tun.link import get_link, set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.tun.virtio import GSO_TCPV4, VirtioHeader
from tests.tun.conftest import (
    LinkNotices,
    delete_link,
    enable_ipv6,
    fresh_namespace,
    ipv4_udp,
    opened_with,
    tun_in,
    udp_in,
    wait_for_addresses,
)
from tests.tun.packets import UDP, Packet, slow_checksum

pytestmark = pytest.mark.root

IFF_TAP = 0x0002
TUNSETPERSIST = 0x400454CB
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
UDP_SEGMENT = 103
ETH_P_IP = 0x0800


@pytest.fixture(params=["with virtio headers", "bare"])
def tun(request: pytest.FixtureRequest, namespace: str) -> Iterator[TunDevice]:
    flags = IFF_VNET_HDR if request.param == "with virtio headers" else 0
    fd = opened_with(namespace, IFF_TUN | IFF_NO_PI | flags)
    set_link("tun0", namespace, admin_up=True, addresses=[ip_interface("10.8.0.1/24")])
    device = TunDevice(fd)
    os.close(fd)
    yield device
    device.close()


@pytest.fixture
def offloading(namespace: str) -> Iterator[TunDevice]:
    with tun_in(namespace, "tun0", "10.8.0.1/24") as fd:
        device = TunDevice(fd)
        yield device
        device.close()


def read_all(tun: TunDevice, limit: int = 64) -> list[bytes]:
    """What it reads, none of it malformed."""
    packets, malformed = tun.read_batch(limit)
    assert malformed == 0
    return packets


def send_to_tun(namespace: str, count: int) -> list[bytes]:
    payloads = [f"packet {number}".encode() for number in range(count)]
    with udp_in(namespace, "10.8.0.1") as udp:
        for payload in payloads:
            udp.sendto(payload, ("10.8.0.2", 9))
    return payloads


def test_open_tun_makes_an_interface(namespace: str) -> None:
    fd, name = in_network_namespace(namespace, lambda: open_tun("ovpn7"))
    assert (name, get_link("ovpn7", namespace).admin_up) == ("ovpn7", False)
    os.close(fd)


def test_interface_ends_with_its_last_descriptor(namespace: str) -> None:
    fd, _ = in_network_namespace(namespace, lambda: open_tun("ovpn7"))
    os.close(fd)
    with pytest.raises(OSError, match="No such device"):
        get_link("ovpn7", namespace)


def test_open_tun_fills_in_a_pattern(namespace: str) -> None:
    fd, name = in_network_namespace(namespace, lambda: open_tun("tun%d"))
    os.close(fd)
    assert name == "tun0"


def test_descriptor_is_non_blocking_and_not_inheritable(namespace: str) -> None:
    fd, _ = in_network_namespace(namespace, lambda: open_tun("tun0"))
    assert (os.get_blocking(fd), os.get_inheritable(fd)) == (False, False)
    os.close(fd)


def test_existing_interface_is_an_error(namespace: str) -> None:
    with pytest.raises(OSError) as raised:
        in_network_namespace(namespace, lambda: open_tun("lo"))
    assert raised.value.errno == errno.EBUSY


def test_persistent_tun_that_nobody_holds_is_not_grabbed(namespace: str) -> None:
    fd, _ = in_network_namespace(namespace, lambda: open_tun("tun0"))
    fcntl.ioctl(fd, TUNSETPERSIST, 1)
    os.close(fd)
    with pytest.raises(OSError) as raised:
        in_network_namespace(namespace, lambda: open_tun("tun0"))
    assert raised.value.errno == errno.EBUSY


def test_name_longer_than_15_bytes_is_an_error() -> None:
    with pytest.raises(ValueError, match="longer than 15"):
        open_tun("sixteen-bytes-ab")


def test_inspect_tun_tells_the_name_that_the_interface_has_now(namespace: str) -> None:
    with tun_in(namespace, "tun0") as fd:
        set_link("tun0", namespace, admin_up=False)
        index = get_link("tun0", namespace).index

        def rename() -> None:
            with IPRoute() as rtnetlink:
                rtnetlink.link("set", index=index, ifname="renamed")

        in_network_namespace(namespace, rename)
        assert inspect_tun(fd) == "renamed"


def test_without_a_carrier_an_interface_keeps_all_it_has_but_packets(namespace: str) -> None:
    with tun_in(namespace, "tun0", "10.8.0.1/24") as fd, closing(LinkNotices(namespace, "tun0")) as notices:
        device = TunDevice(fd)
        for _ in range(2):
            set_carrier(fd, on=False)
            notices.wait_for_carrier(on=False)
            assert get_link("tun0", namespace).addresses == {ip_interface("10.8.0.1/24")}
            send_to_tun(namespace, 3)  # the route is there, or this would fail
            assert read_all(device) == []
            set_carrier(fd, on=True)
            notices.wait_for_carrier(on=True)
            payloads = send_to_tun(namespace, 3)
            assert [packet[28:] for packet in read_all(device)] == payloads
        device.close()


def test_carrier_of_an_interface_that_is_gone_is_refused(namespace: str) -> None:
    with tun_in(namespace, "tun0", "10.8.0.1/24") as fd:
        delete_link(namespace, "tun0")
        with pytest.raises(OSError, match="descriptor in bad state"):
            set_carrier(fd, on=False)


@pytest.mark.parametrize("flags", [0, IFF_VNET_HDR])
def test_inspect_tun_takes_a_tun_with_and_without_virtio_headers(namespace: str, flags: int) -> None:
    fd = opened_with(namespace, IFF_TUN | IFF_NO_PI | flags)
    assert inspect_tun(fd) == "tun0"
    os.close(fd)


def test_inspect_tun_refuses_a_tap(namespace: str) -> None:
    fd = opened_with(namespace, IFF_TAP | IFF_NO_PI)
    with pytest.raises(NotATun, match="TAP"):
        inspect_tun(fd)
    os.close(fd)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/net/tun"])
def test_inspect_tun_refuses_what_is_attached_to_no_interface(path: str) -> None:
    fd = os.open(path, os.O_RDWR)
    with pytest.raises(NotATun):
        inspect_tun(fd)
    os.close(fd)


def test_packets_are_read_in_order(namespace: str, tun: TunDevice) -> None:
    payloads = send_to_tun(namespace, 3)
    assert [packet[28:] for packet in read_all(tun)] == payloads


def test_no_more_packets_are_read_than_the_limit(namespace: str, tun: TunDevice) -> None:
    send_to_tun(namespace, 5)
    assert [len(read_all(tun, 3)), len(read_all(tun, 3))] == [3, 2]


def test_reading_does_not_wait(tun: TunDevice) -> None:
    assert read_all(tun) == []


def test_descriptor_that_was_blocking_does_not_make_reading_wait(namespace: str) -> None:
    fd = opened_with(namespace, IFF_TUN | IFF_NO_PI)
    assert read_all(TunDevice(fd)) == []
    os.close(fd)


def test_written_packets_reach_the_host(namespace: str, tun: TunDevice) -> None:
    with udp_in(namespace, "10.8.0.1") as udp:
        port = udp.getsockname()[1]
        packets = [ipv4_udp(("10.8.0.2", 7), ("10.8.0.1", port), payload) for payload in (b"one", b"two")]
        assert tun.write_batch(packets) == [True, True]
        assert [udp.recv(100), udp.recv(100)] == [b"one", b"two"]


def test_what_the_device_refuses_does_not_stop_what_follows(tun: TunDevice) -> None:
    packet = ipv4_udp(("10.8.0.2", 7), ("10.8.0.1", 9), b"")
    assert tun.write_batch([packet, b"\xff" * 20, packet]) == [True, False, True]


def test_device_that_is_down_takes_nothing_and_is_not_gone(namespace: str, tun: TunDevice) -> None:
    set_link("tun0", namespace, admin_up=False)
    packet = ipv4_udp(("10.8.0.2", 7), ("10.8.0.1", 9), b"")
    assert (tun.write_batch([packet]), read_all(tun)) == ([False], [])


def test_reading_tells_that_the_interface_was_deleted(namespace: str, tun: TunDevice) -> None:
    delete_link(namespace, "tun0")
    with pytest.raises(DeviceGone) as raised:
        tun.read_batch(64)
    assert raised.value.errno == errno.EBADFD


def test_deleted_interface_takes_nothing(namespace: str, tun: TunDevice) -> None:
    delete_link(namespace, "tun0")
    assert tun.write_batch([ipv4_udp(("10.8.0.2", 7), ("10.8.0.1", 9), b"")]) == [False]


# Offload


def test_made_interface_offers_all_offloads_that_linux_has(namespace: str) -> None:
    with tun_in(namespace, "tun0") as fd:
        assert tun_offload(fd) == TunOffload(virtio_header=True, tcp=True, udp=True)


def test_bare_interface_offers_none(namespace: str) -> None:
    fd = opened_with(namespace, IFF_TUN | IFF_NO_PI)
    assert tun_offload(fd) == TunOffload(virtio_header=False, tcp=False, udp=False)
    os.close(fd)


def test_interface_that_was_deleted_offers_none(namespace: str) -> None:
    with tun_in(namespace, "tun0") as fd:
        delete_link(namespace, "tun0")
        assert tun_offload(fd) == TunOffload(virtio_header=False, tcp=False, udp=False)


@pytest.mark.parametrize(("accepted", "tcp", "udp"), [(0x67, True, True), (0x07, True, False), (0x01, False, False)])
def test_older_kernel_offers_what_it_has(
    namespace: str, monkeypatch: pytest.MonkeyPatch, accepted: int, tcp: bool, udp: bool
) -> None:
    real: Callable[..., bytes] = fcntl.ioctl

    def older(fd: int, request: int, argument: bytes | int = 0) -> bytes:
        if request == TUNSETOFFLOAD and isinstance(argument, int) and argument & ~accepted:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, request, argument)

    with tun_in(namespace, "tun0") as fd:
        monkeypatch.setattr(fcntl, "ioctl", older)
        assert tun_offload(fd) == TunOffload(virtio_header=True, tcp=tcp, udp=udp)


def test_longer_virtio_header_of_a_former_owner_is_set_right(namespace: str) -> None:
    with tun_in(namespace, "tun0", "10.8.0.1/24") as fd:
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("=i", 12))
        device = TunDevice(fd)
        payloads = send_to_tun(namespace, 2)
        assert [packet[28:] for packet in read_all(device)] == payloads
        device.close()


def test_frame_that_stands_for_many_packets_is_read_as_these(namespace: str, offloading: TunDevice) -> None:
    with udp_in(namespace, "10.8.0.1") as udp:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 4)
        udp.sendto(b"one.two.end", ("10.8.0.2", 9))
    packets = read_all(offloading)
    assert [packet[28:] for packet in packets] == [b"one.", b"two.", b"end"]
    assert [checksum_over(packet) for packet in packets] == [0, 0, 0]


def checksum_over(packet: bytes) -> int:
    """Of an IPv4 packet with UDP, pseudo header included: 0 if the one in the packet is right."""
    return slow_checksum(packet[12:20] + bytes([0, UDP]) + packet[24:26] + packet[20:])


def test_limit_counts_packets_and_leaves_no_frame_half_read(namespace: str, offloading: TunDevice) -> None:
    with udp_in(namespace, "10.8.0.1") as udp:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1)
        for _ in range(2):
            udp.sendto(b"five!", ("10.8.0.2", 9))
    assert [len(read_all(offloading, limit)) for limit in (3, 6, 6)] == [5, 5, 0]


def test_malformed_frame_is_told_and_does_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    offload = TunOffload(virtio_header=True, tcp=False, udp=False)
    monkeypatch.setattr("dataplane.tun.device.tun_offload", lambda _: offload)
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with kernel, ours:
        device = TunDevice(ours.fileno())
        for frame in (VirtioHeader(gso_type=GSO_TCPV4).pack() + b"no packet", b"short", bytes(10) + b"good"):
            kernel.send(frame)
        assert device.read_batch(2) == ([], 2)
        assert device.read_batch(2) == ([b"good"], 0)
        device.close()


def test_segments_of_a_flow_reach_the_host_as_one_packet(namespace: str, offloading: TunDevice) -> None:
    first = Packet(payload=bytes(1000))
    segments = [first.with_(sequence=1000 * number, identification=number).pack() for number in range(3)]
    with in_network_namespace(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)) as sniffer:
        sniffer.settimeout(10)
        sniffer.bind(("tun0", ETH_P_IP))
        assert offloading.write_batch([*segments, first.with_(ports=(1, 1)).pack()]) == [True] * 4
        assert [len(sniffer.recv(65535)) for _ in range(2)] == [3040, 1040]


def test_deleted_interface_takes_none_of_a_frame(namespace: str, offloading: TunDevice) -> None:
    delete_link(namespace, "tun0")
    first = Packet(payload=bytes(9))
    segments = [first.with_(sequence=9 * number, identification=number).pack() for number in range(3)]
    assert offloading.write_batch(segments) == [False] * 3


@contextmanager
def end_of_a_tunnel(name: str, addresses: list[str]) -> Iterator[tuple[str, TunDevice]]:
    with fresh_namespace() as namespace, tun_in(namespace, name) as fd:
        enable_ipv6(namespace, name)
        set_link(name, namespace, addresses=[ip_interface(address) for address in addresses])
        wait_for_addresses(namespace)
        device = TunDevice(fd)
        yield namespace, device
        device.close()


@pytest.mark.parametrize("address", ["10.8.0.2", "fd00::2"])
def test_tcp_through_two_devices_arrives_intact_and_in_large_frames(address: str) -> None:
    content = os.urandom(1 << 20)
    here, there = ["10.8.0.1/24", "fd00::1/64"], ["10.8.0.2/24", "fd00::2/64"]
    with end_of_a_tunnel("tunA", here) as (namespace_a, a), end_of_a_tunnel("tunB", there) as (namespace_b, b):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = in_network_namespace(namespace_b, lambda: socket.create_server((address, 0), family=family))
        sender = in_network_namespace(namespace_a, lambda: socket.socket(family))
        sender.setblocking(False)
        assert sender.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        with listener, sender:
            received, largest = carry(content, a, b, sender, listener)
    assert received == content
    assert largest > 1


def carry(
    content: bytes, a: TunDevice, b: TunDevice, sender: socket.socket, listener: socket.socket
) -> tuple[bytes, int]:
    """Sends content from one host to the other; what came, and the most packets that were read at once."""
    poller = select.epoll()
    for descriptor in (a.fd, b.fd, listener.fileno()):
        poller.register(descriptor, select.EPOLLIN)
    poller.register(sender.fileno(), select.EPOLLOUT)
    left, received, largest = memoryview(content), bytearray(), 0
    receiver: socket.socket | None = None
    while len(received) < len(content):
        for descriptor, _ in poller.poll(10):
            if descriptor in {a.fd, b.fd}:
                packets = read_all(a if descriptor == a.fd else b, limit=1)
                largest = max(largest, len(packets))
                (b if descriptor == a.fd else a).write_batch(packets)
            elif descriptor == listener.fileno():
                receiver, _ = listener.accept()
                poller.register(receiver.fileno(), select.EPOLLIN)
            elif descriptor == sender.fileno() and left:
                left = left[sender.send(left) :]
            elif descriptor == sender.fileno():
                poller.unregister(sender.fileno())
            elif receiver is not None:
                received += receiver.recv(1 << 20)
    poller.close()
    if receiver is not None:
        receiver.close()
    return bytes(received), largest
