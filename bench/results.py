"""What was measured: for each contender and load the figures of every round.

Knows medians; must not know what the figures mean.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

Figures: TypeAlias = dict[str, float]
"""By name: "bits_per_second", "packets_per_second", "server_cpu_us", "client_cpu_us" (µs of CPU time a packet),
"average_ms", "p99_ms", "server_bytes" (resident memory)."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Median and spread over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Results:
    """All samples of one run, and what there is to say about them."""

    samples: dict[str, dict[str, list[Figures]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    """By contender, then by load: one entry a round."""
    stages: dict[str, Figures] = field(default_factory=dict)
    """By stage benchmark: "median_us" of a batch and, where it is compared with something, "ratio" to that."""
    remarks: list[str] = field(default_factory=list)
    """Contenders that were not there, rounds that failed."""

    def add(self, contender: str, load: str, figures: Figures) -> None:
        """Adds the figures of one round."""
        self.samples[contender][load].append(figures)

    def summary(self, contender: str, load: str, figure: str) -> Summary | None:
        """Over the rounds in which the figure was measured; None if there was none."""
        rounds = self.samples.get(contender, {}).get(load, [])
        values = [figures[figure] for figures in rounds if figure in figures]
        return Summary(median(values), min(values), max(values)) if values else None

    def ratio(self, contender: str, other: str, load: str, figure: str) -> float | None:
        """The contender's median over the other's, None if either is missing or the other's is 0."""
        mine, others = (self.summary(name, load, figure) for name in (contender, other))
        return mine.median / others.median if mine and others and others.median else None

    def write(self, path: Path, about: dict[str, Any]) -> None:
        """As JSON, beside what is to be known `about` the run."""
        content = {"about": about, "samples": self.samples, "stages": self.stages, "remarks": self.remarks}
        path.write_text(json.dumps(content, indent=1) + "\n")
