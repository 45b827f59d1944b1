"""The keepalive of a peer: when to send one, and when the peer has been silent for too long.

Knows two clocks, each off when its time is 0. Must not know packets; it is told when the last ones were. Nothing
here runs per packet: the times of the last packets stand in the statistics row anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True)
class Keepalive:
    """Interval and timeout in seconds, 0 for none; the clocks start with restart()."""

    interval_s: int = 0
    timeout_s: int = 0
    _send_clock_ns: int = field(default=0, init=False, repr=False)
    _receive_clock_ns: int = field(default=0, init=False, repr=False)

    def restart(self, now_ns: int) -> None:
        """Starts both clocks anew."""
        self._send_clock_ns = now_ns
        self._receive_clock_ns = now_ns

    def restart_sending(self, now_ns: int) -> None:
        """A keepalive was due and is dealt with: sent, or impossible for lack of a key."""
        self._send_clock_ns = now_ns

    def send_at_ns(self, last_tx_ns: int) -> int | None:
        """When the next keepalive is due, if the last packet was sent at last_tx_ns (0: never)."""
        if not self.interval_s:
            return None
        return max(self._send_clock_ns, last_tx_ns) + self.interval_s * _NS_PER_S

    def expire_at_ns(self, last_rx_ns: int) -> int | None:
        """When the peer expires, if the last authentic packet came at last_rx_ns (0: never)."""
        if not self.timeout_s:
            return None
        return max(self._receive_clock_ns, last_rx_ns) + self.timeout_s * _NS_PER_S
