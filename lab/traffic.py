"""Traffic through a tunnel and what became of it. Knows ping and iperf3; must not know what carries the packets."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

from lab.lab import Lab
from lab.netns import Namespace
from lab.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Pings:
    """What ping(8) told. average_ms is 0 when nothing came back."""

    sent: int
    received: int
    average_ms: float

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return self.sent - self.received


def ping(  # noqa: PLR0913 - ping(8)'s own options
    lab: Lab, namespace: Namespace, address: str, *, count: int = 10, interval_seconds: float = 0.02, size: int = 56
) -> Pings:
    """Sends `count` echo requests with `size` bytes of payload each; an answer may take a second."""
    argv = _ping_command(address, count, interval_seconds, size)
    try:
        text = lab.run(namespace, argv, timeout_seconds=count * interval_seconds + 30)
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # 1: no answers, which is a result
            raise
        text = error.stdout
    return _parse_ping(text)


class Pinging:
    """A ping(8) that runs beside whatever else is done."""

    def __init__(  # noqa: PLR0913 - as ping(), and the name of its log
        self, lab: Lab, namespace: Namespace, address: str, *, count: int, interval_seconds: float, label: str = "ping"
    ) -> None:
        self._seconds = count * interval_seconds
        self._process = lab.start(namespace, _ping_command(address, count, interval_seconds, 56), label)

    def result(self) -> Pings:
        """Waits for the end."""
        self._process.wait(self._seconds + 30)
        return _parse_ping(self._process.output())


def _ping_command(address: str, count: int, interval_seconds: float, size: int) -> list[str]:
    numbers = ["-c", str(count), "-i", str(interval_seconds), "-W", "1", "-s", str(size)]
    return ["ping", "-n", "-q", *numbers, address]


def _parse_ping(text: str) -> Pings:
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    times = re.search(r"= [\d.]+/([\d.]+)/", text)
    if counts is None:
        raise RuntimeError(f"ping said: {text}")
    return Pings(int(counts.group(1)), int(counts.group(2)), float(times.group(1)) if times else 0.0)


def wait_reachable(lab: Lab, namespace: Namespace, address: str, *, timeout_seconds: float = 10) -> None:
    """Sends single pings until one is answered. Raises TimeoutError."""
    wait_until(
        lambda: ping(lab, namespace, address, count=1).received,
        f"{address} reachable from {namespace.name}",
        timeout_seconds=timeout_seconds,
    )


def start_iperf3_server(lab: Lab, namespace: Namespace, label: str = "iperf3") -> None:
    """Starts an iperf3 server on all addresses of a namespace and waits until it listens."""
    process = lab.start(namespace, ["iperf3", "--server", "--forceflush"], label)
    process.wait_for("Server listening")


def iperf3(lab: Lab, namespace: Namespace, address: str, *, seconds: float, reverse: bool = False) -> float:
    """One TCP stream to the iperf3 server there (from it if `reverse`). Returns received bits a second."""
    argv = ["iperf3", "--client", address, "--time", str(seconds), "--json", *(["--reverse"] if reverse else [])]
    report: dict[str, Any] = json.loads(lab.run(namespace, argv, timeout_seconds=seconds + 30))
    return float(report["end"]["sum_received"]["bits_per_second"])
