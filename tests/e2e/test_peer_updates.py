"""A peer is changed under traffic, and no packet is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from google.protobuf.duration_pb2 import Duration

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.pair import CLIENT, PEER_IDS, SERVER, VPN_IPV4, Pair, endpoint
from lab.traffic import Pinging

pytestmark = pytest.mark.root

Change = Callable[[Pair, int], None]
"""Makes the n-th update."""


def change_endpoint(pair: Pair, turn: int) -> None:
    """The client has two addresses. It sends from the new one first, so that the server's update is the last word."""
    address = pair.link.ipv4(2 + turn % 2)
    pair.update(CLIENT, "local_address", local_address=address)
    pair.update(SERVER, "remote", remote=endpoint(address))


def change_vpn_addresses(pair: Pair, turn: int) -> None:
    """The traffic is that of a network behind the peer."""
    host = 3 + turn % 2
    fields = {"vpn_ipv4": f"10.8.0.{host}", "vpn_ipv6": f"fd00:8::{host}"}
    pair.update(SERVER, *fields, "routes", **fields, routes=["10.8.0.0/29", f"192.168.{host}.0/24"])


def change_keepalive(pair: Pair, turn: int) -> None:
    for device in (SERVER, CLIENT):
        pair.update(
            device,
            *("keepalive_interval", "keepalive_timeout"),
            keepalive_interval=Duration(seconds=1 + turn % 2),
            keepalive_timeout=Duration(seconds=60 * (turn % 2)),
        )


def change_tx_id(pair: Pair, turn: int) -> None:
    """The client knows the server by another number than it has there, and takes no packets under a third."""
    del turn
    pair.update(SERVER, "tx_id", tx_id=PEER_IDS[CLIENT])


def change_mss(pair: Pair, turn: int) -> None:
    pair.update(SERVER, "tcp_mss_ipv4", "tcp_mss_ipv6", tcp_mss_ipv4=1200 + turn % 100)


@pytest.fixture
def pair(lab: Lab, data_plane: DataPlane) -> Iterator[Pair]:
    pair = Pair(lab, data_plane)
    pair.link.add_address(pair.link.b, "to-1b", 3)
    yield pair
    pair.delete()


@pytest.mark.parametrize("change", [change_endpoint, change_vpn_addresses, change_keepalive, change_tx_id, change_mss])
def test_no_packet_is_lost_while_a_peer_is_changed(lab: Lab, pair: Pair, change: Change) -> None:
    change(pair, 0)
    traffic.wait_reachable(lab, pair.namespaces[CLIENT], VPN_IPV4[SERVER])
    pings = [
        Pinging(lab, pair.namespaces[here], VPN_IPV4[there], count=200, interval_seconds=0.01, label=f"{here}-ping")
        for here, there in ((SERVER, CLIENT), (CLIENT, SERVER))
    ]
    with ThreadPoolExecutor() as pool:
        results = [pool.submit(ping.result) for ping in pings]
        for turn in count(1):
            change(pair, turn)
            if all(result.done() for result in results):
                break
    assert turn > 20
    assert [result.result().lost for result in results] == [0, 0]
