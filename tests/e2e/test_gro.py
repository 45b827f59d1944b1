"""Full speed, rekeys and many flows on a port where the kernel merges datagrams, control packets among them."""

from __future__ import annotations

import re
import sys

import pytest

from lab.dataplane import DataPlane
from lab.gro import merge_on
from lab.lab import Lab
from lab.netns import Link
from lab.openvpn import SERVER_VPN_IPV4, OpenVpn, Settings, start_client
from lab.pki import Authority
from lab.traffic import start_iperf3_server
from lab.tunnel import Plan, Tunnel, build
from lab.waiting import wait_until

pytestmark = pytest.mark.root

SECONDS = 60
RENEG_SECONDS = 5
TUN_MTU = "tun-mtu 1420"
"""So that what leaves the tunnel fits the link: fragments are not merged."""

STOCK_CLIENTS = 31
"""With the shimmed one 32 flows, each from a port of its own. A stock client sends datagram by datagram."""

BURSTS = """
import socket, sys, time
address, clients, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(clients)]
for number, sender in enumerate(senders):
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"tun{number}".encode())
end = time.monotonic() + seconds
while time.monotonic() < end:
    for sender in senders:
        for _ in range(20):
            sender.sendto(bytes(1000), (address, 9))
        time.sleep(0.01)
"""

MERGED = """
import contextlib, ctypes, socket, struct
link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
# Longer than any datagram of the link: LD LEN, JGT 1600, return 64, return 0.
lines = (0x80, 0, 0, 0), (0x25, 0, 1, 1600), (6, 0, 0, 64), (6, 0, 0, 0)
program = b"".join(struct.pack("=HBBI", *line) for line in lines)
memory = ctypes.create_string_buffer(program, len(program))
link.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 4, ctypes.addressof(memory)))  # SO_ATTACH_FILTER
with contextlib.suppress(BlockingIOError):
    while True:
        link.recv(64, socket.MSG_DONTWAIT)  # from before the filter
print("watching", flush=True)
seen = set()
while True:
    packet, address = link.recvfrom(64)
    if address[2] == socket.PACKET_HOST and packet[9] == socket.IPPROTO_UDP:
        flow = f"{socket.inet_ntoa(packet[12:16])}:{int.from_bytes(packet[20:22], 'big')}"
        if flow not in seen:
            seen.add(flow)
            print("merged", flow, flush=True)
"""
"""Names the senders of merged datagrams, which a packet socket is shown as they were merged."""

TROUBLE = re.compile(
    r"TLS Error|TLS key negotiation failed|SIGUSR1|Inactivity timeout|AUTH_FAILED|Bad (encap|LZO)|bad .*HMAC"
)


def start_stock_clients(lab: Lab, authority: Authority, tunnel: Tunnel) -> tuple[Link, list[OpenVpn]]:
    """Many clients on one link, each with a TUN of its own."""
    link = lab.link(tunnel.server.namespace, lab.namespace("flows"))
    clients = [
        start_client(
            lab,
            link.b,
            authority.client(f"flow{number}"),
            tunnel.plan.settings,
            link.ipv4(1),
            extra=(f"dev tun{number}", TUN_MTU),
            label=f"flow{number}",
        )
        for number in range(STOCK_CLIENTS)
    ]
    for client in clients:
        client.wait_initialized(timeout_seconds=60)
    return link, clients


def handshakes(server: OpenVpn) -> tuple[int, int]:
    """How many TLS handshakes were completed, and how many were begun: one a client, and the rekeys."""
    log = server.process.output()
    return log.count("Control Channel: TLS"), log.count("Peer Connection Initiated") + log.count("TLS: soft reset")


@pytest.mark.timeout(240)
def test_full_speed_and_rekeys_with_32_merged_flows(lab: Lab, authority: Authority, data_plane: DataPlane) -> None:
    settings = Settings(reneg_seconds=RENEG_SECONDS)
    plan = Plan(
        settings=settings,
        data_plane=data_plane,
        offloaded=("server", "client"),
        server_extra=(TUN_MTU,),
        client_extra=(TUN_MTU,),
    )
    tunnel = build(lab, authority, plan)
    server, client = tunnel.server, tunnel.client
    flows_link, stock_clients = start_stock_clients(lab, authority, tunnel)
    for link in (*tunnel.links, flows_link):
        merge_on(link)
    watcher = lab.start(server.namespace, [sys.executable, "-c", MERGED], "merged")
    watcher.wait_for("watching")

    start_iperf3_server(lab, server.namespace)
    iperf3 = ["iperf3", "--client", SERVER_VPN_IPV4, "--time", str(SECONDS), "--bidir", "--forceflush"]
    full_speed = lab.start(client.namespace, iperf3, "bidir")
    bursts = [sys.executable, "-c", BURSTS, SERVER_VPN_IPV4, str(STOCK_CLIENTS), str(SECONDS)]
    small = lab.start(flows_link.b, bursts, "bursts")
    assert small.wait(SECONDS + 30) == 0
    assert full_speed.wait(SECONDS + 30) == 0

    status = server.status()
    assert len(status) == 1 + STOCK_CLIENTS
    merged = set(re.findall(r"merged (\S+)", watcher.output()))
    assert {entry.real_address for entry in status.values()} - merged == set()
    for openvpn in (server, client, *stock_clients):
        assert TROUBLE.search(openvpn.process.output()) is None
        assert openvpn.process.output().count("Initialization Sequence Completed") == 1
    wait_until(lambda: len(set(handshakes(server))) == 1, "every handshake complete")
    # A busy machine is late with some.
    assert handshakes(server)[0] >= (1 + STOCK_CLIENTS) * (SECONDS // RENEG_SECONDS) // 2
    for log in lab.directory.glob("*shim.log"):
        assert "UDP_GRO stays off" not in log.read_text()
        assert "control packet not handed back" not in log.read_text()
    drops = {drop.reason: drop.packets for device in data_plane.devices() for drop in device.drops}
    assert not {"rx_not_data", "rx_control_queue_full"} & set(drops)
