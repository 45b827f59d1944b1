"""A sender that is faster than the link, over TCP: nothing that was accepted is lost, memory is bounded, keys change.

Knows tunnels of OpenVPN over TCP and the service's counters. Run as root: `.venv/bin/python -m bench.slow_link`, with
`--seconds 60 --reneg 5` by default; it takes seven minutes. The link has 20 Mbit/s in either direction; both
ends renew the keys every five seconds. Ends with status 1 if something was not as it must be.

A packet that comes when its key has gone ("without a key") is lost, too: with keys for five seconds OpenVPN asks for
the change to a new one only as the next handshake begins, when the other end gives the elder up (docs/adr/0017).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from ovpn.dataplane.v1 import common_pb2

from lab import numbered
from lab.datagrams import READY
from lab.dataplane import DataPlane
from lab.interrupts import raise_on_ending_signals
from lab.lab import Lab
from lab.netns import Link
from lab.openvpn import DEVICE, SERVER_VPN_IPV4, OpenVpn, Settings
from lab.pki import Authority
from lab.processes import resident_bytes
from lab.tunnel import Plan, Tunnel, build

ROLES: Final = ("server", "client")
PLACES: Final = (("server",), ("client",), ROLES)
RENEG_SECONDS: Final = 5
SETTINGS: Final = Settings(tcp=True, keepalive=(600, 1200), inner_ipv6=False)
"""No keepalive is sent meanwhile: what is counted is the stream."""

SHAPE: Final = ("root", "tbf", "rate", "20mbit", "burst", "64kb", "latency", "200ms")
PAYLOAD: Final = 1200
UDP_PORT: Final = 5300
SAMPLE_SECONDS: Final = 0.2
MIB: Final = 1 << 20
GROWTH_BYTES: Final = 16 * MIB
"""What a process may take more than at the beginning: a connection's queue has 1 MiB, its buffers two."""

LATE_SECONDS: Final = 5
"""How much later than that a key may come: a handshake has four flights, and each waits behind what the
kernels hold of the stream."""

_HANDSHAKE: Final = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) .*Control Channel: TLS", re.MULTILINE)
_KEYLESS: Final = "TLS keys are out of sync"
_LOSS: Final = re.compile(r"restarting|Inactivity timeout|ping expired|TLS handshake failed|AUTH_FAILED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What became of a stream, in packets; None where that end is stock OpenVPN, which counts none.

    sent: by the application. taken: by the sending service, from its device; passed: to the connection; dropped: by
    reason. received: by the application; misplaced: of these, those that came after a younger one. keyless: those that
    came when OpenVPN had given up their key. handshakes: when keys were agreed upon, in seconds. memory: resident bytes
    of each process, at first and at most. losses: what OpenVPN said of a session that ended.
    """

    sender: str
    seconds: float
    reneg_seconds: int
    sent: int
    taken: int | None
    passed: int | None
    dropped: dict[str, int]
    received: int
    misplaced: int
    keyless: int
    memory: dict[str, tuple[int, int]]
    handshakes: list[float]
    losses: list[str]

    def faults(self) -> list[str]:
        """What is not as it must be."""
        found = [f"{self.misplaced} packets misplaced"] if self.misplaced else []
        if self.keyless:
            found.append(f"{self.keyless} packets came without a key")
        if self.passed is not None and self.passed != self.received + self.keyless:
            found.append(f"{self.passed} packets passed to the connection, {self.received + self.keyless} came")
        if self.taken is not None and self.taken != (self.passed or 0) + sum(self.dropped.values()):
            found.append(f"{self.taken} packets taken, {self.passed} passed and {self.dropped} dropped")
        for name, (first, most) in self.memory.items():
            if most - first > GROWTH_BYTES:
                found.append(f"{name} grew from {first} to {most} bytes")
        if self.taken is not None:  # a stock sender lets its handshakes wait behind its data
            latest = self.reneg_seconds + LATE_SECONDS
            if len(self.handshakes) < int(self.seconds / latest):
                found.append(f"{len(self.handshakes)} rekeys in {self.seconds} s")
            if self.longest_wait() > latest:
                found.append(f"{self.longest_wait():.0f} s between two rekeys")
        return found + self.losses

    def longest_wait(self) -> float:
        """Seconds between two handshakes, at most; 0 if there were less than two."""
        return max((later - earlier for earlier, later in pairwise(self.handshakes)), default=0)

    def text(self) -> str:
        """For people."""
        memory = (f"{name} {first / MIB:.1f} → {most / MIB:.1f}" for name, (first, most) in self.memory.items())
        counts = f"{self.received:,} received, {self.keyless:,} came without a key, {self.misplaced} misplaced"
        if self.taken is not None:
            counts = f"{self.taken:,} taken, {self.dropped} dropped, {self.passed:,} passed on; {counts}"
        return (
            f"  from the {self.sender}: {self.sent:,} sent; {counts}\n"
            f"    {len(self.handshakes)} rekeys, at most {self.longest_wait():.0f} s apart\n"
            f"    MiB at first → at most: {', '.join(memory)}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60, help="length of each stream (60)")
    parser.add_argument("--reneg", type=int, default=RENEG_SECONDS, help="seconds that a key is used (5)")
    parser.add_argument("--datapath", choices=("auto", "python"), default="auto", help="which datapath carries it")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        _say("this makes network namespaces: run it as root")
        return 1
    raise_on_ending_signals()
    faults = []
    for offloaded in PLACES:
        with tempfile.TemporaryDirectory(prefix="ovpn-bench-") as logs, Lab(Path(logs)) as lab:
            _say(f"under the shim: {' and '.join(offloaded)}; datapath {options.datapath}")
            data_plane = DataPlane(lab, datapath=options.datapath)
            authority = Authority(lab.directory)
            for stream in measure(lab, authority, data_plane, offloaded, options.seconds, options.reneg):
                _say(stream.text())
                faults += stream.faults()
    _say("\n".join(f"NOT AS IT MUST BE: {fault}" for fault in faults) or "all as it must be")
    return 1 if faults else 0


def measure(  # noqa: PLR0913, PLR0917 - each is a different thing
    lab: Lab,
    authority: Authority,
    data_plane: DataPlane,
    offloaded: tuple[str, ...],
    seconds: float,
    reneg_seconds: int = RENEG_SECONDS,
) -> Iterator[Stream]:
    """A tunnel over a slow link, and streams through it: from the client, then from the server."""
    both = f"reneg-sec {reneg_seconds} {reneg_seconds}"  # with one number a server takes a little off, by lot
    plan = Plan(
        settings=SETTINGS,
        data_plane=data_plane,
        offloaded=offloaded,
        server_extra=(both,),
        client_extra=(both,),
    )
    tunnel = build(lab, authority, plan)
    for end in (tunnel.server, tunnel.client):
        end.namespace.ip("-6", "address", "flush", "dev", DEVICE)  # or the kernel solicits routers, now and then
    for link in tunnel.links:
        _slow_down(link)
    (client_address,) = tunnel.client.vpn_addresses()
    yield _stream(tunnel, data_plane, ("client", "server"), SERVER_VPN_IPV4, seconds, reneg_seconds)
    yield _stream(tunnel, data_plane, ("server", "client"), client_address, seconds, reneg_seconds)


def _slow_down(link: Link) -> None:
    for namespace, device in ((link.a, f"to-{link.number}a"), (link.b, f"to-{link.number}b")):
        namespace.tc("qdisc", "add", "dev", device, *SHAPE)


def _stream(  # noqa: PLR0913, PLR0917 - each is a different thing
    tunnel: Tunnel, data_plane: DataPlane, way: tuple[str, str], address: str, seconds: float, reneg_seconds: int
) -> Stream:
    lab, ends = tunnel.lab, {"server": tunnel.server, "client": tunnel.client}
    sender, receiver = (ends[role] for role in way)
    program = [sys.executable, "-m", numbered.__name__]
    before, handshakes = _counters(data_plane), len(_handshakes(tunnel.server))
    told = receiver.process.output().count(_KEYLESS)
    receiving = lab.start(receiver.namespace, [*program, "receive", str(UDP_PORT)], f"numbered-from-{way[0]}")
    receiving.wait_for(READY)
    with _memory(_processes(data_plane, ends)) as memory:
        numbers = (UDP_PORT, PAYLOAD, seconds)
        sent = int(lab.run(sender.namespace, [*program, "send", address, *map(str, numbers)], seconds + 30))
        receiving.wait(60)
    grown = {role: _growth(before[role], counters) for role, counters in _counters(data_plane).items()}
    received, misplaced = map(int, receiving.output().split()[-2:])
    mine, other = (grown.get(role, Counter[str]()) for role in way)
    return Stream(
        sender=way[0],
        seconds=seconds,
        reneg_seconds=reneg_seconds,
        sent=sent,
        taken=mine["vpn_tx"] if mine else None,
        passed=mine["link_tx"] if mine else None,
        dropped={reason: packets for reason, packets in mine.items() if reason.startswith("tx_")},
        received=received,
        misplaced=misplaced,
        keyless=other["rx_unknown_key_id"] + receiver.process.output().count(_KEYLESS) - told,
        memory=memory,
        handshakes=_handshakes(tunnel.server)[handshakes:],
        losses=[f"{role}: {loss}" for role, end in ends.items() for loss in _LOSS.findall(end.process.output())],
    )


def _counters(data_plane: DataPlane) -> dict[str, common_pb2.PeerCounters]:
    """Of the peer that each end under the shim has."""
    roles = {common_pb2.DEVICE_MODE_MP: "server", common_pb2.DEVICE_MODE_P2P: "client"}
    return {roles[device.mode]: data_plane.peers(device.name)[0].counters for device in data_plane.devices()}


def _growth(before: common_pb2.PeerCounters, after: common_pb2.PeerCounters) -> Counter[str]:
    """Of vpn_tx and link_tx and of the drops by their reason; packets."""

    def counts(counters: common_pb2.PeerCounters) -> Counter[str]:
        drops = {drop.reason: drop.packets for drop in counters.drops}
        return Counter(vpn_tx=counters.vpn_tx.packets, link_tx=counters.link_tx.packets, **drops)

    return counts(after) - counts(before)


def _processes(data_plane: DataPlane, ends: dict[str, OpenVpn]) -> dict[str, int]:
    """Their pids, by name."""
    workers = {f"{role}'s worker": pid for role, pid in data_plane.worker_pids().items()}
    openvpn = {f"{role}'s OpenVPN": end.pid for role, end in ends.items()}
    return {"daemon": data_plane.process.pid, **workers, **openvpn}


@contextmanager
def _memory(pids: dict[str, int]) -> Iterator[dict[str, tuple[int, int]]]:
    """Fills what it gives with the resident bytes of each process, at first and at most until the block ends."""
    over = threading.Event()
    first = {name: resident_bytes(pid) for name, pid in pids.items()}
    seen = {name: (size, size) for name, size in first.items()}

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            for name, pid in pids.items():
                seen[name] = first[name], max(seen[name][1], resident_bytes(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()


def _handshakes(end: OpenVpn) -> list[float]:
    """When keys were agreed upon, by its log, in seconds since some moment."""
    return [datetime.fromisoformat(time).timestamp() for time in _HANDSHAKE.findall(end.process.output())]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
