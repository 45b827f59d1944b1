"""A part of the data plane is missing or killed: OpenVPN learns of it or ends, and never spins."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest

from lab import traffic
from lab.dataplane import DataPlane, shim
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4, OpenVpn, Settings, start_client, start_server
from lab.pki import Authority
from lab.processes import cpu_seconds, is_running, parent
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import POLL_SECONDS, wait_until

pytestmark = pytest.mark.root

BOTH = ("server", "client")
LEARNS_SECONDS = 10
SETTINGS = Settings(keepalive=(1, 4))


def end_in(tunnel: Tunnel, role: str) -> OpenVpn:
    return tunnel.server if role == "server" else tunnel.client


@pytest.fixture(params=BOTH)
def role(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def tunnel(lab: Lab, authority: Authority, own_data_plane: DataPlane, role: str) -> Tunnel:
    return build(lab, authority, Plan(settings=SETTINGS, data_plane=own_data_plane, offloaded=(role,)))


def assert_nothing_is_left(end: OpenVpn) -> None:
    """No process and no TUN in the namespace of an end that was under the shim."""
    wait_until(lambda: not end.namespace.pids(), "no process", timeout_seconds=LEARNS_SECONDS)
    wait_until(lambda: "tun0" not in end.namespace.links(), "no TUN", timeout_seconds=LEARNS_SECONDS)


def test_without_a_daemon_openvpn_carries_its_data_itself_and_the_shim_says_so_once(
    lab: Lab, authority: Authority
) -> None:
    server_namespace, client_namespace = lab.namespace("server"), lab.namespace("client")
    link = lab.link(server_namespace, client_namespace)
    log = lab.directory / "shim.log"
    front = shim(f"unix://{lab.sockets}/nobody-listens.sock", log)
    server = start_server(lab, server_namespace, authority.server(), SETTINGS, front=front)
    server.wait_initialized()
    client = start_client(lab, client_namespace, authority.client(), SETTINGS, link.ipv4(1))
    client.wait_initialized()
    traffic.wait_reachable(lab, client_namespace, SERVER_VPN_IPV4)
    assert traffic.ping(lab, client_namespace, SERVER_VPN_IPV4, count=20).lost == 0
    assert server.dco_line() == ""
    warnings = [line for line in log.read_text().splitlines() if "level=warning" in line or "level=error" in line]
    assert len(warnings) == 1
    assert "nobody-listens.sock" in warnings[0]


def test_when_the_daemon_is_killed_openvpn_ends(tunnel: Tunnel, own_data_plane: DataPlane, role: str) -> None:
    end, workers = end_in(tunnel, role), [device.worker_pid for device in own_data_plane.devices()]
    own_data_plane.process.signal(signal.SIGKILL)
    assert end.process.wait(LEARNS_SECONDS) != 0
    wait_until(lambda: not any(map(is_running, workers)), "end of the workers", timeout_seconds=LEARNS_SECONDS)
    assert_nothing_is_left(end)


def test_when_the_daemon_is_stopped_openvpn_ends_and_its_sockets_are_gone(
    tunnel: Tunnel, own_data_plane: DataPlane, role: str
) -> None:
    end = end_in(tunnel, role)
    assert own_data_plane.process.stop() == 0
    end.process.wait(LEARNS_SECONDS)
    assert_nothing_is_left(end)
    left = own_data_plane.run_directory
    assert not left.exists() or [path for path in left.iterdir() if path.is_socket()] == []


def test_a_killed_daemon_starts_again_where_it_was(
    lab: Lab, tunnel: Tunnel, own_data_plane: DataPlane, role: str
) -> None:
    own_data_plane.process.signal(signal.SIGKILL)
    end_in(tunnel, role).process.wait(LEARNS_SECONDS)
    again = DataPlane(lab, "daemon-again", own_data_plane.run_directory)
    assert again.devices() == []


def test_when_a_worker_is_killed_the_tunnel_comes_back(
    lab: Lab, tunnel: Tunnel, own_data_plane: DataPlane, role: str
) -> None:
    (device,) = own_data_plane.devices()
    end = end_in(tunnel, role)
    pid = end.pid
    os.kill(device.worker_pid, signal.SIGKILL)
    wait_until(lambda: not is_running(device.worker_pid), "end of the worker")
    tunnel.client.wait_initialized(occurrence=2)
    traffic.wait_reachable(lab, tunnel.client.namespace, SERVER_VPN_IPV4)
    assert end.pid == pid
    (again,) = own_data_plane.devices()
    assert again.worker_pid not in (0, device.worker_pid)


def test_when_the_supervisor_is_killed_openvpn_ends(tunnel: Tunnel, own_data_plane: DataPlane, role: str) -> None:
    end = end_in(tunnel, role)
    supervisor = parent(end.pid)
    assert supervisor != end.process.pid
    os.kill(supervisor, signal.SIGKILL)
    assert end.process.wait(LEARNS_SECONDS) != 0
    assert_nothing_is_left(end)
    wait_until(lambda: not own_data_plane.devices(), "no device", timeout_seconds=LEARNS_SECONDS)


def test_when_the_front_is_killed_openvpn_ends(tunnel: Tunnel, own_data_plane: DataPlane, role: str) -> None:
    end = end_in(tunnel, role)
    end.process.signal(signal.SIGKILL)
    assert_nothing_is_left(end)
    wait_until(lambda: not own_data_plane.devices(), "no device", timeout_seconds=LEARNS_SECONDS)


def test_when_openvpn_is_killed_the_shim_ends_alike(tunnel: Tunnel, own_data_plane: DataPlane, role: str) -> None:
    end = end_in(tunnel, role)
    os.kill(end.pid, signal.SIGKILL)
    assert end.process.wait(LEARNS_SECONDS) == -signal.SIGKILL
    assert_nothing_is_left(end)
    wait_until(lambda: not own_data_plane.devices(), "no device", timeout_seconds=LEARNS_SECONDS)


def test_openvpn_does_not_spin_while_the_daemon_does_not_answer(
    tunnel: Tunnel, own_data_plane: DataPlane, role: str
) -> None:
    """A stopped daemon is the worst case: nothing fails and nothing answers. OpenVPN ends or keeps still."""
    pid = end_in(tunnel, role).pid
    before, began, used = cpu_seconds(pid), time.monotonic(), 0.0
    own_data_plane.process.signal(signal.SIGSTOP)
    tunnel.client.process.signal(signal.SIGUSR1)
    while is_running(pid) and time.monotonic() - began < LEARNS_SECONDS:
        with suppress(FileNotFoundError, ProcessLookupError):  # it ends between the two looks
            used = cpu_seconds(pid) - before
        time.sleep(POLL_SECONDS)
    own_data_plane.process.signal(signal.SIGCONT)
    assert used < LEARNS_SECONDS / 10
