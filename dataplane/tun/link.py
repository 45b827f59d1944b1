"""Settings of a TUN's interface: MTU, administrative state, addresses, by rtnetlink through pyroute2.

Knows interfaces by name and network namespace. Must not know descriptors or packets, and must not be
imported by the worker, which may change nothing. Nothing of pyroute2 leaves this file. All functions
block for a few ms in a thread of their own, for pyroute2 runs an event loop that must not meet another one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dataplane.tun.network_namespace import in_network_namespace

IPInterface = IPv4Interface | IPv6Interface

IFF_UP: Final = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as it is. mtu in bytes; addresses without IPv6 link-local ones.

    packet_info: it is a TUN opened without IFF_NO_PI, so that four bytes precede each packet.
    """

    index: int
    mtu: int
    admin_up: bool
    addresses: frozenset[IPInterface]
    packet_info: bool


def get_link(name: str, network_namespace: str = "") -> Link:
    """Returns the settings of an interface. Raises OSError: ENODEV, no such interface; see in_network_namespace."""
    return _with_rtnetlink(network_namespace, lambda rtnetlink: _read(rtnetlink, name))


def set_link(
    name: str,
    network_namespace: str = "",
    *,
    mtu: int | None = None,
    admin_up: bool | None = None,
    addresses: Collection[IPInterface] | None = None,
) -> None:
    """Changes the settings that are not None.

    `addresses` is the whole set wanted: others are removed, but for IPv6 link-local ones, which the kernel
    makes. Linux forgets IPv6 addresses when an interface goes down: give them again when it comes up.
    Raises OSError: ENODEV, no such interface; EPERM; EINVAL and others for a value that Linux refuses, in which
    case settings named before it in the signature are already in force; see in_network_namespace.
    """

    def change(rtnetlink: IPRoute) -> None:
        index = _read(rtnetlink, name).index
        if mtu is not None:
            rtnetlink.link("set", index=index, mtu=mtu)
        if admin_up is not None:
            rtnetlink.link("set", index=index, state="up" if admin_up else "down")
        if addresses is not None:
            _set_addresses(rtnetlink, index, frozenset(addresses))

    _with_rtnetlink(network_namespace, change)


def _with_rtnetlink(network_namespace: str, function: Callable[[IPRoute], T]) -> T:
    def call() -> T:
        try:
            with IPRoute() as rtnetlink:
                return function(rtnetlink)
        except NetlinkError as error:
            raise OSError(error.code, str(error.args[1])) from error

    return in_network_namespace(network_namespace, call)


def _read(rtnetlink: IPRoute, name: str) -> Link:
    for message in rtnetlink.link("get", ifname=name):
        index = int(message["index"])
        return Link(
            index=index,
            mtu=int(message.get_attr("IFLA_MTU")),
            admin_up=bool(message["flags"] & IFF_UP),
            addresses=frozenset(a for a in _addresses(rtnetlink, index) if not _is_made_by_kernel(a)),
            packet_info=bool(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_TUN_PI")),
        )
    raise OSError(errno.ENODEV, f"no interface {name}")


def _addresses(rtnetlink: IPRoute, index: int) -> set[IPInterface]:
    return {_interface(message) for message in rtnetlink.get_addr(index=index)}


def _interface(message: Any) -> IPInterface:
    # On a point-to-point interface IFA_ADDRESS may be the far end's; IFA_LOCAL is always ours, if it is there.
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return ip_interface(f"{address}/{message['prefixlen']}")


def _is_made_by_kernel(address: IPInterface) -> bool:
    return address.version == 6 and address.is_link_local


def _set_addresses(rtnetlink: IPRoute, index: int, wanted: frozenset[IPInterface]) -> None:
    for address in _addresses(rtnetlink, index) - wanted:
        if not _is_made_by_kernel(address):
            rtnetlink.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
    # Read again: with an IPv4 address Linux also removes its secondary addresses, which may be wanted.
    for address in wanted - _addresses(rtnetlink, index):
        rtnetlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
