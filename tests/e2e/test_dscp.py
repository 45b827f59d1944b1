"""The DSCP of packets inside the tunnel, on the link: --copy-dscp of a shimmed server whose client is stock OpenVPN."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import pytest

from dataplane.tun.network_namespace import in_network_namespace
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.netns import Link, Namespace
from lab.openvpn import PORT
from lab.pki import Authority
from lab.tunnel import Plan, build

pytestmark = pytest.mark.root

ETH_P_IP: Final = 0x0800
ETH_P_ALL: Final = 0x0003  # captures what is sent, too
IP_HEADER: Final = 20
UDP_HEADER: Final = 8
DATA_V2: Final = 9
"""Opcode, the upper five bits of the first byte."""

Result = TypeVar("Result")


def inside(namespace: Namespace, function: Callable[[], Result]) -> Result:
    return in_network_namespace(str(Path("/run/netns") / namespace.name), function)


@contextmanager
def capture(link: Link) -> Iterator[Iterator[tuple[int, int, int]]]:
    """TOS, opcode and size of what leaves end a of a link from OpenVPN's port, from now on."""
    with inside(link.a, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))) as wire:
        wire.bind((f"to-{link.number}a", ETH_P_ALL))
        wire.settimeout(10)
        yield packets_of(wire)


def packets_of(wire: socket.socket) -> Iterator[tuple[int, int, int]]:
    while True:
        packet, (_, protocol, direction, *_) = wire.recvfrom(2000)
        if (protocol, direction, packet[9]) != (ETH_P_IP, socket.PACKET_OUTGOING, socket.IPPROTO_UDP):
            continue
        if int.from_bytes(packet[IP_HEADER : IP_HEADER + 2], "big") == PORT:
            yield packet[1], packet[IP_HEADER + UDP_HEADER] >> 3, len(packet)


def test_dscp_is_copied_to_data_packets_alone_and_ecn_never(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    plan = Plan(data_plane=data_plane, offloaded=("server",), shim_options=("--copy-dscp",))
    tunnel = build(lab, authority, plan)
    client_address = tunnel.client.vpn_addresses()[0]
    with (
        capture(tunnel.links[0]) as packets,
        inside(tunnel.server.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp,
    ):
        for number, (tos, expected) in enumerate([(0xBB, 0xB8), (0x00, 0x00), (0x03, 0x00), (0x48, 0x48)]):
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
            size = 1000 + number  # so that the packet is known again
            udp.sendto(bytes(size), (client_address, 9))
            assert next(packet[:2] for packet in packets if 0 < packet[2] - size < 100) == (expected, DATA_V2)

        # A client that starts anew makes the server speak on OpenVPN's own socket.
        os.kill(tunnel.client.pid, signal.SIGUSR1)
        assert next(tos for tos, opcode, _ in packets if opcode != DATA_V2) == 0
        tunnel.client.wait_initialized(occurrence=2)
