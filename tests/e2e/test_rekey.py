"""Rekeying under traffic, in every arrangement at once."""

from __future__ import annotations

import pytest

from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4, Settings
from lab.pki import Authority
from lab.traffic import Pinging
from lab.tunnel import Plan, build

pytestmark = pytest.mark.root

RENEG_SECONDS = 5
PINGS_A_SECOND = 20
OFFLOADED = {"server": ("server",), "client": ("client",), "both": ("server", "client")}


@pytest.mark.timeout(150)
def test_rekeying_every_5_s_for_60_s_loses_no_ping(lab: Lab, authority: Authority, data_plane: DataPlane) -> None:
    settings = Settings(reneg_seconds=RENEG_SECONDS)
    tunnels = {
        name: build(lab, authority, Plan(settings=settings, data_plane=data_plane, offloaded=offloaded), label=name)
        for name, offloaded in OFFLOADED.items()
    }
    pinging = {
        name: Pinging(
            lab,
            tunnel.client.namespace,
            SERVER_VPN_IPV4,
            count=60 * PINGS_A_SECOND,
            interval_seconds=1 / PINGS_A_SECOND,
            label=f"{name}ping",
        )
        for name, tunnel in tunnels.items()
    }
    assert {name: pings.result().lost for name, pings in pinging.items()} == dict.fromkeys(OFFLOADED, 0)
    for tunnel in tunnels.values():
        rekeys = tunnel.server.process.output().count("TLS: soft reset")
        assert rekeys >= 60 // RENEG_SECONDS - 1
