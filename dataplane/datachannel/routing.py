"""A table of IPv4 and IPv6 prefixes, looked up by longest match.

Knows prefixes. Must not know what stands behind them, nor packets.

One dict for each prefix length in use, the longest first: a VPN has few lengths (mostly /32 and /128) and
many prefixes, so a look-up costs a dict look-up or two whatever the number of peers.
"""

from __future__ import annotations

from bisect import insort
from typing import Generic, TypeVar

T = TypeVar("T")

Prefix = tuple[bytes, int]
"""Packed address (4 or 16 bytes) and prefix length in bits; bits behind the length do not matter."""


class RoutingTable(Generic[T]):
    """Maps prefixes to values; IPv4 and IPv6 are separate worlds."""

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        # By address length in bytes: (number of host bits, prefix without host bits -> value), fewest host bits first.
        self._tables: dict[int, list[tuple[int, dict[int, T]]]] = {4: [], 16: []}

    def insert(self, prefix: Prefix, value: T) -> None:
        """Adds a prefix, or gives it a new value. Raises ValueError for what is no prefix."""
        host_bits, number = _split(prefix)
        tables = self._tables[len(prefix[0])]
        for known_bits, values in tables:
            if known_bits == host_bits:
                values[number] = value
                return
        insort(tables, (host_bits, {number: value}), key=_host_bits)

    def remove(self, prefix: Prefix) -> None:
        """Removes a prefix. Raises KeyError if it is not there."""
        host_bits, number = _split(prefix)
        tables = self._tables[len(prefix[0])]
        for index, (known_bits, values) in enumerate(tables):
            if known_bits == host_bits:
                del values[number]
                if not values:
                    del tables[index]
                return
        raise KeyError(prefix)

    def get(self, prefix: Prefix) -> T | None:
        """The value of exactly this prefix."""
        host_bits, number = _split(prefix)
        for known_bits, values in self._tables[len(prefix[0])]:
            if known_bits == host_bits:
                return values.get(number)
        return None

    def lookup(self, address: bytes) -> T | None:
        """The value of the longest prefix that holds this packed address (4 or 16 bytes)."""
        number = int.from_bytes(address, "big")
        for host_bits, values in self._tables[len(address)]:
            value = values.get(number >> host_bits)
            if value is not None:
                return value
        return None


def _split(prefix: Prefix) -> tuple[int, int]:
    address, length = prefix
    host_bits = len(address) * 8 - length
    if len(address) not in {4, 16} or length < 0 or host_bits < 0:
        raise ValueError(f"no prefix: {len(address)} bytes of address, length {length}")
    return host_bits, int.from_bytes(address, "big") >> host_bits


def _host_bits(table: tuple[int, dict[int, T]]) -> int:
    return table[0]
