"""One run: every contender in turn on the same two namespaces, round after round in rotating order. Run as root.

Knows the order of things and where the results go: OUT/results.json, OUT/bench.svg, OUT/bench.png and the page.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from bench import machine
from bench.contenders import CONTENDERS, OURS, Contender, Unavailable
from bench.crowd import resident_with_peers
from bench.goals import CROWD
from bench.loads import LOADS, Effort
from bench.plot import draw
from bench.report import page, tables
from bench.results import Results
from bench.site import Site, large_socket_buffers
from bench.stage_results import run_stages
from lab.interrupts import raise_on_ending_signals
from lab.lab import Lab

HERE: Final = Path(__file__).parent
INTERRUPTED: Final = 130
FAILURES: Final = (RuntimeError, OSError, subprocess.SubprocessError, grpc.RpcError)
"""What may go wrong with one contender in one round without making the others worthless."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    rounds: int
    effort: Effort
    contenders: tuple[Contender, ...]
    stages: bool
    out: Path
    page: Path


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    options = _options()
    if os.geteuid() != 0:
        _say("the benchmark makes network namespaces: run it as root")
        return 1
    raise_on_ending_signals()
    try:
        run(options)
    except KeyboardInterrupt:
        _say("interrupted; everything is removed")
        return INTERRUPTED
    return 0


def run(options: Options) -> None:
    """Measures, then writes and prints what came of it."""
    options.out.mkdir(parents=True, exist_ok=True)
    results = Results()
    logs = tempfile.TemporaryDirectory(prefix="ovpn-bench-")
    with logs, large_socket_buffers(), Lab(Path(logs.name)) as lab:
        _say(f"network namespaces {lab.name}-*; Ctrl-C removes them and all else")
        measure(Site(lab), options, results)
    if options.stages:
        run_stages(results, options.out)
    about = machine.describe()
    results.write(options.out / "results.json", about)
    draw(results, options.out, f"{about['processor']}; {about['kernel']}; OpenVPN {about['OpenVPN']}")
    options.page.write_text(page(results, about))
    for table in tables(results, spread=False):
        _say(f"\n{table.as_text()}")
    for remark in results.remarks:
        _say(f"* {remark}")
    _say(f"{options.page}, {options.out}/bench.svg, bench.png and results.json have it all")


def measure(site: Site, options: Options, results: Results) -> None:
    """All rounds; each begins with another contender, so that none always has the machine at its best."""
    contenders = list(options.contenders)
    for contender in contenders:
        results.samples[contender.name]  # the order of the rows
    for number in range(options.rounds):
        for contender in rotated(options.contenders, number):
            if contender not in contenders:
                continue
            try:
                measure_contender(site, contender, options.effort, results, f"round{number}")
            except Unavailable as reason:
                contenders.remove(contender)
                _remark(results, f"{contender.name} is missing: {reason}")
            except FAILURES as error:
                _remark(results, f"{contender.name} failed in round {number + 1}: {error}")
    if OURS in contenders:
        results.add(OURS.name, CROWD, {"server_bytes": resident_with_peers(site.data_plane(OURS.datapath))})


def measure_contender(site: Site, contender: Contender, effort: Effort, results: Results, round_name: str) -> None:
    """Sets the tunnel up, puts it under each load, and takes it down. Raises Unavailable and FAILURES."""
    _say(f"{round_name}: {contender.name}")
    with site.lab.passing():
        connected = contender.connect(site, f"{round_name}-{contender.name.replace(' ', '-')}-")
        for load in LOADS:
            if contender.full or not load.full:
                figures = load.run(site, connected, effort)
                results.add(contender.name, load.name, figures)
                _say(f"    {load.name}: {', '.join(f'{name} {value:,.4g}' for name, value in figures.items())}")


def rotated(contenders: Sequence[Contender], by: int) -> list[Contender]:
    """The same, beginning with the one at place `by`."""
    begin = by % len(contenders)
    return [*contenders[begin:], *contenders[:begin]]


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    environment = os.environ
    add = parser.add_argument
    add("--rounds", type=int, default=environment.get("BENCH_ROUNDS"), help="default BENCH_ROUNDS or 3")
    add("--seconds", type=int, default=environment.get("BENCH_SECONDS"), help="a TCP load; default BENCH_SECONDS or 3")
    add(
        "--quick",
        action="store_true",
        default=environment.get("BENCH_QUICK", "") not in {"", "0"},
        help="one short round, which only proves that everything is in place; default BENCH_QUICK",
    )
    add("--only", action="append", choices=[c.name for c in CONTENDERS], help="this contender; may be repeated")
    add("--out", type=Path, default=HERE / "out", help="directory of the plot and the figures (default bench/out)")
    add("--page", type=Path, help="the page (default bench/results.md; with --quick or --only OUT/results.md)")
    chosen = parser.parse_args()
    partial = chosen.quick or chosen.only
    return Options(
        rounds=chosen.rounds or (1 if chosen.quick else 3),
        effort=Effort(
            tcp_seconds=chosen.seconds or (1 if chosen.quick else 3),
            udp_seconds=0.2 if chosen.quick else 0.5,
            udp_steps=2 if chosen.quick else 7,
            pings=20 if chosen.quick else 300,
        ),
        contenders=tuple(c for c in CONTENDERS if not chosen.only or c.name in chosen.only),
        stages=not partial,
        out=chosen.out,
        page=chosen.page or (chosen.out if partial else HERE) / "results.md",
    )


def _remark(results: Results, remark: str) -> None:
    _say(f"    {remark}")
    results.remarks.append(" ".join(remark.split()))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
