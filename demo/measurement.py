"""One arrangement of the demo, measured. Knows what is measured; must not know how it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from ovpn.dataplane.v1 import device_pb2, peer_pb2

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4
from lab.pki import Authority
from lab.traffic import TcpStreams
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import wait_until

PINGS = 100


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """CPU time of one end: of OpenVPN itself and of the worker that serves it (None for stock OpenVPN)."""

    openvpn: float
    worker: float | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Rates in bits a second, as the receiver of the TCP stream saw them; CPU time of both streams together."""

    to_server: float
    to_client: float
    ping_ms: float
    server_cpu: CpuSeconds
    client_cpu: CpuSeconds
    dco_lines: dict[str, str]
    """OpenVPN's own log line about offload, by role; empty if it says nothing of it."""
    devices: list[tuple[device_pb2.Device, list[peer_pb2.Peer]]]
    """What the service holds at the end, as it answers over gRPC."""


def measure(lab: Lab, authority: Authority, plan: Plan, label: str, seconds: int) -> Measurement:
    """Builds a tunnel, measures for twice `seconds` (and a little), and stops it again."""
    tunnel = build(lab, authority, plan, label)
    namespace = tunnel.client.namespace
    pings = traffic.ping(lab, namespace, SERVER_VPN_IPV4, count=PINGS)
    before = _cpu_seconds(tunnel)
    to_server, to_client = (
        traffic.tcp(lab, namespace, tunnel.server.namespace, SERVER_VPN_IPV4, load).bits_per_second
        for load in (TcpStreams(seconds=seconds), TcpStreams(seconds=seconds, reverse=True))
    )
    after = _cpu_seconds(tunnel)
    server_cpu, client_cpu = (_difference(*pair) for pair in zip(before, after, strict=True))
    ends = {"server": tunnel.server, "client": tunnel.client}
    measurement = Measurement(
        to_server=to_server,
        to_client=to_client,
        ping_ms=pings.average_ms,
        server_cpu=server_cpu,
        client_cpu=client_cpu,
        dco_lines={role: end.dco_line() for role, end in ends.items()},
        devices=_devices(plan.data_plane),
    )
    _stop(tunnel)
    return measurement


def _stop(tunnel: Tunnel) -> None:
    """Stops both ends and waits until the service holds nothing of theirs."""
    for end in (tunnel.client, tunnel.server):
        end.process.stop()
    data_plane = tunnel.plan.data_plane
    if data_plane:
        wait_until(lambda: not data_plane.devices(), "no device in the daemon")


def _cpu_seconds(tunnel: Tunnel) -> tuple[CpuSeconds, CpuSeconds]:
    """Server's and client's, so far."""
    data_plane = tunnel.plan.data_plane
    workers = data_plane.worker_cpu_seconds() if data_plane else {}
    return (
        CpuSeconds(tunnel.server.cpu_seconds(), workers.get("server")),
        CpuSeconds(tunnel.client.cpu_seconds(), workers.get("client")),
    )


def _difference(before: CpuSeconds, after: CpuSeconds) -> CpuSeconds:
    worker = None if before.worker is None or after.worker is None else after.worker - before.worker
    return CpuSeconds(after.openvpn - before.openvpn, worker)


def _devices(data_plane: DataPlane | None) -> list[tuple[device_pb2.Device, list[peer_pb2.Peer]]]:
    return [(device, data_plane.peers(device.name)) for device in data_plane.devices()] if data_plane else []
