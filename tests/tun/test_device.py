from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from dataplane.tun.device import IFF_NO_PI, IFF_TUN, DeviceGone, NotATun, TunDevice, inspect_tun, open_tun
from dataplane.tun.link import get_link, set_link
from dataplane.tun.network_namespace import in_network_namespace
from tests.tun.conftest import delete_link, ipv4_udp, opened_with, tun_in, udp_in

pytestmark = pytest.mark.root

IFF_TAP = 0x0002
IFF_VNET_HDR = 0x4000
TUNSETPERSIST = 0x400454CB


@pytest.fixture
def tun(namespace: str) -> Iterator[TunDevice]:
    with tun_in(namespace, "tun0", "10.8.0.1/24") as fd:
        device = TunDevice(fd)
        yield device
        device.close()


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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (IFF_TAP | IFF_NO_PI, "TAP"),
        (IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, "with IFF_VNET_HDR"),
    ],
)
def test_inspect_tun_refuses_another_layout_of_packets(namespace: str, flags: int, message: str) -> None:
    fd = opened_with(namespace, flags)
    with pytest.raises(NotATun, match=message):
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
    assert [packet[28:] for packet in tun.read_batch(64)] == payloads


def test_no_more_packets_are_read_than_the_limit(namespace: str, tun: TunDevice) -> None:
    send_to_tun(namespace, 5)
    assert [len(tun.read_batch(3)), len(tun.read_batch(3))] == [3, 2]


def test_reading_does_not_wait(tun: TunDevice) -> None:
    assert tun.read_batch(64) == []


def test_descriptor_that_was_blocking_does_not_make_reading_wait(namespace: str) -> None:
    fd = opened_with(namespace, IFF_TUN | IFF_NO_PI)
    assert TunDevice(fd).read_batch(64) == []
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
    assert (tun.write_batch([packet]), tun.read_batch(64)) == ([False], [])


def test_reading_tells_that_the_interface_was_deleted(namespace: str, tun: TunDevice) -> None:
    delete_link(namespace, "tun0")
    with pytest.raises(DeviceGone) as raised:
        tun.read_batch(64)
    assert raised.value.errno == errno.EBADFD


def test_deleted_interface_takes_nothing(namespace: str, tun: TunDevice) -> None:
    delete_link(namespace, "tun0")
    assert tun.write_batch([ipv4_udp(("10.8.0.2", 7), ("10.8.0.1", 9), b"")]) == [False]
