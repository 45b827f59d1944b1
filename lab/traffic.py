"""Traffic through a tunnel and what became of it.

Knows ping, iperf3 and the programs of lab/pings.py and lab/datagrams.py; must not know what carries the packets.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from lab import datagrams, pings
from lab.lab import Lab
from lab.netns import Namespace
from lab.waiting import wait_until

UDP_PORT: Final = 5300


@dataclass(frozen=True, slots=True)
class Pings:
    """What became of echo requests. average_ms is 0 when nothing came back."""

    sent: int
    received: int
    average_ms: float

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return self.sent - self.received


def ping(  # noqa: PLR0913 - each is a different thing
    lab: Lab, namespace: Namespace, address: str, *, count: int = 10, interval_seconds: float = 0.02, size: int = 56
) -> Pings:
    """Sends `count` echo requests with `size` bytes of payload each and waits for the answers."""
    argv = _pings_command(address, count, interval_seconds, size)
    return _parse_pings(lab.run(namespace, argv, timeout_seconds=count * interval_seconds + 30))


class Pinging:
    """A ping() that runs beside whatever else is done."""

    def __init__(  # noqa: PLR0913 - as ping(), and the name of its log
        self, lab: Lab, namespace: Namespace, address: str, *, count: int, interval_seconds: float, label: str = "ping"
    ) -> None:
        self._seconds = count * interval_seconds
        self._process = lab.start(namespace, _pings_command(address, count, interval_seconds, 56), label)

    def result(self) -> Pings:
        """Waits for the end."""
        self._process.wait(self._seconds + 30)
        return _parse_pings(self._process.output())


def _pings_command(address: str, count: int, interval_seconds: float, size: int) -> list[str]:
    return [sys.executable, "-m", pings.__name__, address, str(count), str(interval_seconds), str(size)]


def _parse_pings(text: str) -> Pings:
    sent, received, average_ms = text.split()
    return Pings(int(sent), int(received), float(average_ms))


def round_trips(
    lab: Lab, namespace: Namespace, address: str, *, count: int, interval_seconds: float = 0.01
) -> list[float]:
    """The round-trip time in ms of each echo request of ping(8) that was answered, in order."""
    argv = ["ping", "-n", "-c", str(count), "-i", str(interval_seconds), "-W", "1", address]
    try:
        text = lab.run(namespace, argv, timeout_seconds=count * interval_seconds + 30)
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # 1: no answers, which is a result
            raise
        return []
    return [float(time) for time in re.findall(r"time=([\d.]+) ms", text)]


def wait_reachable(lab: Lab, namespace: Namespace, address: str, *, timeout_seconds: float = 10) -> None:
    """Sends single pings until one is answered. Raises TimeoutError."""
    wait_until(
        lambda: round_trips(lab, namespace, address, count=1),
        f"{address} reachable from {namespace.name}",
        timeout_seconds=timeout_seconds,
    )


def start_iperf3_server(lab: Lab, namespace: Namespace, label: str = "iperf3") -> None:
    """Starts an iperf3 server on all addresses of a namespace and waits until it listens."""
    process = lab.start(namespace, ["iperf3", "--server", "--forceflush"], label)
    process.wait_for("Server listening")


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpStreams:
    """TCP streams all at once, for whole seconds; from client to server, or the other way if `reverse`."""

    seconds: int
    streams: int = 1
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class TcpTransfer:
    """What the receiver of TCP streams got; `segment_bytes` is the payload of a full packet inside the tunnel."""

    bits_per_second: float
    received_bytes: int
    segment_bytes: int


def tcp(lab: Lab, client: Namespace, server: Namespace, address: str, load: TcpStreams) -> TcpTransfer:
    """Sends TCP streams between iperf3 and a server at `address`, which is started for it.

    With cubic, Linux's default: this machine's own choice would decide what is measured (BBR paces, and minds no loss).
    A server that serves one test after the other resets a connection that comes too soon after the one before. Raises
    RuntimeError with what iperf3 complained of.
    """
    serving = lab.start(server, ["iperf3", "--server", "--one-off", "--forceflush"], f"iperf3-{secrets.token_hex(4)}")
    serving.wait_for("Server listening")
    argv = ["iperf3", "--client", address, "--time", str(load.seconds), "--parallel", str(load.streams), "--json"]
    argv += ["--congestion", "cubic"]
    argv += ["--reverse"] if load.reverse else []
    report: dict[str, Any] = json.loads(lab.run(client, argv, timeout_seconds=load.seconds + 30))
    if "error" in report:  # the exit status is 0 all the same
        raise RuntimeError(f"iperf3 said: {report['error']}")
    serving.wait()
    received, segment = report["end"]["sum_received"], report["start"]["tcp_mss_default"]
    return TcpTransfer(float(received["bits_per_second"]), int(received["bytes"]), int(segment))


@dataclass(frozen=True, slots=True)
class Delivery:
    """How many datagrams of a stream were sent and how many came."""

    sent: int
    received: int


def udp(lab: Lab, sender: Namespace, receiver: Namespace, address: str, stream: datagrams.Stream) -> Delivery:
    """Sends a stream to a receiver at `address`, which is started for it."""
    program = [sys.executable, "-m", datagrams.__name__]
    receiving = lab.start(receiver, [*program, "receive", str(UDP_PORT)], f"datagrams-{secrets.token_hex(4)}")
    receiving.wait_for(datagrams.READY)
    numbers = (UDP_PORT, stream.rate, stream.flows, stream.size, stream.seconds)
    sent = lab.run(sender, [*program, "send", address, *map(str, numbers)], timeout_seconds=stream.seconds + 30)
    receiving.wait()
    return Delivery(int(sent), int(receiving.output().split()[-1]))
