"""Makes a link merge the datagrams that it carries, as network cards do: a program, to be run as root at each end.

    python -m lab.gro DEVICE

Knows Linux's switches; must not know who sends or receives. Without it a veth device hands on each datagram at once,
and UDP_GRO has nothing to do but to leave whole what was sent with UDP_SEGMENT.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import sys
from pathlib import Path
from typing import Final

from lab.netns import Link, ip

FLUSH_NS: Final = 20_000
"""How long a datagram waits for others of its flow."""

SIOCETHTOOL: Final = 0x8946
ETHTOOL_STSO: Final = 0x1F
ETHTOOL_SGRO: Final = 0x2C
_ETHTOOL_VALUE: Final = struct.Struct("=II")  # command, value
_IFREQ: Final = struct.Struct("@16sP16x")  # name, address of the command


def merge_on(link: Link) -> None:
    """Switches merging on at both ends of a link."""
    for namespace, device in ((link.a, f"to-{link.number}a"), (link.b, f"to-{link.number}b")):
        ip("netns", "exec", namespace.name, sys.executable, "-m", "lab.gro", device)


def _switch_on(device: str) -> None:
    _ethtool(device, ETHTOOL_SGRO, 1)
    # What a veth device with TSO sends, its other end takes for merged as far as it can be.
    _ethtool(device, ETHTOOL_STSO, 0)
    # In an `ip netns exec` /sys is that of the namespace.
    attributes = Path("/sys/class/net", device)
    (attributes / "gro_flush_timeout").write_text(str(FLUSH_NS))
    (attributes / "napi_defer_hard_irqs").write_text("1")


def _ethtool(device: str, command: int, value: int) -> None:
    request = ctypes.create_string_buffer(_ETHTOOL_VALUE.pack(command, value), _ETHTOOL_VALUE.size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, _IFREQ.pack(device.encode(), ctypes.addressof(request)))


if __name__ == "__main__":
    _switch_on(sys.argv[1])
