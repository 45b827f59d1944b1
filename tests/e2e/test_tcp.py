"""OpenVPN over TCP under the shim, as server, as client and as both, with stock OpenVPN at the other end."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ovpn.dataplane.v1 import common_pb2, event_pb2, event_pb2_grpc

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab, OpenLab
from lab.netns import Namespace
from lab.openvpn import SERVER_VPN_IPV4, SERVER_VPN_IPV6, OpenVpn, Settings, start_client
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import wait_until

pytestmark = pytest.mark.root

TCP = Settings(tcp=True)
SHORT = Settings(tcp=True, keepalive=(1, 3))
BOTH = ("server", "client")
RENEG_SECONDS = 5


def lost_pings(lab: Lab, namespace: Namespace, address: str, size: int = 56) -> int:
    """Of five. For the last answer ping(8) waits no longer than an interval, and a stock end delays it by up to 40 ms:
    OpenVPN leaves Nagle's algorithm on."""
    return traffic.ping(lab, namespace, address, count=5, interval_seconds=0.1, size=size).lost


def end_in(tunnel: Tunnel, role: str) -> OpenVpn:
    return tunnel.server if role == "server" else tunnel.client


@pytest.fixture(scope="module", params=[("server",), ("client",), BOTH], ids="-".join)
def tunnel(request: pytest.FixtureRequest, open_lab: OpenLab, authority: Authority) -> Iterator[Tunnel]:
    clients = 1 if "client" in request.param else 3
    settings = Settings(tcp=True, reneg_seconds=RENEG_SECONDS)
    with open_lab() as lab:
        plan = Plan(settings=settings, data_plane=DataPlane(lab), offloaded=request.param, clients=clients)
        yield build(lab, authority, plan)


@pytest.mark.parametrize("address", [SERVER_VPN_IPV4, SERVER_VPN_IPV6])
@pytest.mark.parametrize("size", [1, 4000])
def test_packets_of_any_size_pass(tunnel: Tunnel, address: str, size: int) -> None:
    for client in tunnel.clients:
        assert lost_pings(tunnel.lab, client.namespace, address, size) == 0


def test_the_server_reaches_every_client(tunnel: Tunnel) -> None:
    for client in tunnel.clients:
        for address in client.vpn_addresses():
            assert lost_pings(tunnel.lab, tunnel.server.namespace, address) == 0


def test_exactly_the_ends_under_the_shim_are_offloaded(tunnel: Tunnel) -> None:
    assert bool(tunnel.server.dco_line()) == ("server" in tunnel.plan.offloaded)
    assert tunnel.plan.data_plane is not None
    counts = {"server": len(tunnel.clients), "client": 1}
    found = sorted(device.peer_count for device in tunnel.plan.data_plane.devices())
    assert found == sorted(counts[role] for role in tunnel.plan.offloaded)


@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_keys_are_exchanged_in_the_stream_that_data_fill(tunnel: Tunnel, reverse: bool) -> None:
    before = tunnel.server.process.output().count("TLS: soft reset")
    client = tunnel.clients[0]
    offloaded = [end for end in (tunnel.server, client) if end.dco_line()]
    used = [end.cpu_seconds() for end in offloaded]
    load = traffic.TcpStreams(seconds=RENEG_SECONDS + 2, reverse=reverse)  # a rekey begins a little late
    moved = traffic.tcp(tunnel.lab, client.namespace, tunnel.server.namespace, SERVER_VPN_IPV4, load)
    assert moved.received_bytes > 1_000_000
    # It neither carries the data nor is woken for them.
    assert all(end.cpu_seconds() - earlier < RENEG_SECONDS / 10 for end, earlier in zip(offloaded, used, strict=True))
    wait_until(lambda: tunnel.server.process.output().count("TLS: soft reset") > before, "a rekey")
    for one in tunnel.clients:
        assert lost_pings(tunnel.lab, one.namespace, SERVER_VPN_IPV4) == 0
        assert "Connection reset" not in one.process.output()


@pytest.mark.one_datapath
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("role", BOTH)
def test_a_restarted_end_gets_its_tunnel_back(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str, number: signal.Signals
) -> None:
    tunnel = build(lab, authority, Plan(settings=SHORT, data_plane=data_plane, offloaded=BOTH))
    end = end_in(tunnel, role)
    os.kill(end.pid, number)
    end.wait_initialized(occurrence=2)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)
    assert lost_pings(lab, tunnel.client.namespace, SERVER_VPN_IPV4) == 0
    wait_until(lambda: [device.peer_count for device in data_plane.devices()] == [1, 1], "one peer on either side")


@pytest.mark.one_datapath
@pytest.mark.parametrize("offloaded", [("server",), BOTH], ids="-".join)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_server_forgets_a_client_whose_connection_ended_and_takes_it_again(
    lab: Lab, authority: Authority, data_plane: DataPlane, offloaded: tuple[str, ...], number: signal.Signals
) -> None:
    tunnel = build(lab, authority, Plan(settings=TCP, data_plane=data_plane, offloaded=offloaded))
    os.kill(tunnel.client.pid, number)
    tunnel.client.process.wait()
    wait_until(lambda: [device.peer_count for device in data_plane.devices()] == [0], "no peer", timeout_seconds=5)
    wait_until(lambda: tunnel.server.status() == {}, "no client", timeout_seconds=5)
    again = start_client(
        lab, tunnel.client.namespace, authority.client("client0"), TCP, tunnel.links[0].ipv4(1), label="again"
    )
    again.wait_initialized()
    traffic.wait_reachable(lab, again.namespace, SERVER_VPN_IPV4)


@pytest.mark.one_datapath
@pytest.mark.parametrize("keepalive", ["", "ping-exit 60"])
def test_a_client_whose_connection_ended_restarts_at_once(
    lab: Lab, authority: Authority, data_plane: DataPlane, keepalive: str
) -> None:
    """Long before a keepalive says so, and even if that would make it exit."""
    plan = Plan(settings=TCP, data_plane=data_plane, offloaded=("client",), client_extra=(keepalive,))
    tunnel = build(lab, authority, plan)
    os.kill(tunnel.server.pid, signal.SIGUSR1)
    tunnel.client.process.wait_for("Connection reset, restarting", timeout_seconds=5)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)


@pytest.mark.one_datapath
def test_a_silent_client_expires(lab: Lab, authority: Authority, data_plane: DataPlane) -> None:
    tunnel = build(lab, authority, Plan(settings=SHORT, data_plane=data_plane, offloaded=("server",)))
    (peer,) = data_plane.all_peers()
    events = event_pb2_grpc.EventServiceStub(data_plane.channel)
    watch = events.Watch(event_pb2.WatchRequest(device=peer.device), timeout=30)
    tunnel.client.process.signal(signal.SIGSTOP)
    deleted = next(event.peer_deleted for event in watch if event.HasField("peer_deleted"))
    assert deleted.reason == common_pb2.DEL_REASON_EXPIRED
    tunnel.server.process.wait_for("client0/.*ping expired.* client-instance exiting")
    tunnel.client.process.signal(signal.SIGCONT)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)


@pytest.mark.one_datapath
def test_a_client_whose_server_fell_silent_restarts(lab: Lab, authority: Authority, data_plane: DataPlane) -> None:
    tunnel = build(lab, authority, Plan(settings=SHORT, data_plane=data_plane, offloaded=("client",)))
    tunnel.server.process.signal(signal.SIGSTOP)
    tunnel.client.process.wait_for("restarting", timeout_seconds=15)
    tunnel.server.process.signal(signal.SIGCONT)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)


@pytest.mark.one_datapath
@pytest.mark.parametrize("role", BOTH)
def test_openvpn_that_became_nobody_is_still_served(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str
) -> None:
    extra = {role: ("user nobody", "group nogroup", "persist-tun")}
    plan = Plan(
        settings=SHORT,
        data_plane=data_plane,
        offloaded=(role,),
        server_extra=extra.get("server", ()),
        client_extra=extra.get("client", ()),
    )
    tunnel = build(lab, authority, plan)
    end = end_in(tunnel, role)
    assert Path(f"/proc/{end.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    os.kill(tunnel.client.pid, signal.SIGUSR1)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)


@pytest.mark.one_datapath
def test_a_client_whose_address_is_taken_is_told_so_and_the_others_stay(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    """The data plane refuses the peer when its stream is taken already: AUTH_FAILED goes by that."""
    folder = lab.directory / "ccd"
    folder.mkdir()
    for name in ("client0", "client1"):
        (folder / name).write_text("ifconfig-push 10.8.0.99 255.255.255.0\n")
    plan = Plan(
        settings=Settings(tcp=True, inner_ipv6=False),
        data_plane=data_plane,
        offloaded=("server",),
        server_extra=(f"client-config-dir {folder}",),
    )
    tunnel = build(lab, authority, plan)
    namespace = lab.namespace("client1")
    link = lab.link(tunnel.server.namespace, namespace)
    refused = start_client(lab, namespace, authority.client("client1"), plan.settings, link.ipv4(1), label="client1")
    refused.process.wait_for("AUTH_FAILED")
    refused.process.stop()
    assert lost_pings(lab, tunnel.client.namespace, SERVER_VPN_IPV4) == 0
    (device,) = data_plane.devices()
    assert device.peer_count == 1
    wait_until(lambda: list(tunnel.server.status()) == ["client0"], "no other client", timeout_seconds=15)


@pytest.mark.parametrize("role", BOTH)
def test_when_a_worker_is_killed_the_tunnel_comes_back(
    lab: Lab, authority: Authority, own_data_plane: DataPlane, role: str
) -> None:
    tunnel = build(lab, authority, Plan(settings=TCP, data_plane=own_data_plane, offloaded=(role,)))
    (device,) = own_data_plane.devices()
    os.kill(device.worker_pid, signal.SIGKILL)
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)


@pytest.mark.one_datapath
@pytest.mark.parametrize("role", BOTH)
def test_an_end_that_stops_takes_everything_with_it(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str
) -> None:
    tunnel = build(lab, authority, Plan(settings=TCP, data_plane=data_plane, offloaded=(role,)))
    end = end_in(tunnel, role)
    assert end.process.stop() == 0
    wait_until(lambda: not data_plane.devices(), "no device", timeout_seconds=5)
    wait_until(lambda: not end.namespace.pids(), "no process", timeout_seconds=5)
    assert "tun0" not in end.namespace.links()
