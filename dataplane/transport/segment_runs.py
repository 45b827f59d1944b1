"""Which packets in a row may go to the kernel as one, to be cut into datagrams there (UDP_SEGMENT, udp(7)).

Knows the kernel's rules for such a train: one destination, one size but for the last, which may be shorter, at
most 64 datagrams (128 in newer kernels) and as many bytes as a single datagram may have. Must not know sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

RUN_PACKETS_MAX: Final = 64

D = TypeVar("D")


def segment_runs(packets: Iterable[tuple[D, bytes]], bytes_max: int) -> Iterator[tuple[D, list[bytes]]]:
    """Cuts a row of packets, in order, into runs for one destination each; a packet may be a run of its own.

    bytes_max: bytes of a run of more than one packet.
    """
    current: tuple[D, list[bytes]] | None = None
    for destination, packet in packets:
        if current is not None and current[0] is destination and _may_follow(current[1], packet, bytes_max):
            current[1].append(packet)
            continue
        if current is not None:
            yield current
        current = (destination, [packet])
    if current is not None:
        yield current


def _may_follow(run: list[bytes], packet: bytes, bytes_max: int) -> bool:
    size = len(run[0])
    return (
        len(run) < RUN_PACKETS_MAX
        and len(run[-1]) == size
        and 0 < len(packet) <= size
        and len(run) * size + len(packet) <= bytes_max
    )
