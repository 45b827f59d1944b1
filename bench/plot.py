"""The results as a picture: four panels of bars, medians with their spread. Knows matplotlib; measures nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.contenders import OUR_SERVER, OURS, OURS_PYTHON, STOCK, STOCK_TUNED, WIREGUARD_GO
from bench.loads import PING, TCP_DOWN, TCP_UP, TCP_UP_4, UDP_64, UDP_64_32, UDP_1400
from bench.report import Column
from bench.results import Results

COLOURS: Final = {
    STOCK.name: "#9aa5b1",
    STOCK_TUNED.name: "#616e7c",
    WIREGUARD_GO.name: "#c98a2b",
    OURS_PYTHON.name: "#8fc1a9",
    OURS.name: "#1f7a4d",
    OUR_SERVER.name: "#2f6db3",
}
PANELS: Final = {
    "TCP, Gbit/s": tuple(Column(load, load, "bits_per_second", 1e9) for load in (TCP_UP, TCP_DOWN, TCP_UP_4)),
    "UDP under 1 % loss, 1,000 packets/s": tuple(
        Column(load, load, "packets_per_second", 1e3) for load in (UDP_64, UDP_64_32, UDP_1400)
    ),
    "ping every 10 ms, ms (less is better)": (
        Column("average", PING, "average_ms"),
        Column("99 %", PING, "p99_ms"),
    ),
    "server's CPU, µs a packet (less is better)": tuple(
        Column(load, load, "server_cpu_us") for load in (TCP_UP, TCP_DOWN, UDP_64)
    ),
}


def draw(results: Results, directory: Path, caption: str) -> None:
    """Writes bench.svg and bench.png."""
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    figure = Figure(figsize=(12, 8), layout="constrained")
    contenders = [name for name in COLOURS if name in results.samples]
    for axes, (title, columns) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        _panel(axes, title, columns, contenders, results)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel(caption, fontsize="small")
    for suffix in ("svg", "png"):
        figure.savefig(directory / f"bench.{suffix}", dpi=120)


def _panel(axes: Any, title: str, columns: tuple[Column, ...], contenders: list[str], results: Results) -> None:
    width = 0.8 / max(1, len(contenders))
    for place, contender in enumerate(contenders):
        bars = [
            (number, summary)
            for number, column in enumerate(columns)
            if (summary := results.summary(contender, column.load, column.figure))
        ]
        units = [columns[number].unit for number, _ in bars]
        heights = [summary.median / unit for (_, summary), unit in zip(bars, units, strict=True)]
        below = [(summary.median - summary.low) / unit for (_, summary), unit in zip(bars, units, strict=True)]
        above = [(summary.high - summary.median) / unit for (_, summary), unit in zip(bars, units, strict=True)]
        axes.bar(
            [number + (place - (len(contenders) - 1) / 2) * width for number, _ in bars],
            heights,
            width,
            yerr=[below, above],
            color=COLOURS[contender],
            label=contender,
            error_kw={"linewidth": 0.8},
        )
    axes.set_title(title, fontsize="medium")
    axes.set_xticks(range(len(columns)), [column.heading for column in columns])
    axes.spines[["top", "right"]].set_visible(False)
