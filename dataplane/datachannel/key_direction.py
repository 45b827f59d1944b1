"""Secret material of a key, as a command brings it.

Knows its parts and their lengths. Must not know what is done with it: that is the data key's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dataplane.vocabulary import Cipher

EPOCH_SECRET_SIZE: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class KeyDirection:
    """Secret material of one direction: cipher_key as Cipher.key_lengths says, nonce_tail of 8 bytes."""

    cipher_key: bytes = field(repr=False)
    nonce_tail: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class EpochSecret:
    """Secret material of one direction in the format EPOCH: the secret of its first epoch, of 32 bytes.

    key_length: of the cipher keys to derive, in bytes, as Cipher.key_lengths says. epoch: the first, 1..65518; only
    tests begin with another than 1.
    """

    secret: bytes = field(repr=False)
    key_length: int
    epoch: int = 1

    def check(self, cipher: Cipher) -> None:
        """Raises ValueError for a wrong length."""
        if self.key_length not in cipher.key_lengths:
            raise ValueError(f"{cipher.name} has no key of {self.key_length} bytes")
        if len(self.secret) != EPOCH_SECRET_SIZE:
            raise ValueError(f"an epoch secret of {len(self.secret)} bytes instead of {EPOCH_SECRET_SIZE}")
