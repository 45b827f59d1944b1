"""Restarts, goodbyes and silence: what becomes of peers and devices, and that the tunnel comes back."""

from __future__ import annotations

import os
import signal

import pytest
from ovpn.dataplane.v1 import common_pb2, event_pb2, event_pb2_grpc

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4, OpenVpn, Settings
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import wait_until

pytestmark = pytest.mark.root

BOTH = ("server", "client")
SHORT = Settings(keepalive=(1, 3))
"""Clients give up after 3 s without a sign of life, the server (to which OpenVPN gives twice as long) after 6 s."""


def end_in(tunnel: Tunnel, role: str) -> OpenVpn:
    return tunnel.server if role == "server" else tunnel.client


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("role", BOTH)
def test_a_restarted_end_gets_its_tunnel_back(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str, number: signal.Signals
) -> None:
    tunnel = build(
        lab,
        authority,
        Plan(settings=SHORT, data_plane=data_plane, offloaded=BOTH, server_extra=("explicit-exit-notify 1",)),
    )
    end = end_in(tunnel, role)
    os.kill(end.pid, number)
    end.wait_initialized(occurrence=2)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=50).lost == 0
    # The server may still hold the client's old instance until its silence is noticed.
    wait_until(lambda: [device.peer_count for device in data_plane.devices()] == [1, 1], "one peer on either side")


def test_a_signal_to_the_shim_reaches_openvpn(lab: Lab, authority: Authority, data_plane: DataPlane) -> None:
    tunnel = build(lab, authority, Plan(settings=SHORT, data_plane=data_plane, offloaded=("client",)))
    tunnel.client.process.signal(signal.SIGUSR1)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)


@pytest.mark.parametrize("offloaded", [("server",), BOTH], ids="-".join)
def test_a_client_that_says_goodbye_is_forgotten_before_its_keepalive_expires(
    lab: Lab, authority: Authority, data_plane: DataPlane, offloaded: tuple[str, ...]
) -> None:
    plan = Plan(data_plane=data_plane, offloaded=offloaded, client_extra=("explicit-exit-notify 1",))
    tunnel = build(lab, authority, plan)
    assert tunnel.client.process.stop() == 0
    wait_until(lambda: [device.peer_count for device in data_plane.devices()] == [0], "no peer", timeout_seconds=5)
    assert tunnel.server.status() == {}


def test_a_silent_client_expires_and_its_final_counters_are_told(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    tunnel = build(lab, authority, Plan(settings=SHORT, data_plane=data_plane, offloaded=("server",)))
    (peer,) = data_plane.all_peers()
    events = event_pb2_grpc.EventServiceStub(data_plane.channel)
    watch = events.Watch(event_pb2.WatchRequest(device=peer.device), timeout=30)
    tunnel.client.process.signal(signal.SIGKILL)

    deleted = next(event.peer_deleted for event in watch if event.HasField("peer_deleted"))
    assert (deleted.peer_id, deleted.create_revision) == (peer.peer_id, peer.create_revision)
    assert deleted.reason == common_pb2.DEL_REASON_EXPIRED
    assert deleted.final_counters.link_rx.packets >= peer.counters.link_rx.packets > 0
    tunnel.server.process.wait_for("client0/.*ping expired.* client-instance exiting")
    assert tunnel.server.status() == {}


def test_a_client_whose_server_fell_silent_restarts_and_connects_again(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    tunnel = build(lab, authority, Plan(settings=SHORT, data_plane=data_plane, offloaded=("client",)))
    tunnel.server.process.signal(signal.SIGSTOP)
    tunnel.client.process.wait_for("restarting", timeout_seconds=15)
    tunnel.server.process.signal(signal.SIGCONT)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)


def test_the_carrier_of_a_clients_interface_goes_and_comes_with_the_server(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    plan = Plan(settings=SHORT, data_plane=data_plane, offloaded=("client",), client_extra=("persist-tun",))
    tunnel = build(lab, authority, plan)
    client = tunnel.client
    assert has_carrier(client)
    addresses = client.vpn_addresses()
    tunnel.server.process.signal(signal.SIGSTOP)
    wait_until(lambda: not has_carrier(client), "no carrier")
    assert client.vpn_addresses() == addresses
    tunnel.server.process.signal(signal.SIGCONT)
    client.wait_initialized(occurrence=2)
    wait_until(lambda: has_carrier(client), "a carrier")
    traffic.wait_reachable(lab, client.namespace, SERVER_VPN_IPV4)


def has_carrier(end: OpenVpn) -> bool:
    return "LOWER_UP" in end.namespace.ip("link", "show", "dev", "tun0")


@pytest.mark.parametrize("role", BOTH)
def test_an_end_that_stops_takes_its_device_and_interface_with_it(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str
) -> None:
    tunnel = build(lab, authority, Plan(data_plane=data_plane, offloaded=(role,)))
    end = end_in(tunnel, role)
    assert end.process.stop() == 0
    wait_until(lambda: not data_plane.devices(), "no device", timeout_seconds=5)
    wait_until(lambda: not end.namespace.pids(), "no process", timeout_seconds=5)
    assert "tun0" not in end.namespace.links()
