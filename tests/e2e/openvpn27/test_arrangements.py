"""OpenVPN 2.7 with itself and with 2.6, over UDP and TCP, the shim before nobody, the server, the client, or both."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from lab import openvpn27, traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.netns import Link
from lab.openvpn import INSTALLED, SERVER_VPN_IPV4, SERVER_VPN_IPV6, Settings
from lab.pki import Authority
from lab.traffic import Pinging
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.one_datapath]

SHORT: Final = (1, 3)
"""Keepalive: clients give up after 3 s without a sign of life, the server (OpenVPN doubles its time) after 6 s."""

RENEG_SECONDS: Final = 5
PINGS_A_SECOND: Final = 20
SITE: Final = "10.9.0.1"
"""An address of a network behind the client."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Which OpenVPN is the server, which the client, over what they talk, and before which of them the shim is."""

    server: str
    client: str
    transport: str
    shim: str

    def __str__(self) -> str:
        return f"server{self.server}-client{self.client}-{self.transport}-shim:{self.shim}"

    @property
    def offloaded(self) -> tuple[str, ...]:
        return {"none": (), "both": ("server", "client")}.get(self.shim, (self.shim,))


ALL: Final = [
    Arrangement(*row)
    for row in product(("2.6", "2.7"), ("2.6", "2.7"), ("udp", "tcp"), ("none", "server", "client", "both"))
    if "2.7" in row
]


def arranged(*shims: str, transports: tuple[str, ...] = ("udp", "tcp")) -> pytest.MarkDecorator:
    """All arrangements with the shim there and one of these transports."""
    chosen = [row for row in ALL if row.shim in shims and row.transport in transports]
    return pytest.mark.parametrize("row", chosen, ids=str)


Builder = Callable[..., Tunnel]


@pytest.fixture
def connected(lab: Lab, authority: Authority, data_plane: DataPlane) -> Builder:
    """Builds the tunnel of an arrangement."""
    programs = {"2.6": INSTALLED, "2.7": openvpn27.program()}

    def connect(
        row: Arrangement,
        *,
        keepalive: tuple[int, int] = (10, 60),
        reneg_seconds: int = 3600,
        server_extra: tuple[str, ...] = (),
    ) -> Tunnel:
        settings = Settings(tcp=row.transport == "tcp", keepalive=keepalive, reneg_seconds=reneg_seconds, verb=4)
        plan = Plan(
            settings=settings,
            data_plane=data_plane,
            offloaded=row.offloaded,
            server_program=programs[row.server],
            client_program=programs[row.client],
            server_extra=server_extra,
        )
        tunnel = build(lab, authority, plan)
        assert [bool(end.dco_line()) for end in (tunnel.server, tunnel.client)] == [
            role in row.offloaded for role in ("server", "client")
        ]
        return tunnel

    return connect


def assert_connected(tunnel: Tunnel, count: int = 50) -> None:
    traffic.wait_reachable(tunnel.lab, tunnel.client.namespace, SERVER_VPN_IPV4)
    assert traffic.ping(tunnel.lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=count).lost == 0


@arranged("none", "server", "client", "both")
def test_packets_pass_both_ways_and_keys_change_every_5_s(row: Arrangement, connected: Builder) -> None:
    tunnel = connected(row, reneg_seconds=RENEG_SECONDS)
    lab, server, client = tunnel.lab, tunnel.server.namespace, tunnel.client.namespace
    steady = Pinging(lab, client, SERVER_VPN_IPV4, count=11 * PINGS_A_SECOND, interval_seconds=1 / PINGS_A_SECOND)
    for address in (SERVER_VPN_IPV4, SERVER_VPN_IPV6):
        assert traffic.ping(lab, client, address).lost == 0
    for address in tunnel.client.vpn_addresses():
        assert traffic.ping(lab, server, address, size=1472).lost == 0  # 1472 fills the MTU of the tunnel
    assert steady.result().lost == 0
    assert tunnel.server.process.output().count("TLS: soft reset") >= 2
    assert tunnel.plan.data_plane is not None
    carried = [peer.counters.vpn_rx.packets for peer in tunnel.plan.data_plane.all_peers()]
    assert len(carried) == len(row.offloaded)
    assert all(packets > 11 * PINGS_A_SECOND for packets in carried)


@arranged("server", "client")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP], ids=lambda number: number.name)
def test_an_end_under_the_shim_restarts_and_gets_its_tunnel_back(
    row: Arrangement, connected: Builder, number: signal.Signals
) -> None:
    notify = () if row.transport == "tcp" else ("explicit-exit-notify 1",)
    tunnel = connected(row, keepalive=SHORT, server_extra=notify)
    end = tunnel.server if row.shim == "server" else tunnel.client
    os.kill(end.pid, number)
    end.wait_initialized(occurrence=2)
    tunnel.client.wait_initialized(occurrence=2)
    assert_connected(tunnel)


@arranged("server")
def test_a_client_that_falls_silent_expires(row: Arrangement, connected: Builder) -> None:
    tunnel = connected(row, keepalive=SHORT)
    tunnel.client.process.signal(signal.SIGSTOP)
    tunnel.server.process.wait_for("client0/.*ping expired", timeout_seconds=20)
    wait_until(lambda: tunnel.server.status() == {}, "no client")
    tunnel.client.process.signal(signal.SIGKILL)


@arranged("client")
def test_a_client_whose_server_falls_silent_restarts_and_connects_again(row: Arrangement, connected: Builder) -> None:
    tunnel = connected(row, keepalive=SHORT)
    tunnel.server.process.signal(signal.SIGSTOP)
    tunnel.client.process.wait_for("process restarting", timeout_seconds=20)
    tunnel.server.process.signal(signal.SIGCONT)
    tunnel.client.wait_initialized(occurrence=2)
    assert_connected(tunnel)


@arranged("server", "both", transports=("tcp",))
def test_a_tcp_client_that_is_killed_is_forgotten_at_once(row: Arrangement, connected: Builder) -> None:
    tunnel = connected(row)
    os.kill(tunnel.client.pid, signal.SIGKILL)
    wait_until(lambda: tunnel.server.status() == {}, "no client", timeout_seconds=5)


@arranged("none", "server", "client", "both", transports=("udp",))
def test_a_client_that_changes_its_address_keeps_its_ping(row: Arrangement, connected: Builder) -> None:
    tunnel = connected(row)
    (link,) = tunnel.links
    steady = Pinging(tunnel.lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=100, interval_seconds=0.05)
    move(link)
    assert steady.result().lost <= 5  # those sent while there was no address
    assert_connected(tunnel)
    assert "Initialization Sequence Completed" in tunnel.client.process.output()
    if row.server == "2.7" or "server" not in row.offloaded:  # 2.6 and its family have no notice for it
        wait_until(lambda: link.ipv4(3) in tunnel.server.status()["client0"].real_address, "the new address")


def move(link: Link) -> None:
    """Gives end b another address, and takes the old one away."""
    device = f"to-{link.number}b"
    link.b.ip("address", "del", f"{link.ipv4(2)}/24", "dev", device)
    link.b.ip("address", "add", f"{link.ipv4(3)}/24", "dev", device)


@arranged("none", "server", "both")
def test_a_network_behind_a_client_is_reached(row: Arrangement, connected: Builder, tmp_path: Path) -> None:
    (tmp_path / "client0").write_text("iroute 10.9.0.0 255.255.255.0\n")
    extra = (f"client-config-dir {tmp_path}", "route 10.9.0.0 255.255.255.0")
    tunnel = connected(row, server_extra=extra)
    tunnel.client.namespace.ip("address", "add", f"{SITE}/32", "dev", "lo")
    traffic.wait_reachable(tunnel.lab, tunnel.server.namespace, SITE)
    assert traffic.ping(tunnel.lab, tunnel.server.namespace, SITE, count=50).lost == 0
