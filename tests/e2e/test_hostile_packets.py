"""Datagrams that no peer has sent, or not so, against a live tunnel: each is counted, none delivered, none logged."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from ovpn.dataplane.v1 import common_pb2

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import PORT, SERVER_VPN_IPV4
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import wait_until

pytestmark = pytest.mark.root

HOSTILE = """
import os, socket, subprocess, sys
interface, server, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
link.bind((interface, 3))  # ETH_P_ALL: outgoing packets too
ping = subprocess.Popen(["ping", "-q", "-c", "20", "-i", "0.05", "10.8.0.1"], stdout=subprocess.DEVNULL)
while True:
    packet, address = link.recvfrom(65535)
    real = packet[28:]
    if address[1] == 0x0800 and address[2] == socket.PACKET_OUTGOING and packet[9] == 17 and real[0] == 0x48:
        break
ping.wait()
other_peer = 1 - int.from_bytes(real[1:4], "big")  # there are 0 and 1
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def send(count, datagram):
    for _ in range(count):
        udp.sendto(datagram, (server, port))
send(2, real[:23])                                              # truncated
send(3, b"\\x48" + bytes.fromhex("123456") + os.urandom(80))     # no such peer
send(4, real[:4] + os.urandom(len(real) - 4))                   # random
send(5, real[:-1] + bytes([real[-1] ^ 1]))                      # forged
send(6, real)                                                   # replayed, from another port
send(7, bytes([real[0] | 7]) + real[1:])                        # no such key
send(8, b"\\x48" + other_peer.to_bytes(3, "big") + real[4:])     # of another peer, and sealed with another key
send(1, b"\\x48" + bytes(65506))                                 # over-long
"""

OWN_DROPS = {"rx_decrypt_failed": 4 + 5, "rx_replayed": 6, "rx_unknown_key_id": 7}
OTHERS_DROPS = {"rx_decrypt_failed": 8}
DEVICE_DROPS = {"rx_truncated": 2, "rx_unknown_peer": 3, "rx_oversized": 1}


@dataclass(frozen=True, slots=True)
class Counted:
    """Drops by reason: of the device, of the attacked peer, of the other one; and where the attacked peer is."""

    device: dict[str, int]
    own: dict[str, int]
    other: dict[str, int]
    remote: tuple[str, int]
    delivered: int


def count(data_plane: DataPlane, attacker: str) -> Counted:
    """The peer whose address inside the tunnel is `attacker`, and the other one."""
    (device,) = data_plane.devices()
    own, other = sorted(data_plane.peers(device.name), key=lambda peer: peer.vpn_ipv4 != attacker)
    return Counted(
        device=by_reason(device.drops),
        own=by_reason(own.counters.drops),
        other=by_reason(other.counters.drops),
        remote=(own.remote.address, own.remote.port),
        delivered=other.counters.vpn_rx.packets,
    )


def by_reason(drops: Iterable[common_pb2.DropCounter]) -> dict[str, int]:
    return {drop.reason: drop.packets for drop in drops}


def growth(before: dict[str, int], after: dict[str, int], reasons: dict[str, int]) -> dict[str, int]:
    return {reason: after.get(reason, 0) - before.get(reason, 0) for reason in reasons}


def log_lines(tunnel: Tunnel, data_plane: DataPlane) -> dict[str, list[str]]:
    """What the shim and the daemon have logged, but for the calls of this test itself."""
    paths = [*tunnel.lab.directory.glob("*shim.log"), data_plane.process.log]
    assert len(paths) == 2
    return {
        path.name: [line for line in path.read_text().splitlines() if not re.search("Devices|Peers", line)]
        for path in paths
    }


def test_hostile_datagrams_are_counted_by_reason_and_do_nothing_else(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    tunnel = build(lab, authority, Plan(data_plane=data_plane, offloaded=("server",), clients=2))
    attacker, link = tunnel.clients[0], tunnel.links[0]
    address = attacker.vpn_addresses()[0]
    before, logged = count(data_plane, address), log_lines(tunnel, data_plane)

    argv = [sys.executable, "-c", HOSTILE, f"to-{link.number}b", link.ipv4(1), str(PORT)]
    lab.run(attacker.namespace, argv)
    wait_until(
        lambda: (
            growth(before.own, count(data_plane, address).own, OWN_DROPS) == OWN_DROPS
            and growth(before.device, count(data_plane, address).device, DEVICE_DROPS) == DEVICE_DROPS
        ),
        "all hostile datagrams counted",
    )

    after = count(data_plane, address)
    assert growth(before.other, after.other, OTHERS_DROPS) == OTHERS_DROPS
    assert after.remote == before.remote
    assert after.delivered == before.delivered
    assert log_lines(tunnel, data_plane) == logged
    for client in tunnel.clients:
        assert traffic.ping(lab, client.namespace, SERVER_VPN_IPV4, count=20).lost == 0
