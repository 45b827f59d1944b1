from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from ipaddress import ip_interface

import pytest
from pyroute2 import IPRoute

from dataplane.tun.device import IFF_NO_PI, IFF_TUN
from dataplane.tun.link import IPInterface, get_link, set_link
from dataplane.tun.network_namespace import in_network_namespace
from tests.tun.conftest import enable_ipv6, opened_with, tun_in

pytestmark = pytest.mark.root


@pytest.fixture
def tun(namespace: str) -> Iterator[str]:
    with tun_in(namespace, "tun0"):
        yield "tun0"


def interfaces(*addresses: str) -> frozenset[IPInterface]:
    return frozenset(ip_interface(address) for address in addresses)


def test_mtu_is_set(namespace: str, tun: str) -> None:
    set_link(tun, namespace, mtu=1428)
    assert get_link(tun, namespace).mtu == 1428


def test_mtu_that_linux_refuses_is_an_error(namespace: str, tun: str) -> None:
    with pytest.raises(OSError) as raised:
        set_link(tun, namespace, mtu=10)
    assert raised.value.errno == errno.EINVAL


def test_interface_goes_down_and_up(namespace: str, tun: str) -> None:
    set_link(tun, namespace, admin_up=False)
    was_up = get_link(tun, namespace).admin_up
    set_link(tun, namespace, admin_up=True)
    assert (was_up, get_link(tun, namespace).admin_up) == (False, True)


def test_addresses_become_the_wanted_set(namespace: str, tun: str) -> None:
    enable_ipv6(namespace, tun)
    set_link(tun, namespace, addresses=interfaces("10.8.0.1/24", "10.9.0.1/16", "fd00::1/64"))
    wanted = interfaces("10.8.0.1/24", "10.8.0.2/32", "fd00::2/64")
    set_link(tun, namespace, addresses=wanted)
    assert get_link(tun, namespace).addresses == wanted


def test_secondary_address_outlives_the_removal_of_its_primary(namespace: str, tun: str) -> None:
    set_link(tun, namespace, addresses=interfaces("10.8.0.1/24"))
    set_link(tun, namespace, addresses=interfaces("10.8.0.1/24", "10.8.0.2/24"))
    set_link(tun, namespace, addresses=interfaces("10.8.0.2/24"))
    assert get_link(tun, namespace).addresses == interfaces("10.8.0.2/24")


def test_same_address_with_another_prefix_is_another_address(namespace: str, tun: str) -> None:
    set_link(tun, namespace, addresses=interfaces("10.8.0.1/24"))
    set_link(tun, namespace, addresses=interfaces("10.8.0.1/16"))
    assert get_link(tun, namespace).addresses == interfaces("10.8.0.1/16")


def test_ipv6_addresses_are_there_after_going_up_with_them(namespace: str, tun: str) -> None:
    enable_ipv6(namespace, tun)
    set_link(tun, namespace, admin_up=False, addresses=interfaces("fd00::1/64"))
    set_link(tun, namespace, admin_up=True, addresses=interfaces("fd00::1/64"))
    assert get_link(tun, namespace).addresses == interfaces("fd00::1/64")


def test_ipv6_link_local_addresses_are_left_alone(namespace: str, tun: str) -> None:
    enable_ipv6(namespace, tun)
    index = get_link(tun, namespace).index
    in_network_namespace(namespace, lambda: add_address(index, "fe80::1", 64))
    set_link(tun, namespace, addresses=())
    assert "fe80::1" in in_network_namespace(namespace, lambda: addresses_of(index))


def test_settings_that_are_not_named_stay(namespace: str, tun: str) -> None:
    set_link(tun, namespace, mtu=1300, addresses=interfaces("10.8.0.1/24"))
    before = get_link(tun, namespace)
    set_link(tun, namespace)
    assert get_link(tun, namespace) == before


@pytest.mark.parametrize(("flags", "packet_info"), [(IFF_TUN, True), (IFF_TUN | IFF_NO_PI, False)])
def test_packet_info_of_a_tun_is_told(namespace: str, flags: int, packet_info: bool) -> None:
    fd = opened_with(namespace, flags)
    assert get_link("tun0", namespace).packet_info == packet_info
    os.close(fd)


def test_interface_that_is_no_tun_has_no_packet_info(namespace: str) -> None:
    assert not get_link("lo", namespace).packet_info


@pytest.mark.parametrize("function", [get_link, set_link])
def test_missing_interface_is_an_error(namespace: str, function: object) -> None:
    assert callable(function)
    with pytest.raises(OSError) as raised:
        function("absent", namespace)
    assert raised.value.errno == errno.ENODEV


def add_address(index: int, address: str, prefix_length: int) -> None:
    with IPRoute() as rtnetlink:
        rtnetlink.addr("add", index=index, address=address, prefixlen=prefix_length)


def addresses_of(index: int) -> set[str]:
    with IPRoute() as rtnetlink:
        return {message.get_attr("IFA_ADDRESS") for message in rtnetlink.get_addr(index=index)}
