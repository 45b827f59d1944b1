"""Sealing and opening a batch, beside the bare AEAD calls; goal: at most 1.25 times as long.

A round is one batch of the bare calls and one of ours, in the same buffer, so that both have the same machine. The
benchmark's own table shows ours, the summary the ratio of the medians.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter_ns
from types import ModuleType
from typing import Any

import pytest

from dataplane.datachannel.key_direction import KeyDirection
from dataplane.fastpath.aead import DataKey, open_many, seal_many
from dataplane.vocabulary import Cipher

PACKETS = 45
SIZE = 24 + 1400
ROUNDS = 2000
GOAL = 1.25


@dataclass
class Comparison:
    """Ours beside the bare calls, both on the same datagrams."""

    name: str
    benchmark: Any
    summarize: Callable[[str], None]
    bare: Any
    key: Any
    buffer: bytearray = field(default_factory=bytearray)
    bare_ns: list[int] = field(default_factory=list)

    def run(
        self, datagrams: bytes, *, bare: Callable[[bytearray], object], ours: Callable[[bytearray], object]
    ) -> None:
        """Benchmarks ours with a run of the bare calls before each of its rounds."""

        def before_ours() -> tuple[tuple[bytearray], dict[str, object]]:
            self.buffer[:] = datagrams
            begin = perf_counter_ns()
            bare(self.buffer)
            self.bare_ns.append(perf_counter_ns() - begin)
            self.buffer[:] = datagrams
            return (self.buffer,), {}

        assert self.benchmark.pedantic(ours, setup=before_ours, rounds=ROUNDS, warmup_rounds=50) == PACKETS
        if self.benchmark.enabled:
            self.report(bare_us=median(self.bare_ns) / 1e3, ours_us=self.benchmark.stats.stats.median * 1e6)

    def report(self, *, bare_us: float, ours_us: float) -> None:
        """Into the summary and into the benchmark's JSON."""
        ratio = ours_us / bare_us
        self.benchmark.extra_info.update(bare_us=bare_us, ours_us=ours_us, ratio=ratio, goal=GOAL)
        self.summarize(
            f"{self.name}: {PACKETS} packets of {SIZE - 24} bytes in {ours_us:.1f} us, bare {bare_us:.1f} us:"
            f" ratio {ratio:.2f}, goal {GOAL} {'met' if ratio <= GOAL else 'missed'}"
        )


@pytest.fixture(params=list(Cipher), ids=["AES-256-GCM", "ChaCha20-Poly1305"])
def comparison(
    request: pytest.FixtureRequest,
    benchmark: Any,
    bare_aead: ModuleType,
    summarize: Callable[[str], None],
) -> Comparison:
    """With the same key for both, in both directions."""
    material = KeyDirection(os.urandom(32), os.urandom(8))
    chacha20 = request.param is Cipher.CHACHA20_POLY1305
    return Comparison(
        request.node.name,
        benchmark,
        summarize,
        bare=bare_aead.BareAead(chacha20, material.cipher_key, material.nonce_tail),
        key=DataKey(0, request.param, material, material),
    )


def test_seal(comparison: Comparison) -> None:
    """Payloads into datagrams."""
    comparison.run(
        os.urandom(PACKETS * SIZE),
        bare=lambda buffer: comparison.bare.seal_many(buffer, SIZE),
        ours=lambda buffer: seal_many(comparison.key, 1, buffer, SIZE),
    )


def test_open(comparison: Comparison) -> None:
    """Datagrams, all of them authentic, into payloads."""
    sealed = bytearray(PACKETS * SIZE)
    seal_many(comparison.key, 1, sealed, SIZE)
    assert comparison.bare.open_many(bytearray(sealed), SIZE) == PACKETS
    comparison.run(
        bytes(sealed),
        bare=lambda buffer: comparison.bare.open_many(buffer, SIZE),
        ours=lambda buffer: open_many(comparison.key, buffer, SIZE),
    )
