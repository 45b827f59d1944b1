"""How much one data key may be used: where its end is, and from where on it is time for another.

Knows numbers and their sources. Must not know keys. The limits of AES-GCM are those of draft-irtf-cfrg-aead-limits, as
OpenVPN 2.7 has them (src/openvpn/crypto.c); ChaCha20-Poly1305 has none that its packet-ids could reach. The kernel's
drivers/net/ovpn knows the end of the packet-ids only.
"""

from __future__ import annotations

from typing import Final

from dataplane.datachannel.wire import EPOCH_MAX
from dataplane.vocabulary import Cipher

PACKET_ID_WARNING: Final = 0xFF000000
"""OpenVPN's PACKET_ID_WRAP_TRIGGER."""

EPOCH_WARNING: Final = 0xF000
"""The epoch of sending at which it is time for a new key, as in OpenVPN."""

FUTURE_EPOCHS: Final = 16
"""Epochs to come that a receiver is ready for, as in OpenVPN."""

LAST_EPOCH: Final = EPOCH_MAX - FUTURE_EPOCHS - 1
"""The last that a receiver goes on to, and so the last to send in."""

BLOCK_SIZE: Final = 16
"""Bytes of a block of AES."""

UNLIMITED: Final = (1 << 64) - 1

USAGE_MAX: Final = {Cipher.AES_GCM: (1 << 36) - 1, Cipher.CHACHA20_POLY1305: UNLIMITED}
"""Packets and begun blocks of payload, together, that one key may seal."""

USAGE_WARNING: Final = {Cipher.AES_GCM: USAGE_MAX[Cipher.AES_GCM] // 8 * 7, Cipher.CHACHA20_POLY1305: UNLIMITED}

FORGERIES_MAX: Final = 1 << 36
"""Packets that may fail to open with one key; after one more it opens nothing."""

FORGERIES_WARNING: Final = 1 << 35


def usage_of(payload_size: int) -> int:
    """What a packet with a payload of this many bytes uses up: itself, and its blocks."""
    return 1 + (payload_size + BLOCK_SIZE - 1) // BLOCK_SIZE
