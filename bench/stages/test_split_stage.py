"""Splitting a frame of 45 packets, each to a place of its own, checksums and all."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.fastpath.split import split_into
from dataplane.tun.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VirtioHeader
from tests.tun.packets import TCP, UDP, Packet

PACKETS = 45
PLACE = 2048
TIMESTAMPS = bytes(12)

FRAMES = {
    "tcp-ipv4": (GSO_TCPV4, Packet(options=TIMESTAMPS), 1400),
    "tcp-ipv6": (GSO_TCPV6, Packet(version=6, options=TIMESTAMPS), 1400),
    "udp-ipv4": (GSO_UDP_L4, Packet(protocol=UDP), 1400),
    "udp-ipv4-small": (GSO_UDP_L4, Packet(protocol=UDP), 64),
}


@pytest.mark.parametrize("name", FRAMES)
def test_split(name: str, benchmark: Any) -> None:
    """One frame as the kernel gives it."""
    gso_type, packet, size = FRAMES[name]
    header = VirtioHeader(
        flags=NEEDS_CSUM,
        gso_type=gso_type,
        gso_size=size,
        csum_start=packet.transport,
        csum_offset=16 if packet.protocol == TCP else 6,
    )
    frame = header.pack() + packet.with_(payload=bytes(PACKETS * size)).pack()
    assert benchmark(split_into, frame, bytearray(PACKETS * PLACE)) == PACKETS
