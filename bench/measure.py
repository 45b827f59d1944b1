"""CPU time and memory of the two processes that carry a contender's packets. Knows /proc; must not know the loads."""

from __future__ import annotations

from bench.contenders import Connected
from bench.results import Figures
from lab.processes import cpu_seconds, resident_bytes


class CpuMeter:
    """CPU time of both ends from the moment it is made. It includes what the kernel does on their behalf."""

    def __init__(self, connected: Connected) -> None:
        self._connected = connected
        self._before = self._now()

    def per_packet(self, packets: float) -> Figures:
        """So far, in µs for each of so many packets; nothing if there were none."""
        if not packets:
            return {}
        server, client = (now - before for before, now in zip(self._before, self._now(), strict=True))
        return {"server_cpu_us": server / packets * 1e6, "client_cpu_us": client / packets * 1e6}

    def _now(self) -> tuple[float, float]:
        return cpu_seconds(self._connected.server_pid), cpu_seconds(self._connected.client_pid)


def memory(connected: Connected) -> Figures:
    """Resident memory of the server's process."""
    return {"server_bytes": resident_bytes(connected.server_pid)}
