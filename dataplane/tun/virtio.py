"""The header that a TUN with IFF_VNET_HDR has before each packet (<linux/virtio_net.h>, struct virtio_net_hdr).

Knows its layout and constants. Must not know the packet behind it. A packet with its header is called a frame here.

    byte  0     flags
    byte  1     gso_type
    bytes 2-3   hdr_len: IP and transport header in bytes, a hint that nobody may trust
    bytes 4-5   gso_size: payload bytes of a segment
    bytes 6-7   csum_start: where the checksum begins to count, from the start of the packet
    bytes 8-9   csum_offset: where it is stored, from csum_start

Numbers stand in the machine's own byte order.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_LAYOUT: Final = struct.Struct("=BBHHHH")

HEADER_SIZE: Final = _LAYOUT.size
PACKET_MAX: Final = 65535
"""The longest packet behind a header, in bytes."""
FRAME_MAX: Final = HEADER_SIZE + PACKET_MAX

NEEDS_CSUM: Final = 1
"""Flag: the checksum field holds the sum of the pseudo header only; whoever sends the packet on completes it."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
"""Kinds of frames. Each but GSO_NONE stands for several packets."""
GSO_ECN: Final = 0x80
"""Bit beside the kind: the first of the TCP segments has CWR set."""


class VirtioHeader(NamedTuple):
    """A header; without arguments that of a packet that is as it should be."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    @classmethod
    def unpack(cls, frame: bytes) -> VirtioHeader:
        """The header of a frame of HEADER_SIZE bytes at least."""
        return cls(*_LAYOUT.unpack_from(frame))

    def pack(self) -> bytes:
        """The header as bytes."""
        return _LAYOUT.pack(*self)
