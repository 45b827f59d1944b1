"""The kernel's routes through an interface: read once, then followed by rtnetlink(7) as they change.

Knows which routes the kernel has and where each leads. Must not know peers, devices or asyncio: the owner of a
RouteWatch calls read() when its descriptor is readable. Nothing of pyroute2 leaves this file.

Unicast routes of all tables count, for the kernel has chosen the interface already when a packet is seen here, by
whichever table its policy rules named. Notices are taken at their word as long as they tell of one route that came or
went. What they do not tell of (IPv4 routes that go with a link or an address, a replaced route, a lost notice)
is found by reading all routes of the interface again.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from enum import Enum, unique
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from pyroute2.netlink import (
    NETLINK_ROUTE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from dataplane.tun.network_namespace import in_network_namespace

IPNetwork = IPv4Network | IPv6Network

_SOL_NETLINK: Final = 270
_NETLINK_GET_STRICT_CHK: Final = 12
_DATAGRAM_MAX: Final = 1 << 16
_DATAGRAMS_A_READ: Final = 16
_RECEIVE_BUFFER: Final = 4 << 20
_ANSWER_TIMEOUT_S: Final = 5.0

_TABLE_MAIN: Final = 254
_TABLE_LOCAL: Final = 255
_CLONED: Final = 0x200
"""RTM_F_CLONED: no route but what a look-up found out, such as a path MTU."""
_EVERYWHERE: Final = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}


@unique
class Hop(Enum):
    """Where a route leads that has no gateway."""

    ON_LINK = "on-link"
    """To whoever has the address, on the interface itself."""
    LOCAL = "local"
    """To this host: an address of the interface."""
    BROADCAST = "broadcast"
    """To all on the interface."""


NextHop = IPv4Address | IPv6Address | Hop
"""The gateway of a route, perhaps of the other family, or where it leads without one."""

_HOPS: Final[dict[int, Hop]] = {1: Hop.ON_LINK, 2: Hop.LOCAL, 3: Hop.BROADCAST}
"""By route type (RTN_UNICAST, …). All other types lead nowhere that matters here."""


class _Path(NamedTuple):
    """One way to a network. Sorted as the kernel prefers them: local, main, other tables, each by metric."""

    rank: tuple[int, int, int]
    hop: NextHop


class RouteWatch:
    """The routes through one interface. `fd` is readable when read() may have something to tell."""

    def __init__(self, interface_name: str, network_namespace: str = "") -> None:
        """Subscribes, and reads what there is already, which the first read() tells. Blocks for a few ms.

        Raises OSError: ENODEV, no such interface; see in_network_namespace.
        """
        self._socket, self._index = in_network_namespace(network_namespace, lambda: _open(interface_name))
        self._marshal = MarshalRtnl()
        self._paths: dict[IPNetwork, set[_Path]] = {}
        self._told: dict[IPNetwork, tuple[NextHop, ...]] = {}
        self._changed: set[IPNetwork] = set()
        self._families_to_read: list[int] = []
        self._sequence = 0
        self._is_reading = False  # all routes, anew
        self._is_outdated = True
        try:
            self._read_all()
        except OSError:
            self._socket.close()
            raise

    @property
    def fd(self) -> int:
        """Descriptor, for polling only."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes the descriptor."""
        self._socket.close()

    def read(self) -> dict[IPNetwork, tuple[NextHop, ...]]:
        """Reads what waits, a bounded amount; the networks whose next hops have changed, with these, best first.

        A network without next hops has no route any more.
        """
        for _ in range(_DATAGRAMS_A_READ):
            try:
                self._take(self._socket.recv(_DATAGRAM_MAX))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._is_outdated = True  # notices were lost
            self._begin_if_outdated()
        return self._changes()

    def _read_all(self) -> None:
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        self._begin_if_outdated()
        while self._is_reading:
            self._take(self._socket.recv(_DATAGRAM_MAX))
            self._begin_if_outdated()
        self._socket.setblocking(False)

    def _begin_if_outdated(self) -> None:
        """Begins to read all routes again, unless that is under way: then it will be done once more."""
        if self._is_outdated and not self._is_reading:
            self._is_outdated = False
            self._is_reading = True
            self._changed.update(self._paths)
            self._paths = {}
            self._families_to_read = [socket.AF_INET6, socket.AF_INET]
            self._read_next_family()

    def _read_next_family(self) -> None:
        if not self._families_to_read:
            self._is_reading = False
            return
        family = self._families_to_read.pop()
        self._sequence += 1
        request = rtmsg()
        request["family"] = family
        request["attrs"] = [["RTA_OIF", self._index]]
        request["header"]["type"] = RTM_GETROUTE
        request["header"]["flags"] = NLM_F_REQUEST | NLM_F_DUMP
        request["header"]["sequence_number"] = self._sequence
        request.encode()
        self._socket.send(bytes(request.data))

    def _changes(self) -> dict[IPNetwork, tuple[NextHop, ...]]:
        if self._is_reading:
            return {}  # half a table would look as if the other half were gone
        changes = {}
        for network in self._changed:
            hops = tuple(path.hop for path in sorted(self._paths.get(network, ()), key=_preference))
            if hops != self._told.get(network, ()):
                changes[network] = hops
                if hops:
                    self._told[network] = hops
                else:
                    del self._told[network]
        self._changed.clear()
        return changes

    def _take(self, datagram: bytes) -> None:
        for message in self._marshal.parse(datagram):
            header = message["header"]
            kind, flags, is_ours = header["type"], header["flags"], header["sequence_number"] == self._sequence
            is_answer = self._is_reading and is_ours and (flags & NLM_F_MULTI or kind in {NLMSG_DONE, NLMSG_ERROR})
            if is_answer and flags & NLM_F_DUMP_INTR:
                self._is_outdated = True  # changed while it was read
            if is_answer and kind in {NLMSG_DONE, NLMSG_ERROR}:
                self._read_next_family()
            elif kind in {RTM_NEWROUTE, RTM_DELROUTE}:
                self._take_route(message, kind, is_replacement=not is_answer and bool(flags & NLM_F_REPLACE))
            elif kind == RTM_DELADDR or (kind in {RTM_NEWLINK, RTM_DELLINK} and message["index"] == self._index):
                self._is_outdated = True

    def _take_route(self, message: Any, kind: int, *, is_replacement: bool) -> None:
        if message["family"] not in _EVERYWHERE or message["type"] not in _HOPS or message["flags"] & _CLONED:
            return
        # The default route has no RTA_DST.
        destination = message.get_attr("RTA_DST")
        network = ip_network(f"{destination}/{message['dst_len']}" if destination else _EVERYWHERE[message["family"]])
        paths = set(self._paths_in(message))
        if is_replacement and (paths or network in self._paths):
            # Of several routes to one network it does not tell which one was replaced.
            self._is_outdated = True
            return
        if not paths:
            return
        self._changed.add(network)
        known = self._paths.setdefault(network, set())
        if kind == RTM_NEWROUTE:
            known |= paths
        else:
            known -= paths
        if not known:
            del self._paths[network]

    def _paths_in(self, message: Any) -> Iterator[_Path]:
        table = message.get_attr("RTA_TABLE") or message["table"]
        metric = message.get_attr("RTA_PRIORITY") or 0
        rank = {_TABLE_LOCAL: 0, _TABLE_MAIN: 1}.get(table, 2), table, metric
        for part in _hops_in(message):
            if part.interface == self._index:
                yield _Path(rank, part.gateway or _HOPS[message["type"]])


class _HopOfRoute(NamedTuple):
    interface: int | None
    gateway: IPv4Address | IPv6Address | None


def _hops_in(message: Any) -> Iterable[_HopOfRoute]:
    """The next hops of a route: its own, or those of a route with several."""
    several = message.get_attr("RTA_MULTIPATH")
    if several is None:
        return [_HopOfRoute(message.get_attr("RTA_OIF"), _gateway(message))]
    return [_HopOfRoute(part["oif"], _gateway(part)) for part in several]


def _gateway(part: Any) -> IPv4Address | IPv6Address | None:
    via = part.get_attr("RTA_VIA")
    address = part.get_attr("RTA_GATEWAY") or (via["addr"] if via else None)
    return None if address is None else ip_address(address)


def _preference(path: _Path) -> tuple[tuple[int, int, int], str]:
    return path.rank, str(path.hop)


def _open(interface_name: str) -> tuple[socket.socket, int]:
    try:
        index = socket.if_nametoindex(interface_name)
    except OSError as error:  # it has no errno
        raise OSError(errno.ENODEV, f"no interface {interface_name}") from error
    rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        rtnetlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        # With it the kernel heeds the interface that a request names, and gives only its routes.
        rtnetlink.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        rtnetlink.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE))
        rtnetlink.connect((0, 0))
    except OSError:
        rtnetlink.close()
        raise
    return rtnetlink, index
