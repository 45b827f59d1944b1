"""How much the service holds. Knows numbers only; who refuses what is beyond them is the engine's part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest numbers of resources.

    A worker is a process and a peer a row of 512 bytes in its device's page. A peer over TCP has a socket of its own.
    """

    max_devices: int = 256
    max_sockets_per_device: int = 8192
    max_peers_per_device: int = 65535


DEFAULT_LIMITS: Final = Limits()
