"""The goals, in the words in which they were set, and what this run has to show for each.

Knows which ratio answers which goal. Must not know how it is shown. A goal is a ratio of medians; nothing is rounded
before it is compared.
"""
# ruff: noqa: RUF001 - the multiplication sign is the goals' own

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.contenders import OUR_SERVER, OURS, STOCK, STOCK_TUNED, WIREGUARD_GO, Contender
from bench.loads import MEMORY, PING, TCP_DOWN, TCP_UP, UDP_64, UDP_64_32
from bench.results import Results

MIB: Final = 1 << 20
CROWD: Final = "1,000 peers"
"""Stands for a load of its own: the memory of a worker that nothing was sent through (see crowd.py)."""

Value = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Part:
    """One figure of a goal. `at_least`: whether more is better."""

    what: str
    value: Value
    bound: float
    at_least: bool
    unit: str = "×"

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"

    def met(self, results: Results) -> bool | None:
        """Whether this run meets it; None if it was not measured."""
        value = self.value(results)
        if value is None:
            return None
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Goal:
    """A row of the goals' table in the words in which it was set; each of its parts has a bound of its own."""

    text: str
    parts: tuple[Part, ...]


def _ratio(contender: Contender, other: Contender, load: str, figure: str) -> Value:
    return lambda results: results.ratio(contender.name, other.name, load, figure)


def _mebibytes(contender: Contender, load: str) -> Value:
    def value(results: Results) -> float | None:
        summary = results.summary(contender.name, load, "server_bytes")
        return summary.median / MIB if summary else None

    return value


def _stage(name: str) -> Value:
    return lambda results: results.stages.get(name, {}).get("ratio")


def _server_parts(figure: str, *, down: float, up: float, at_least: bool) -> tuple[Part, ...]:
    """The goal says "stock", so our server is held against both: OpenVPN with its defaults, and tuned."""
    return tuple(
        Part(f"{direction}{suffix}", _ratio(OUR_SERVER, stock, load, figure), bound, at_least)
        for suffix, stock in (("", STOCK), (", tuned", STOCK_TUNED))
        for direction, load, bound in (("down", TCP_DOWN, down), ("up", TCP_UP, up))
    )


RATE, PACKETS, SERVER_CPU, AVERAGE = "bits_per_second", "packets_per_second", "server_cpu_us", "average_ms"

GOALS: Final = (
    Goal(
        "ours ↔ ours under the shim, TCP, "
        "against OpenVPN ↔ OpenVPN default / wireguard-go with offloads (2023 or later)",
        (
            Part("OpenVPN", _ratio(OURS, STOCK, TCP_UP, RATE), 8, at_least=True),
            Part("wireguard-go", _ratio(OURS, WIREGUARD_GO, TCP_UP, RATE), 2, at_least=True),
        ),
    ),
    Goal(
        "our server ↔ stock client: CPU µs per packet of our worker against the stock server's, TCP down / up",
        _server_parts(SERVER_CPU, down=0.35, up=0.45, at_least=False),
    ),
    Goal(
        "our server ↔ stock client: throughput against stock ↔ stock, down / up",
        _server_parts(RATE, down=1.15, up=1.4, at_least=True),
    ),
    Goal(
        "UDP 64 B under 1 % loss, ours ↔ ours, against OpenVPN, 1 flow and 32 flows",
        (
            Part("1 flow", _ratio(OURS, STOCK, UDP_64, PACKETS), 3, at_least=True),
            Part("32 flows", _ratio(OURS, STOCK, UDP_64_32, PACKETS), 3, at_least=True),
        ),
    ),
    Goal(
        "ping average, every 10 ms, against OpenVPN's",
        (
            Part("ours ↔ ours", _ratio(OURS, STOCK, PING, AVERAGE), 0.85, at_least=False),
            Part("our server ↔ stock client", _ratio(OUR_SERVER, STOCK, PING, AVERAGE), 0.85, at_least=False),
        ),
    ),
    Goal(
        "stages: seal or open of a 45-packet batch against the bare AEAD calls in C",
        (
            Part("seal", _stage("seal[AES-256-GCM]"), 1.25, at_least=False),
            Part("open", _stage("open[AES-256-GCM]"), 1.25, at_least=False),
            Part("seal, ChaCha20", _stage("seal[ChaCha20-Poly1305]"), 1.25, at_least=False),
            Part("open, ChaCha20", _stage("open[ChaCha20-Poly1305]"), 1.25, at_least=False),
        ),
    ),
    Goal(
        "worker resident memory",
        (
            Part("1 peer", _mebibytes(OURS, MEMORY), 40, at_least=False, unit=" MiB"),
            Part("1,000 peers", _mebibytes(OURS, CROWD), 120, at_least=False, unit=" MiB"),
        ),
    ),
)
