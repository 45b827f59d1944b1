"""OpenVPN's options that change the process itself: --daemon, --user, --up."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path

import pytest

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4, OpenVpn, Settings
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import wait_until

pytestmark = pytest.mark.root


def offload_with(lab: Lab, authority: Authority, data_plane: DataPlane, role: str, *extra: str) -> Tunnel:
    """A tunnel whose end in `role` is under the shim and has these further lines of configuration."""
    return build(
        lab,
        authority,
        Plan(
            settings=Settings(reneg_seconds=3),
            data_plane=data_plane,
            offloaded=(role,),
            server_extra=extra if role == "server" else (),
            client_extra=extra if role == "client" else (),
        ),
    )


def end_in(tunnel: Tunnel, role: str) -> OpenVpn:
    return tunnel.server if role == "server" else tunnel.client


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_daemon_is_served_in_the_background_until_it_ends(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str
) -> None:
    label = {"server": "server", "client": "client0"}[role]
    tunnel = offload_with(lab, authority, data_plane, role, "daemon", f"log-append {lab.directory}/{label}.log")
    end = end_in(tunnel, role)
    assert end.process.wait() == 0
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=50).lost == 0
    assert len(data_plane.all_peers()) == 1

    os.kill(end.pid, signal.SIGTERM)
    wait_until(lambda: not end.namespace.pids(), "end of openvpn and of the shim")
    wait_until(lambda: not data_plane.devices(), "end of its device")
    assert "tun0" not in end.namespace.links()


@pytest.mark.parametrize("role", ["server", "client"])
def test_openvpn_that_became_nobody_is_still_served(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str
) -> None:
    tunnel = offload_with(lab, authority, data_plane, role, "user nobody", "group nogroup", "persist-tun")
    end = end_in(tunnel, role)
    assert Path(f"/proc/{end.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert end.dco_line()
    tunnel.server.process.wait_for("TLS: soft reset", occurrence=2)
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4, count=50).lost == 0
    end.process.stop()
    wait_until(lambda: not data_plane.devices(), "end of its device")


@pytest.mark.parametrize("role", ["server", "client"])
def test_an_up_script_that_uses_netlink_itself_sees_the_real_kernel(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str
) -> None:
    script, seen = lab.directory / "up.sh", lab.directory / "up.seen"
    script.write_text(
        '#!/bin/sh -e\nip link add lab-a type veth peer lab-b\nip link set dev "$dev" txqueuelen 321\n'
        f'ip -oneline link show dev "$dev" > {seen}\nip link del lab-a\n'
    )
    script.chmod(0o755)
    tunnel = offload_with(lab, authority, data_plane, role, f"up {script}")
    assert "tun0: <" in seen.read_text()
    assert "qlen 321" in seen.read_text()
    assert traffic.ping(lab, tunnel.client.namespace, SERVER_VPN_IPV4).lost == 0
