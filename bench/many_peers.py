"""4,096 peers on one device: how fast they come and go over gRPC, what they take, whether one is slowed by the rest.

Knows the crowd and one tunnel of ours. Run as root: `.venv/bin/python -m bench.many_peers`; it takes four minutes.
The tunnel's server is OpenVPN under the shim; the crowd is added to its device, beside its client.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from ovpn.dataplane.v1 import common_pb2

from bench.contenders import OURS, Connected
from bench.crowd import Crowd, crowded_device
from bench.loads import TCP_DOWN, TCP_UP, Effort, tcp
from bench.site import Site
from lab.dataplane import DataPlane
from lab.interrupts import raise_on_ending_signals
from lab.lab import Lab
from lab.processes import resident_bytes

PEERS: Final = 4096
ROUNDS: Final = 5
EFFORT: Final = Effort(tcp_seconds=2, udp_seconds=0, udp_steps=0, pings=0)
COMPARED: Final = {"bits_per_second": "throughput", "server_cpu_us": "CPU a packet, server's worker"}
LOADS: Final = {TCP_UP: tcp(1, reverse=False), TCP_DOWN: tcp(1, reverse=True)}


def main() -> int:
    """Measures and prints; returns the exit status."""
    if os.geteuid() != 0:
        _say("this makes network namespaces: run it as root")
        return 1
    raise_on_ending_signals()
    with tempfile.TemporaryDirectory(prefix="ovpn-bench-") as logs, Lab(Path(logs)) as lab:
        site = Site(lab)
        _rates(site.data_plane(OURS.datapath))
        _one_among_many(site)
        _say(f"load average at the end: {os.getloadavg()[0]:.1f}, of which this has a part")
    return 0


def _rates(data_plane: DataPlane) -> None:
    with crowded_device(data_plane) as crowd:
        before = resident_bytes(crowd.worker_pid()), resident_bytes(data_plane.process.pid)
        _say(f"created     {_per_second(lambda: crowd.create(PEERS)):8,.0f} peers/s")
        _say(f"keyed       {_per_second(lambda: crowd.install_keys(PEERS)):8,.0f} peers/s, two keys each")
        _say(f"listed      {_per_second(crowd.count):8,.0f} peers/s")
        after = resident_bytes(crowd.worker_pid()), resident_bytes(data_plane.process.pid)
        _say(f"deleted     {_per_second(lambda: crowd.delete(PEERS)):8,.0f} peers/s")
    worker, daemon = ((late - early) / PEERS / 1024 for early, late in zip(before, after, strict=True))
    _say(f"a peer takes {worker:.1f} KiB in the worker, {daemon:.1f} KiB in the daemon")


def _one_among_many(site: Site) -> None:
    """A client alone and among the crowd, in turns; the ratio of each round, so that a busy minute counts in both."""
    ratios: dict[tuple[str, str], list[float]] = {}
    data_plane = site.data_plane(OURS.datapath)
    with site.lab.passing():
        connected = OURS.connect(site, "many-")
        (device,) = (device for device in data_plane.devices() if device.mode == common_pb2.DEVICE_MODE_MP)
        (client,) = data_plane.peers(device.name)
        crowd = Crowd(data_plane, device.name, client.socket)
        for _ in range(ROUNDS):
            alone = _figures(site, connected)
            crowd.create(PEERS - 1)
            crowd.install_keys(PEERS - 1)
            for measured, figure in _figures(site, connected).items():
                ratios.setdefault(measured, []).append(figure / alone[measured])
            crowd.delete(PEERS - 1)
    _say(f"one client among {PEERS:,} peers, over what it has alone; medians of {ROUNDS} rounds, least and most:")
    for (load, what), rounds in ratios.items():
        _say(f"  {load:8}  {COMPARED[what]:30} {median(rounds):.3f} ({min(rounds):.3f} to {max(rounds):.3f})")


def _figures(site: Site, connected: Connected) -> dict[tuple[str, str], float]:
    """Throughput, and what a packet costs the server's worker, of a TCP stream in each direction."""
    measured = {name: load(site, connected, EFFORT) for name, load in LOADS.items()}
    return {(name, what): figures[what] for name, figures in measured.items() for what in COMPARED}


def _per_second(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return PEERS / (time.perf_counter() - begin)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
