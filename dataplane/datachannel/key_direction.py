"""Secret material of a key, as a command brings it.

Knows its two parts. Must not know ciphers: that is the data key's.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class KeyDirection:
    """Secret material of one direction: cipher_key as Cipher.key_lengths says, nonce_tail of 8 bytes."""

    cipher_key: bytes = field(repr=False)
    nonce_tail: bytes = field(repr=False)
