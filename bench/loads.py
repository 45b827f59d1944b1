"""The loads, each a short run of traffic through a tunnel that stands, and what they tell.

Knows traffic, and that a packet is one that carries payload (acknowledgements are not counted). Must not know who
carries it, nor what is a good result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, quantiles
from typing import Final

from bench.contenders import Connected
from bench.measure import CpuMeter, memory
from bench.results import Figures
from bench.search import highest
from bench.site import Site
from lab import traffic
from lab.datagrams import Stream
from lab.openvpn import SERVER_VPN_IPV4

TOLERATED_LOSS: Final = 0.01
LOWEST_RATE: Final = 10_000
HIGHEST_RATE: Final = 400_000
"""Datagrams a second between which the highest rate is looked for; the sender cannot do more than the latter."""

LARGE: Final = 1400 - 28
"""Payload of an IPv4 packet of 1,400 bytes, which fits into every contender's tunnel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long each load lasts."""

    tcp_seconds: int
    udp_seconds: float
    """Of each rate that is tried."""
    udp_steps: int
    """So often the range of rates is halved."""
    pings: int


@dataclass(frozen=True, slots=True)
class Load:
    """A load by its short name; `full` ones are only for the contenders that are measured in full."""

    name: str
    run: Callable[[Site, Connected, Effort], Figures]
    full: bool


def tcp(streams: int, *, reverse: bool) -> Callable[[Site, Connected, Effort], Figures]:
    """TCP from client to server, or the other way. A packet is a segment's worth of received payload."""

    def run(site: Site, connected: Connected, effort: Effort) -> Figures:
        meter = CpuMeter(connected)
        load = traffic.TcpStreams(seconds=effort.tcp_seconds, streams=streams, reverse=reverse)
        transfer = traffic.tcp(site.lab, site.client, site.server, SERVER_VPN_IPV4, load)
        packets = transfer.received_bytes / transfer.segment_bytes
        rate = transfer.bits_per_second
        packet_rate = rate / 8 / transfer.segment_bytes
        return {"bits_per_second": rate, "packets_per_second": packet_rate, **meter.per_packet(packets)}

    return run


def udp(flows: int, size: int) -> Callable[[Site, Connected, Effort], Figures]:
    """The highest rate of datagrams from client to server of which less than TOLERATED_LOSS is lost."""

    def run(site: Site, connected: Connected, effort: Effort) -> Figures:
        def attempt(rate: float) -> Figures | None:
            stream = Stream(rate=rate, flows=flows, size=size, seconds=effort.udp_seconds)
            meter = CpuMeter(connected)
            delivery = traffic.udp(site.lab, site.client, site.server, SERVER_VPN_IPV4, stream)
            if delivery.received < delivery.sent * (1 - TOLERATED_LOSS):
                return None
            return {"packets_per_second": delivery.received / stream.seconds, **meter.per_packet(delivery.received)}

        return highest(attempt, LOWEST_RATE, HIGHEST_RATE, effort.udp_steps) or {"packets_per_second": 0}

    return run


def ping(site: Site, _connected: Connected, effort: Effort) -> Figures:
    """An echo request every 10 ms, otherwise silence."""
    times = traffic.round_trips(site.lab, site.client, SERVER_VPN_IPV4, count=effort.pings)
    if len(times) < effort.pings / 2:
        raise RuntimeError(f"of {effort.pings} echo requests {len(times)} were answered")
    return {"average_ms": mean(times), "p99_ms": quantiles(times, n=100, method="inclusive")[98]}


def resident(_site: Site, connected: Connected, _effort: Effort) -> Figures:
    """Memory after all the other loads, so with every buffer touched."""
    return memory(connected)


TCP_UP, TCP_DOWN, TCP_UP_4 = "TCP up", "TCP down", "TCP up, 4 streams"
UDP_64, UDP_64_32, UDP_1400 = "UDP 64 B", "UDP 64 B, 32 flows", "UDP 1,400 B"
PING, MEMORY = "ping", "memory"

LOADS: Final = (
    Load(PING, ping, full=False),
    Load(TCP_UP, tcp(1, reverse=False), full=False),
    Load(TCP_DOWN, tcp(1, reverse=True), full=False),
    Load(TCP_UP_4, tcp(4, reverse=False), full=True),
    Load(UDP_64, udp(1, 64), full=True),
    Load(UDP_64_32, udp(32, 64), full=True),
    Load(UDP_1400, udp(1, LARGE), full=True),
    Load(MEMORY, resident, full=False),
)
