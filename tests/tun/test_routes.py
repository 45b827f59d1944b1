"""The kernel's routes through an interface, by real routes of real interfaces."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from select import select

import pytest

from dataplane.tun import routes
from dataplane.tun.link import set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.tun.routes import Hop, RouteWatch
from tests.tun.conftest import enable_ipv6, tun_in

pytestmark = pytest.mark.root


class Routing:
    """A namespace with the TUNs "tun0" (10.8.0.1/24, fd00::1/64) and "tun1" (10.9.0.1/24), and who watches tun0.

    known: what the watch has told so far, by network.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.watch = RouteWatch("tun0", namespace)
        self.known: dict[str, list[str]] = {}
        self._read()

    def ip(self, command: str) -> None:
        """Runs `ip` in the namespace, and hears what comes of it."""
        run_ip(self.namespace, command)
        self._read()

    def _read(self) -> None:
        # Notices are in the queue before the call that causes them returns, but for answers to what is asked anew.
        while True:
            for network, hops in self.watch.read().items():
                self.known[str(network)] = [hop.name if isinstance(hop, Hop) else str(hop) for hop in hops]
                if not hops:
                    del self.known[str(network)]
            if not select([self.watch.fd], [], [], 0.02)[0]:
                return

    def via(self, network: str) -> list[str]:
        """Where a network leads, best first."""
        return self.known.get(network, [])


def run_ip(namespace: str, command: str) -> None:
    in_network_namespace(namespace, lambda: subprocess.run(["ip", *command.split()], check=True))


@pytest.fixture
def tuns(namespace: str) -> Iterator[str]:
    """The namespace, with its TUNs."""
    with tun_in(namespace, "tun0"), tun_in(namespace, "tun1", "10.9.0.1/24"):
        enable_ipv6(namespace, "tun0")
        set_link("tun0", namespace, addresses=[ip_interface("10.8.0.1/24"), ip_interface("fd00::1/64")])
        yield namespace


@pytest.fixture
def routing(tuns: str) -> Iterator[Routing]:
    routing = Routing(tuns)
    yield routing
    routing.watch.close()


def test_what_there_is_already_is_told_first(tuns: str) -> None:
    run_ip(tuns, "route add 192.168.7.0/24 via 10.8.0.2 dev tun0")
    run_ip(tuns, "route add 192.168.8.0/24 via 10.9.0.2 dev tun1")
    run_ip(tuns, "-6 route add fd00:7::/48 via fd00::2 dev tun0")
    watch = RouteWatch("tun0", tuns)
    link_local = ip_network("fe80::/10")
    first = watch.read()
    assert {network: hops for network, hops in first.items() if network.network_address not in link_local} == {
        ip_network("10.8.0.0/24"): (Hop.ON_LINK,),
        ip_network("10.8.0.1/32"): (Hop.LOCAL,),
        ip_network("10.8.0.255/32"): (Hop.BROADCAST,),
        ip_network("fd00::/64"): (Hop.ON_LINK,),
        ip_network("fd00::1/128"): (Hop.LOCAL,),
        ip_network("192.168.7.0/24"): (ip_address("10.8.0.2"),),
        ip_network("fd00:7::/48"): (ip_address("fd00::2"),),
    }
    assert watch.read() == {}
    watch.close()


@pytest.mark.parametrize(
    ("network", "gateway"),
    [
        ("192.168.7.0/24", "10.8.0.2"),
        ("192.168.7.1/32", "10.8.0.2"),
        ("0.0.0.0/0", "10.8.0.2"),
        ("fd00:7::/48", "fd00::2"),
        ("::/0", "fd00::2"),
        ("192.168.7.0/24", "inet6 fd00::2"),
    ],
)
def test_a_route_is_told_when_it_comes_and_when_it_goes(routing: Routing, network: str, gateway: str) -> None:
    routing.ip(f"route add {network} via {gateway} dev tun0")
    assert routing.via(network) == [gateway.removeprefix("inet6 ")]
    routing.ip(f"route del {network} via {gateway} dev tun0")
    assert routing.via(network) == []


def test_routes_of_every_table_count_main_first_then_by_metric(routing: Routing) -> None:
    routing.ip("route add 192.168.7.0/24 via 10.8.0.7 dev tun0 table 77")
    routing.ip("route add 192.168.7.0/24 via 10.8.0.3 dev tun0 metric 200")
    routing.ip("route add 192.168.7.0/24 via 10.8.0.2 dev tun0 metric 100")
    assert routing.via("192.168.7.0/24") == ["10.8.0.2", "10.8.0.3", "10.8.0.7"]
    routing.ip("route del 192.168.7.0/24 via 10.8.0.2 dev tun0 metric 100")
    assert routing.via("192.168.7.0/24") == ["10.8.0.3", "10.8.0.7"]


def test_routes_through_other_interfaces_are_not_told(routing: Routing) -> None:
    routing.ip("route add 192.168.7.0/24 via 10.9.0.2 dev tun1")
    routing.ip("route add unreachable 192.168.8.0/24")
    assert (routing.via("192.168.7.0/24"), routing.via("192.168.8.0/24")) == ([], [])


def test_of_several_next_hops_those_through_the_interface_count(routing: Routing) -> None:
    routing.ip(
        "route add 192.168.7.0/24 nexthop via 10.8.0.3 dev tun0 nexthop via 10.9.0.2 dev tun1 "
        "nexthop via 10.8.0.2 dev tun0"
    )
    assert routing.via("192.168.7.0/24") == ["10.8.0.2", "10.8.0.3"]


@pytest.mark.parametrize("replacement", ["via 10.8.0.3 dev tun0", "via 10.9.0.2 dev tun1"])
def test_a_replaced_route_is_told(routing: Routing, replacement: str) -> None:
    routing.ip("route add 192.168.7.0/24 via 10.8.0.2 dev tun0")
    routing.ip(f"route replace 192.168.7.0/24 {replacement}")
    assert routing.via("192.168.7.0/24") == (["10.8.0.3"] if "tun0" in replacement else [])


def test_a_replaced_ipv6_route_is_told(routing: Routing) -> None:
    routing.ip("-6 route add fd00:7::/48 via fd00::2 dev tun0")
    routing.ip("-6 route append fd00:7::/48 via fd00::3 dev tun0")
    assert routing.via("fd00:7::/48") == ["fd00::2", "fd00::3"]
    routing.ip("-6 route replace fd00:7::/48 via fd00::4 dev tun0")
    assert routing.via("fd00:7::/48") == ["fd00::4"]


def test_routes_that_go_with_their_interface_without_a_word_are_missed(routing: Routing) -> None:
    """The kernel gives no notice of IPv4 routes that an interface takes with it."""
    routing.ip("route add 192.168.7.0/24 via 10.8.0.2 dev tun0")
    routing.ip("link set tun0 down")
    assert routing.via("192.168.7.0/24") == []
    assert routing.via("10.8.0.0/24") == []
    routing.ip("link set tun0 up")
    assert routing.via("10.8.0.0/24") == ["ON_LINK"]


def test_routes_that_go_with_an_address_are_missed(routing: Routing) -> None:
    routing.ip("route add 192.168.7.0/24 dev tun0 via 10.8.0.2 src 10.8.0.1")
    routing.ip("addr del 10.8.0.1/24 dev tun0")
    assert (routing.via("192.168.7.0/24"), routing.via("10.8.0.1/32")) == ([], [])
    routing.ip("addr add 10.7.0.1/24 dev tun0")
    assert routing.via("10.7.0.1/32") == ["LOCAL"]


def test_a_deleted_interface_has_no_routes(routing: Routing) -> None:
    routing.ip("route add 192.168.7.0/24 via 10.8.0.2 dev tun0")
    routing.ip("link del tun0")
    assert routing.known == {}


def test_nothing_is_missed_when_notices_are_lost(tuns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_RECEIVE_BUFFER", 0)  # the kernel's least, which holds two notices or three
    routing = Routing(tuns)
    for number in range(30):
        run_ip(tuns, f"route add 192.168.{number}.0/24 via 10.8.0.2 dev tun0")
    run_ip(tuns, "route del 192.168.7.0/24")
    routing.ip("route del 192.168.8.0/24")
    expected = {f"192.168.{number}.0/24" for number in range(30)} - {"192.168.7.0/24", "192.168.8.0/24"}
    assert {network for network in routing.known if network.startswith("192.168.")} == expected
    routing.watch.close()


def test_an_interface_that_there_is_not_is_an_error(tuns: str) -> None:
    with pytest.raises(OSError) as raised:
        RouteWatch("tun9", tuns)
    assert raised.value.errno == errno.ENODEV
