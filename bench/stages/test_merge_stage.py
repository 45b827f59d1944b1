"""Merging a batch of packets into frames: of one flow, of many flows that alternate, and the batch of one."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.fastpath.merge import PacketMerger
from tests.tun.packets import UDP, Packet

PACKETS = 45
ROUNDS = 2000
TIMESTAMPS = bytes(12)


def batch(packet: Packet, size: int, *, flows: int = 1, count: int = PACKETS) -> list[bytes]:
    """Packets with `size` bytes of payload of so many flows, which take turns, and no flow loses its order."""
    return [
        packet.with_(
            ports=(number % flows, 9),
            payload=bytes([number]) * size,
            sequence=number // flows * size,
            identification=number // flows,
        ).pack()
        for number in range(count)
    ]


BATCHES = {
    "tcp-ipv4": (batch(Packet(options=TIMESTAMPS), 1400), 1),
    "tcp-ipv6": (batch(Packet(version=6, options=TIMESTAMPS), 1400), 1),
    "udp-ipv4": (batch(Packet(protocol=UDP), 1400), 1),
    "udp-ipv4-small": (batch(Packet(protocol=UDP), 64), 1),
    "udp-ipv4-small-32-flows": (batch(Packet(protocol=UDP), 64, flows=32), 32),
    "tcp-ipv4-32-flows": (batch(Packet(options=TIMESTAMPS), 1400, flows=32), 32),
    "tcp-ipv4-alone": (batch(Packet(options=TIMESTAMPS), 1400, count=1), 1),
}


@pytest.mark.parametrize("name", BATCHES)
def test_merge(name: str, benchmark: Any) -> None:
    """A batch as it comes from opening: in the cache of the processor, and not merged before."""
    packets, frames = BATCHES[name]
    merger = PacketMerger(tcp=True, udp=True)

    def fresh() -> tuple[tuple[list[bytearray]], dict[str, object]]:
        return ([bytearray(packet) for packet in packets],), {}

    assert benchmark.pedantic(merger.merge, setup=fresh, rounds=ROUNDS, warmup_rounds=50) == frames
