"""iproute2 under the shim: links of both kinds made, shown and deleted by `ip`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.dataplane import DataPlane, shim
from lab.lab import Lab
from lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.one_datapath]


def ip_under_the_shim(lab: Lab, data_plane: DataPlane, *arguments: str) -> str:
    log: Path = lab.directory / "ip-shim.log"
    return lab.run(lab.namespace("ip"), [*shim(data_plane.target, log), "ip", *arguments], timeout_seconds=20)


@pytest.mark.parametrize("kind", ["ovpn-dco", "ovpn"])
def test_a_link_is_added_shown_in_detail_and_deleted(lab: Lab, data_plane: DataPlane, kind: str) -> None:
    # The device lives as long as the program that asked for it, so all of it is one batch.
    batch = lab.directory / "batch"
    batch.write_text(f"link add name vpn9 type {kind}\nlink show dev vpn9\nlink delete dev vpn9\n")
    shown: list[dict[str, Any]] = json.loads(ip_under_the_shim(lab, data_plane, "-d", "-json", "-batch", str(batch)))
    assert [link["ifname"] for link in shown] == ["vpn9"]
    assert {"POINTOPOINT", "NOARP"} <= set(shown[0]["flags"])
    # What the kernel shows is what the link is to it.
    assert shown[0]["linkinfo"]["info_kind"] == "tun"
    wait_until(lambda: not data_plane.devices(), "end of the device")


@pytest.mark.parametrize("more", [["mtu", "1400"], ["index", "4000"]])
def test_a_link_that_cannot_be_had_is_refused_at_once(lab: Lab, data_plane: DataPlane, more: list[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        ip_under_the_shim(lab, data_plane, "link", "add", "name", "vpn9", *more, "type", "ovpn")
    assert "Operation not supported" in refused.value.stderr


def test_a_name_that_is_taken_is_refused_by_the_kernel(lab: Lab, data_plane: DataPlane) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        ip_under_the_shim(lab, data_plane, "link", "add", "name", "lo", "type", "ovpn")
    assert "File exists" in refused.value.stderr
