"""Three tunnels one after the other: stock OpenVPN, a server under the shim, and both ends under it.

Knows what is shown and in which words; demo/measurement.py measures, lab/ builds and tidies up. Run as root.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Final, TextIO

from demo.measurement import CpuSeconds, Measurement, measure
from lab.dataplane import DataPlane
from lab.interrupts import raise_on_ending_signals
from lab.lab import Lab
from lab.openvpn import Settings
from lab.pki import Authority
from lab.tunnel import Plan

ARRANGEMENTS: Final = {
    "stock server, stock client": (),
    "shimmed server, stock client": ("server",),
    "shimmed server, shimmed client": ("server", "client"),
}
MTU: Final = ("tun-mtu 1420",)
"""What fits the link: packets of the usual 1500 bytes would leave in two fragments each."""
INTERRUPTED: Final = 130
COLUMNS: Final = (
    "to server",
    "to client",
    "ping",
    "server's CPU: openvpn",
    "worker",
    "client's CPU: openvpn",
    "worker",
)


def main() -> int:
    """Runs the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of each measurement (default 3)")
    seconds: int = parser.parse_args().seconds
    if os.geteuid() != 0:
        sys.stderr.write("the demo makes network namespaces: run it as root\n")
        return 1
    raise_on_ending_signals()
    try:
        run(seconds, sys.stdout)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; everything is removed\n")
        return INTERRUPTED
    return 0


def run(seconds: int, out: TextIO) -> None:
    """Measures each arrangement and writes what came of it to `out`."""
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="ovpn-demo-") as directory, Lab(Path(directory)) as lab:
        _say(out, f"OpenVPN tunnels between network namespaces {lab.name}-*, {settings.cipher}, one TCP stream,")
        _say(out, f"{seconds} s each way, {os.cpu_count()} CPUs for everything. Ctrl-C removes all of it.\n")
        authority, data_plane = Authority(lab.directory), DataPlane(lab)
        measured = {}
        for number, (name, offloaded) in enumerate(ARRANGEMENTS.items()):
            _say(out, f"== {name}")
            plan = Plan(
                settings=settings, data_plane=data_plane, offloaded=offloaded, server_extra=MTU, client_extra=MTU
            )
            measured[name] = measure(lab, authority, plan, f"t{number}", seconds)
            show_offload(measured[name], out)
        show_table(measured, out)


def show_offload(measurement: Measurement, out: TextIO) -> None:
    """OpenVPN's own words about offload, then what the service answers over gRPC."""
    for role, line in measurement.dco_lines.items():
        _say(out, f"   {role}'s log: {line or '(nothing about DCO: it carries its data itself)'}")
    for device, peers in measurement.devices:
        _say(out, f"   gRPC: device {device.name}, worker {device.worker_pid}, {len(peers)} peer(s)")
        for peer in peers:
            counters = peer.counters
            inside = " ".join(filter(None, (peer.vpn_ipv4, peer.vpn_ipv6))) or "all destinations"
            _say(out, f"     peer {peer.peer_id} at {peer.remote.address}:{peer.remote.port}, {inside}")
            for name in ("vpn_rx", "vpn_tx", "link_rx", "link_tx"):
                counter = getattr(counters, name)
                _say(out, f"       {name:8}{counter.packets:>12,} packets{counter.bytes:>18,} bytes")
            drops = ", ".join(f"{drop.reason} {drop.packets}" for drop in counters.drops) or "none"
            _say(out, f"       dropped {drops}")
    _say(out, "")


def show_table(measured: dict[str, Measurement], out: TextIO) -> None:
    """One line an arrangement. CPU times are seconds spent while the two streams ran."""
    rows = [("", *COLUMNS), *((name, *_cells(measurement)) for name, measurement in measured.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        _say(out, "  ".join([row[0].ljust(widths[0]), *cells]))


def _cells(measurement: Measurement) -> tuple[str, ...]:
    rates = (f"{rate / 1e6:,.0f} Mbit/s" for rate in (measurement.to_server, measurement.to_client))
    cpu = (*_cpu_cells(measurement.server_cpu), *_cpu_cells(measurement.client_cpu))
    return (*rates, f"{measurement.ping_ms:.2f} ms", *cpu)


def _cpu_cells(cpu: CpuSeconds) -> tuple[str, str]:
    return f"{cpu.openvpn:.2f} s", "-" if cpu.worker is None else f"{cpu.worker:.2f} s"


def _say(out: TextIO, line: str) -> None:
    out.write(f"{line}\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
