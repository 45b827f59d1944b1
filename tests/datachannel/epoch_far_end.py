"""The other end of a key of the format EPOCH: derivation and layout written a second time, on HMAC and bare AEADs."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from dataplane.datachannel.epoch import EpochKey
from dataplane.datachannel.key_direction import EpochSecret
from dataplane.vocabulary import Cipher

SUITES = (
    (Cipher.AES_GCM, 16),
    (Cipher.AES_GCM, 24),
    (Cipher.AES_GCM, 32),
    (Cipher.CHACHA20_POLY1305, 32),
)


def expand(secret: bytes, label: bytes, length: int) -> bytes:
    """RFC 5869, 2.3, with N = 1."""
    info = bytes([0, length, 5 + len(label)]) + b"ovpn " + label + b"\0"
    return hmac.new(secret, info + b"\1", hashlib.sha256).digest()[:length]


class EpochFarEnd:
    """Seals and opens in whatever epoch it is told; keeps no state but its secrets."""

    def __init__(self, epoch_key: type[EpochKey], suite: int = 2, key_id: int = 0, first: int = 1) -> None:
        """first: the epoch that both directions begin with."""
        self.cipher, self.length = SUITES[suite]
        self.key_id = key_id
        self._first = first
        material = hashlib.shake_256(b"epoch").digest(64)
        self._to_us, self._from_us = material[:32], material[32:]
        self._epoch_key = epoch_key

    @property
    def secrets(self) -> tuple[bytes, bytes]:
        """Of our end: what we send with, what we receive with."""
        return self._from_us, self._to_us

    def data_key(self) -> EpochKey:
        """Our end of the same key, fresh."""
        secrets = (EpochSecret(secret, self.length, self._first) for secret in (self._from_us, self._to_us))
        return self._epoch_key(self.key_id, self.cipher, *secrets)

    def seal(self, payload: bytes, epoch: int, counter: int, *, peer_id: int = 1) -> bytes:
        """A packet to us."""
        head = bytes([9 << 3 | self.key_id]) + peer_id.to_bytes(3, "big")
        head += epoch.to_bytes(2, "big") + counter.to_bytes(6, "big")
        aead, nonce = self._of_epoch(self._to_us, epoch, head)
        return head + aead.encrypt(nonce, payload, head)

    def open(self, datagram: bytes) -> tuple[int, int, int, bytes]:
        """peer_id, epoch, counter and payload of a packet from us."""
        head = datagram[:12]
        assert head[0] == 9 << 3 | self.key_id
        epoch, counter = int.from_bytes(head[4:6], "big"), int.from_bytes(head[6:], "big")
        aead, nonce = self._of_epoch(self._from_us, epoch, head)
        return int.from_bytes(head[1:4], "big"), epoch, counter, aead.decrypt(nonce, datagram[12:], head)

    def _of_epoch(self, secret: bytes, epoch: int, head: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
        for _ in range(self._first, epoch):
            secret = expand(secret, b"datakey upd", 32)
        key = expand(secret, b"data_key", self.length)
        mask = int.from_bytes(head[4:] + bytes(4), "big")
        nonce = (int.from_bytes(expand(secret, b"data_iv", 12), "big") ^ mask).to_bytes(12, "big")
        return AESGCM(key) if self.cipher is Cipher.AES_GCM else ChaCha20Poly1305(key), nonce
