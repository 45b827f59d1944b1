"""Which keys were installed since the daemon began, so that none is installed twice.

A key that comes a second time begins with packet-id 1 again: it would seal with nonces that were used, which gives away
what AES-GCM protects, and open packets that were replayed. The kernel's drivers do not notice. Knows keyed hashes only,
from which nobody can tell a key. Must not know devices, peers or slots: a key is used up for all of them.

Bounded: of each direction the newest REMEMBERED keys are known, some 150 bytes each; of 4,096 peers that
rekey once an hour, those of the last 16 hours.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from dataplane.engine import errors
from dataplane.engine.types import KeySpec

REMEMBERED: Final = 65_536
"""Keys of which each direction is remembered; the oldest are forgotten."""

_HASH_BYTES: Final = 16
_HASH_KEY_BYTES: Final = 32


class KeyHistory:
    """The keys installed so far, by any device. remembered: how many, 1 at least."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._hash_key = secrets.token_bytes(_HASH_KEY_BYTES)
        self._encrypt: dict[bytes, None] = {}  # in the order they came
        self._decrypt: dict[bytes, None] = {}

    def record(self, spec: KeySpec) -> None:
        """Takes note of a key that is about to be installed.

        Raises EngineError KEY_REUSE, and takes no note, if either direction of it was installed before in the same
        direction. (The two ends of a tunnel may be of one daemon: what one seals with, the other opens with.)
        """
        encrypt = self._hash(spec.encrypt_key, spec.encrypt_nonce_tail)
        decrypt = self._hash(spec.decrypt_key, spec.decrypt_nonce_tail)
        if encrypt in self._encrypt:
            raise errors.key_reuse(spec.device, spec.peer_id, "encrypt")
        if decrypt in self._decrypt:
            raise errors.key_reuse(spec.device, spec.peer_id, "decrypt")
        self._remember(self._encrypt, encrypt)
        self._remember(self._decrypt, decrypt)

    def _hash(self, cipher_key: bytes, nonce_tail: bytes) -> bytes:
        # A secret of the format EPOCH has no tail; with its length in front no two pairs are the same bytes.
        material = bytes([len(nonce_tail)]) + nonce_tail + cipher_key
        return hashlib.blake2b(material, key=self._hash_key, digest_size=_HASH_BYTES).digest()

    def _remember(self, known: dict[bytes, None], digest: bytes) -> None:
        known[digest] = None
        if len(known) > self._remembered:
            del known[next(iter(known))]
