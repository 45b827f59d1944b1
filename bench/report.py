"""The results as tables: on the terminal, and as the page bench/results.md. Knows words and units; measures nothing."""
# ruff: noqa: RUF001 - the multiplication sign is one

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.contenders import STOCK
from bench.goals import CROWD, GOALS, MIB, Part
from bench.loads import MEMORY, PING, TCP_DOWN, TCP_UP, TCP_UP_4, UDP_64, UDP_64_32, UDP_1400
from bench.results import Results

VERDICTS: Final = {True: "met", False: "NOT MET", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of one load, shown as `value / unit` with so many digits."""

    heading: str
    load: str
    figure: str
    unit: float = 1
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Section:
    """What one table of figures holds, and what is to be said about it."""

    title: str
    note: str
    columns: tuple[Column, ...]


def _cpu(role: str) -> tuple[Column, ...]:
    loads = (TCP_UP, TCP_DOWN, UDP_64, UDP_64_32, UDP_1400)
    return tuple(Column(load, load, f"{role}_cpu_us", digits=1) for load in loads)


SECTIONS: Final = (
    Section(
        "TCP, Gbit/s",
        "Up is from client to server.",
        tuple(Column(load, load, "bits_per_second", 1e9) for load in (TCP_UP, TCP_DOWN, TCP_UP_4)),
    ),
    Section(
        "1,000 packets a second",
        "UDP: from client to server, the highest rate found of which less than 1 % is lost. TCP: full segments.",
        tuple(
            Column(load, load, "packets_per_second", 1e3, 0) for load in (UDP_64, UDP_64_32, UDP_1400, TCP_UP, TCP_DOWN)
        ),
    ),
    Section(
        "Ping every 10 ms, ms",
        "With no other traffic.",
        (Column("average", PING, "average_ms", digits=3), Column("99th percentile", PING, "p99_ms", digits=3)),
    ),
    Section(
        "Server's CPU, µs a packet",
        "Of the process that carries the packets, with what the kernel does on its behalf. A packet is one with "
        "payload: acknowledgements are not counted, but what they cost is.",
        _cpu("server"),
    ),
    Section("Client's CPU, µs a packet", "As the server's.", _cpu("client")),
    Section(
        "Resident memory, MiB",
        "Of the server's process, shared pages included: with 1 peer after all the loads; with 1,000 peers, two keys "
        "each, without traffic.",
        (
            Column("1 peer", MEMORY, "server_bytes", MIB, 1),
            Column("1,000 peers", CROWD, "server_bytes", MIB, 1),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, what is to be said below it, and cells; the first column is text, the others are figures."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def as_text(self) -> str:
        """For a terminal: aligned columns."""
        rows = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.header))]
        lines = [self.title]
        for row in rows:
            figures = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([row[0].ljust(widths[0]), *figures]).rstrip())
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """For the page."""
        rule = ("---", *("---:" for _ in self.header[1:]))
        lines = [f"| {' | '.join(row)} |" for row in (self.header, rule, *self.rows)]
        return "\n".join([f"## {self.title}", "", self.note, "", *lines, ""])


def tables(results: Results, *, spread: bool) -> list[Table]:
    """All of them, the goals first. `spread`: whether lowest and highest are told too."""
    figures = [_figures(results, section, spread=spread) for section in SECTIONS]
    return [_goals(results), *figures, _stages(results)]


def page(results: Results, about: dict[str, str]) -> str:
    """The whole page, in Markdown."""
    facts = [f"| {name} | {value} |" for name, value in about.items()]
    parts = [
        "# Benchmark results\n",
        "Made by `make bench`; what is measured and how: [docs/benchmarks.md](../docs/benchmarks.md).\n",
        f"Figures: median of the rounds (lowest to highest), ratio to the median of {STOCK.name} with its defaults.\n",
        "\n".join(["| | |", "|---|---|", *facts, ""]),
        *(table.as_markdown() for table in tables(results, spread=True)),
    ]
    if results.remarks:
        parts.append("\n".join(["## Remarks", "", *(f"* {remark}" for remark in results.remarks), ""]))
    return "\n".join(parts)


def _figures(results: Results, section: Section, *, spread: bool) -> Table:
    rows = []
    for contender in results.samples:
        cells = tuple(_cell(results, contender, column, spread=spread) for column in section.columns)
        if any(cells):
            rows.append((contender, *cells))
    return Table(section.title, section.note, ("", *(column.heading for column in section.columns)), rows)


def _cell(results: Results, contender: str, column: Column, *, spread: bool) -> str:
    summary = results.summary(contender, column.load, column.figure)
    if summary is None:
        return ""
    values = (summary.median, summary.low, summary.high)
    median, low, high = (f"{value / column.unit:,.{column.digits}f}" for value in values)
    ratio = results.ratio(contender, STOCK.name, column.load, column.figure)
    around = f" ({low} to {high})" if spread else ""
    against = "" if ratio is None or contender == STOCK.name else f" {ratio:.2f}×"
    return f"{median}{around}{against}"


def _goals(results: Results) -> Table:
    rows = [
        (f"{goal.text}: {part.what}", part.wanted, _shown(part, results), VERDICTS[part.met(results)])
        for goal in GOALS
        for part in goal.parts
    ]
    return Table("Goals", "Ratios of medians in this run.", ("", "goal", "here", ""), rows)


def _shown(part: Part, results: Results) -> str:
    value = part.value(results)
    return "-" if value is None else f"{value:.2f}{part.unit}"


def _stages(results: Results) -> Table:
    rows = [
        (name, f"{figures['median_us']:.1f}", f"{figures['ratio']:.2f}×" if "ratio" in figures else "")
        for name, figures in results.stages.items()
    ]
    note = "Median; sealing and opening beside the bare AEAD calls in C. What a batch is, bench/stages says."
    return Table("Stages of the compiled path, µs a batch", note, ("", "time", "to bare AEAD"), rows)
