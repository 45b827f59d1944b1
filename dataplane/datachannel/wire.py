"""The DATA_V2 packet, in both data formats: where each field stands and how long it is. And one opcode beside it.

Knows the layout (OpenVPN wire protocol, "P_DATA_V2"; the kernel's drivers/net/ovpn/proto.h). Must not know keys,
peers or what is inside.

    byte  0      opcode 9 << 3 | key_id (0..7)
    bytes 1-3    peer_id, big endian
    bytes 4-7    packet_id, big endian
    bytes 8-23   AEAD tag
    bytes 24-    ciphertext

The additional authenticated data are bytes 0-7. The nonce (12 bytes) is packet_id || nonce_tail. In the format EPOCH
(OpenVPN 2.7, "Epoch data keys"):

    bytes 0-3    as above
    bytes 4-11   packet_id, big endian: epoch (16 bits), counter (48)
    bytes 12-    ciphertext
    last 16      AEAD tag

The additional authenticated data are bytes 0-11. The nonce is the implicit IV of the epoch (12 bytes), with packet_id
XORed into its first 8.
"""

from __future__ import annotations

import struct
from typing import Final

from dataplane.vocabulary import COUNTER_BITS, MTU_MAX

OPCODE_DATA_V2: Final = 9
OPCODE_SOFT_RESET: Final = 3
"""P_CONTROL_SOFT_RESET_V1: whoever hears it gives up the elder of two data keys, and a new one is agreed upon
(OpenVPN's key_state_soft_reset() in ssl.c). The control channel has the same byte 0: opcode, key_id."""
KEY_ID_MAX: Final = 7
"""All three bits of a key_id, so also its mask in byte 0."""

PACKET_ID_MAX: Final = 0xFFFFFFFF

HEAD: Final = struct.Struct(">II")
"""Two words: opcode (5 bits), key_id (3), peer_id (24); packet_id (32)."""

HEAD_SIZE: Final = 8
TAG_SIZE: Final = 16
NONCE_TAIL_SIZE: Final = 8
OVERHEAD: Final = HEAD_SIZE + TAG_SIZE
"""Bytes that DATA_V2 adds to a packet; no shorter datagram is a DATA_V2 packet."""

NONCE_SIZE: Final = 12

EPOCH_HEAD: Final = struct.Struct(">IQ")
"""The first word, as in HEAD; epoch << 48 | counter."""

EPOCH_HEAD_SIZE: Final = 12
EPOCH_OVERHEAD: Final = EPOCH_HEAD_SIZE + TAG_SIZE
EPOCH_MAX: Final = 0xFFFF
COUNTER_MAX: Final = (1 << COUNTER_BITS) - 1

DATAGRAM_MAX: Final = MTU_MAX + EPOCH_OVERHEAD
"""The longest DATA_V2 packet in bytes that the largest MTU makes."""

KEEPALIVE: Final = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
"""The payload of a keepalive: OpenVPN's ping_string (src/openvpn/ping.c)."""


def first_word(key_id: int, peer_id: int) -> int:
    """The first word of the head: opcode DATA_V2, key_id (0..7), peer_id (0..0xFFFFFF)."""
    return OPCODE_DATA_V2 << 27 | key_id << 24 | peer_id


def reset_mark(packet: bytes) -> int:
    """Which soft reset a packet is, the same for its repetitions; 0: none. packet: one byte or more."""
    return packet[0] if packet[0] >> 3 == OPCODE_SOFT_RESET else 0
