"""The words that daemon and worker share: modes, slots, ciphers, datapaths, reasons, columns of the statistics page.

Knows the kernel's numbers (include/uapi/linux/ovpn.h). Must not know anything else: it imports nothing
of the project, so that every package may import it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum, unique
from typing import Final

PEER_ID_UNDEF: Final = 0xFFFFFF
"""The peer-id that stands for "not known" on the wire (24 bits)."""

MTU_MIN: Final = 68
MTU_MAX: Final = 65463
MTU_DEFAULT: Final = 1428
"""Bounds and default of a device's MTU in bytes, as ovpn-dco's."""

TCP_MSS_MIN: Final = 88
"""Bytes of payload that Linux sends in a segment at least (TCP_MIN_MSS of <net/tcp.h>), unless it has no more."""
TCP_MSS_IPV4_MAX: Final = 65535 - 40
TCP_MSS_IPV6_MAX: Final = 65535 - 60
"""The longest packet less its headers without options (RFC 6691)."""

LINGER_MAX_NS: Final = 60_000_000_000
"""Longest that a deleted key may go on to open packets."""


@unique
class Mode(IntEnum):
    """enum ovpn_mode."""

    P2P = 0
    MP = 1


@unique
class SocketProtocol(StrEnum):
    """What a socket speaks."""

    UDP = "udp"
    TCP = "tcp"


@unique
class KeySlot(IntEnum):
    """enum ovpn_key_slot."""

    PRIMARY = 0
    SECONDARY = 1


@unique
class Cipher(IntEnum):
    """enum ovpn_cipher_alg, without "none", which is refused everywhere."""

    AES_GCM = 1
    CHACHA20_POLY1305 = 2

    @property
    def key_lengths(self) -> tuple[int, ...]:
        """Legal lengths of the cipher key in bytes."""
        return (16, 24, 32) if self is Cipher.AES_GCM else (32,)


@unique
class DataFormat(IntEnum):
    """How the packets of a key look (dataplane/datachannel/wire.py)."""

    DATA_V2 = 1
    """As the kernel's drivers and OpenVPN 2.4 to 2.7 have it."""
    EPOCH = 2
    """OpenVPN 2.7's, with keys that are renewed without a handshake."""


COUNTER_BITS: Final = 48
"""A packet-id of the format EPOCH is epoch << 48 | counter."""


@unique
class KeyLimit(IntEnum):
    """What a data key can run out of."""

    PACKET_IDS = 1
    """Numbers for the packets it seals."""
    AEAD_USAGE = 2
    """Packets and blocks that its cipher may seal before it gives something away."""
    FORGERIES = 3
    """Attempts to forge a packet that it withstands."""


@unique
class DatapathKind(StrEnum):
    """Which implementation carries the packets."""

    PYTHON = "python"
    """The readable one: dataplane.datachannel, packet by packet."""
    COMPILED = "compiled"
    """Its twin, dataplane.fastpath, batch by batch. Not there where the package was built without a compiler."""


@unique
class RouteTarget(IntEnum):
    """Where a route of a device leads if not to a peer, whose peer_id is never negative."""

    NOBODY = -1
    """There is no such route."""
    HOST = -2
    """To the host: packets of the device find no peer there, those of a peer are for the device."""
    EVERYONE = -3
    """To all peers."""


@unique
class FragmentationPolicy(IntEnum):
    """What happens to an outer packet that is longer than the path takes; see socket.proto."""

    MAY_FRAGMENT = 1
    PATH_MTU = 2
    DONT_FRAGMENT = 3


@unique
class FloatPolicy(IntEnum):
    """What happens to a peer that sends from another endpoint than its own; see device.proto."""

    ALLOW = 1
    ASK = 2
    DENY = 3


@unique
class DelReason(IntEnum):
    """enum ovpn_del_peer_reason."""

    TEARDOWN = 0
    USERSPACE = 1
    EXPIRED = 2
    TRANSPORT_ERROR = 3
    TRANSPORT_DISCONNECT = 4


@unique
class Column(IntEnum):
    """Index of a 64-bit word in a row of the statistics page.

    The LAST_ columns hold CLOCK_MONOTONIC in ns, 0 for never. The SENT_ columns hold the packet-id
    that the key in the primary and secondary slot used last for sending, 0 for none
    (in DataFormat EPOCH: epoch << 48 | counter). Drop counters
    follow from DROPS on, one word a DropReason.
    """

    VPN_RX_BYTES = 0
    VPN_RX_PACKETS = 1
    VPN_TX_BYTES = 2
    VPN_TX_PACKETS = 3
    LINK_RX_BYTES = 4
    LINK_RX_PACKETS = 5
    LINK_TX_BYTES = 6
    LINK_TX_PACKETS = 7
    LAST_RX_NS = 8
    LAST_TX_NS = 9
    SENT_PRIMARY = 10
    SENT_SECONDARY = 11
    DROPS = 16


ROW_WORDS: Final = 64
"""Words of 8 bytes in a row of the statistics page."""


@unique
class DropReason(IntEnum):
    """Why a packet went no further. rx: from the link to the device; tx: from the device to the link."""

    RX_TRUNCATED = 0
    """Shorter than the 24 bytes that every DATA_V2 packet has, or the 28 of the format EPOCH."""
    RX_OVERSIZED = 1
    """Longer than the largest MTU (65,463) and the largest overhead (28)."""
    RX_NOT_DATA = 2
    """An opcode other than DATA_V2, on a socket that no control plane listens to."""
    RX_UNKNOWN_PEER = 3
    """No peer has this peer-id (or, for peer-id 0xFFFFFF, this source)."""
    RX_UNKNOWN_KEY_ID = 4
    """Neither key slot has this key-id, and none came within half a second."""
    RX_DECRYPT_FAILED = 5
    """Forged, damaged, or sealed with another key."""
    RX_PACKET_ID_ZERO = 6
    """Authentic, but packet-id 0 is never sent."""
    RX_REPLAYED = 7
    """Authentic, but this packet-id was accepted before."""
    RX_TOO_OLD = 8
    """Authentic, but its packet-id lies behind the replay window."""
    RX_NOT_IP = 9
    """Authentic, but neither a whole IP header nor a keepalive (OpenVPN's OCC messages are such)."""
    RX_SOURCE_CHECK = 10
    """Authentic, but its inner source address is not this peer's."""
    RX_TUN_WRITE_FAILED = 11
    """The device did not take it (it is down, or its queue is full)."""
    TX_NOT_IP = 12
    """The device gave something that is not IPv4 or IPv6."""
    TX_NO_PEER = 13
    """No peer has the destination address."""
    TX_NO_KEY = 14
    """The peer's primary slot is empty."""
    TX_PACKET_ID_EXHAUSTED = 15
    """The primary key has used all packet-ids; the key was removed."""
    TX_QUEUE_FULL = 16
    """The socket's send buffer is full; over TCP, the peer's queue."""
    TX_SEND_FAILED = 17
    """The socket refused it: no route, unreachable, or too long."""
    TX_BAD_VIRTIO_HEADER = 18
    """The device gave a virtio header that does not fit its packet."""
    RX_CONTROL_QUEUE_FULL = 19
    """A control packet for which the control plane's queue had no room; over TCP, after the control plane closed it."""
    TX_USAGE_LIMIT = 20
    """The primary key has sealed as much as AES-GCM may seal with one key; the key was removed."""
    RX_FORGERY_LIMIT = 21
    """More than 2^36 packets were forged for this key; it opens no more."""
    RX_EPOCH_REJECTED = 22
    """Of an epoch that lies behind the one before the current, or more than 16 ahead."""
    RX_FLOAT_REFUSED = 24
    """Authentic, but from elsewhere than the peer is: the FloatPolicy is not ALLOW; or it is, and this newest packet is
    from where another peer is."""
