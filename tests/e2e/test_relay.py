"""Through a network that loses, reorders and duplicates, TCP in the tunnel completes and its content is intact."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise

import pytest
from ovpn.dataplane.v1 import common_pb2

from lab import echo
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import PORT, SERVER_VPN_IPV4
from lab.pki import Authority
from lab.relay import PORTION, BadLine, start_relay
from lab.tunnel import Plan, Tunnel, connect

ECHO_PORT = 7
MEBIBYTES = 6
TUN_MTU = "tun-mtu 1400"
"""Its full packets fit into the link's 1,500 bytes: a relayed fragment would be something else to lose."""


def connect_through_relay(lab: Lab, authority: Authority, data_plane: DataPlane, offloaded: tuple[str, ...]) -> Tunnel:
    server, relay, client = (lab.namespace(name) for name in ("server", "relay", "client"))
    to_server, to_client = lab.link(server, relay), lab.link(relay, client)
    start_relay(lab, relay, to_server.ipv4(1), PORT)
    plan = Plan(data_plane=data_plane, offloaded=offloaded, server_extra=(TUN_MTU,), client_extra=(TUN_MTU,))
    return connect(lab, authority, plan, server, [to_client])


def peers_by_mode(data_plane: DataPlane) -> dict[int, common_pb2.PeerCounters]:
    return {device.mode: data_plane.peers(device.name)[0].counters for device in data_plane.devices()}


@pytest.mark.root
@pytest.mark.parametrize("offloaded", [("server",), ("server", "client")], ids="-".join)
def test_tcp_completes_and_its_content_is_intact(
    lab: Lab, authority: Authority, data_plane: DataPlane, offloaded: tuple[str, ...]
) -> None:
    tunnel = connect_through_relay(lab, authority, data_plane, offloaded)
    program = [sys.executable, "-m", echo.__name__]
    lab.start(tunnel.server.namespace, [*program, "serve", str(ECHO_PORT)], "echo").wait_for(echo.READY)

    asked = lab.run(tunnel.client.namespace, [*program, "ask", SERVER_VPN_IPV4, str(ECHO_PORT), str(MEBIBYTES)])

    sent, came = asked.split()
    assert sent == came
    packets = MEBIBYTES * echo.MEBIBYTE // 1400
    for counters in peers_by_mode(data_plane).values():
        drops = {drop.reason: drop.packets for drop in counters.drops}
        assert counters.vpn_rx.packets > packets
        # The other two: the kernel solicits routers as soon as there is a carrier, and that is before there is a key.
        assert drops.keys() <= {"rx_replayed", "rx_source_check", "tx_no_key"}
        assert drops["rx_replayed"] > packets * PORTION / 4  # the duplicates, of which some are lost in turn


def test_a_bad_line_loses_duplicates_and_reorders_as_much_as_it_says() -> None:
    line, count = BadLine(seed=1), 100_000
    left = [int(datagram) for number in range(count) for datagram in line.passes(str(number).encode())]
    copies = Counter(left)
    expected = count * PORTION
    assert set(copies.values()) == {1, 2}
    assert count - len(copies) == pytest.approx(expected, rel=0.2)
    assert sum(times == 2 for times in copies.values()) == pytest.approx(expected, rel=0.2)
    late = sum(later < earlier for earlier, later in pairwise(left))
    assert late == pytest.approx(expected, rel=0.2)


def test_a_bad_line_does_the_same_each_time() -> None:
    datagrams = [bytes([number]) for number in range(256)] * 10
    lines = [BadLine(seed=5), BadLine(seed=5)]
    first, second = ([out for datagram in datagrams for out in line.passes(datagram)] for line in lines)
    assert first == second != datagrams
