"""Reads rows of the statistics page as the engine's counters and times.

Knows columns and clocks. Must not know whose row it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from dataplane.engine.types import PeerCounters
from dataplane.statistics_page import drops_of
from dataplane.vocabulary import Column


def drop_counters(row: Sequence[int]) -> dict[str, int]:
    """The drop counters that are not zero, by name of the reason in lower case."""
    return {reason.name.lower(): packets for reason, packets in drops_of(row).items()}


def peer_counters(row: Sequence[int]) -> PeerCounters:
    """The counters of a peer's row."""
    return PeerCounters(
        vpn_rx_bytes=row[Column.VPN_RX_BYTES],
        vpn_rx_packets=row[Column.VPN_RX_PACKETS],
        vpn_tx_bytes=row[Column.VPN_TX_BYTES],
        vpn_tx_packets=row[Column.VPN_TX_PACKETS],
        link_rx_bytes=row[Column.LINK_RX_BYTES],
        link_rx_packets=row[Column.LINK_RX_PACKETS],
        link_tx_bytes=row[Column.LINK_TX_BYTES],
        link_tx_packets=row[Column.LINK_TX_PACKETS],
        drops=drop_counters(row),
    )


def wall_clock_ns(monotonic_ns: int) -> int:
    """A CLOCK_MONOTONIC time in ns as ns since 1970, by the clocks as they stand now; 0 (never) stays 0."""
    return monotonic_ns + time.time_ns() - time.monotonic_ns() if monotonic_ns else 0
