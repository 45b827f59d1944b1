"""TCP is not offloaded yet: a TCP peer is refused, which costs that client and nothing else."""

from __future__ import annotations

import pytest

from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import Settings, start_client, start_server
from lab.pki import Authority

pytestmark = pytest.mark.root


def test_a_tcp_client_is_refused_and_the_server_lives(lab: Lab, authority: Authority, data_plane: DataPlane) -> None:
    near = lab.namespace("server")
    links = [lab.link(near, lab.namespace(name)) for name in ("client0", "client1")]
    log = lab.directory / "shim.log"
    server = start_server(
        lab, near, authority.server("server"), Settings(), front=data_plane.front(log), extra=("proto tcp4-server",)
    )
    server.wait_initialized()
    for name, link in zip(("client0", "client1"), links, strict=True):
        client = start_client(
            lab,
            link.b,
            authority.client(name),
            Settings(),
            link.ipv4(1),
            extra=("proto tcp4-client",),
            label=name,
        )
        client.process.wait_for("AUTH_FAILED")
        client.process.stop()
    assert server.process.exit_code is None
    assert "TCP is not offloaded yet" in log.read_text()
    (device,) = data_plane.devices()
    assert device.peer_count == 0
