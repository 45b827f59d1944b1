"""A data key of OpenVPN 2.7's format with epochs: seals and opens packets, and goes on to the next epoch by itself.

Knows how the keys of an epoch are derived and when the next one begins. Must not know peers, slots or what a payload
means. Layout: wire.py, "EPOCH". Each direction begins with a secret of epoch 1, and everything follows from that:

    E(n + 1) = expand(E(n), "datakey upd", 32)
    cipher key of epoch n = expand(E(n), "data_key", its length)
    implicit IV of epoch n = expand(E(n), "data_iv", 12)

expand is HKDF-Expand (RFC 5869) with SHA-256 and the info of TLS 1.3's HKDF-Expand-Label (RFC 8446, 7.1), but for the
prefix "ovpn " and an empty context: length (2 bytes) || length of the label with its prefix (1) || label || 0.

A sender begins the next epoch when the cipher may seal no more, when its counter ends, or when half the forgeries that
a key withstands came in the same epoch. A receiver opens the current epoch, the one before it, and 16 to come. When an
authentic packet of one of those comes, that one is current, and what we send is of an epoch no older.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from dataplane.datachannel.key_direction import EPOCH_SECRET_SIZE, EpochSecret
from dataplane.datachannel.key_limits import (
    EPOCH_WARNING,
    FORGERIES_MAX,
    FORGERIES_WARNING,
    FUTURE_EPOCHS,
    LAST_EPOCH,
    UNLIMITED,
    USAGE_MAX,
    usage_of,
)
from dataplane.datachannel.replay_window import ReplayWindow
from dataplane.datachannel.wire import (
    COUNTER_MAX,
    EPOCH_HEAD,
    EPOCH_HEAD_SIZE,
    EPOCH_OVERHEAD,
    KEY_ID_MAX,
    NONCE_SIZE,
    first_word,
)
from dataplane.vocabulary import COUNTER_BITS, Cipher, DropReason, KeyLimit

_PREFIX: Final = b"ovpn "
_NO_CONTEXT: Final = b"\0"
_XORED: Final = 8
"""Bytes of the nonce that differ from packet to packet: epoch and counter."""


def expand(secret: bytes, label: bytes, length: int) -> bytes:
    """`length` bytes, 255 at most, out of the secret of an epoch."""
    full = _PREFIX + label
    info = length.to_bytes(2, "big") + bytes([len(full)]) + full + _NO_CONTEXT
    return HKDFExpand(SHA256(), length, info).derive(secret)


def next_secret(secret: bytes) -> bytes:
    """The secret of the epoch after this one's."""
    return expand(secret, b"datakey upd", EPOCH_SECRET_SIZE)


class _Epoch:
    """The key of one epoch and direction. forged: packets that did not open with it."""

    __slots__ = ("_aead", "_iv", "forged", "number", "window")

    def __init__(self, number: int, cipher: Cipher, secret: bytes, key_length: int) -> None:
        key = expand(secret, b"data_key", key_length)
        self.number = number
        self.window = ReplayWindow()
        self.forged = 0
        self._aead = AESGCM(key) if cipher is Cipher.AES_GCM else ChaCha20Poly1305(key)
        self._iv = expand(secret, b"data_iv", NONCE_SIZE)

    def encrypt(self, head: bytes, payload: bytes) -> bytes:
        return self._aead.encrypt(self._nonce(head), payload, head)

    def decrypt(self, head: bytes, sealed: bytes) -> bytes:
        return self._aead.decrypt(self._nonce(head), sealed, head)

    def _nonce(self, head: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(self._iv[:_XORED], head[-_XORED:], strict=True)) + self._iv[_XORED:]


class EpochKey:
    """One key of a peer in the format EPOCH; what it can do is what DataKey can.

    Fresh: both directions begin with epoch 1 and counter 1. A packet-id is epoch << 48 | counter.
    """

    __slots__ = (
        "_current",
        "_first_word",
        "_future",
        "_future_secret",
        "_key_length",
        "_packet_id_warning",
        "_retiring",
        "_send",
        "_send_secret",
        "cipher",
        "key_id",
        "sent",
        "usage",
    )

    def __init__(self, key_id: int, cipher: Cipher, encrypt_dir: EpochSecret, decrypt_dir: EpochSecret) -> None:
        """Raises ValueError for a key_id outside 0..7 or material of a wrong length."""
        if not 0 <= key_id <= KEY_ID_MAX:
            raise ValueError(f"key_id {key_id} is not in 0..{KEY_ID_MAX}")
        encrypt_dir.check(cipher)
        decrypt_dir.check(cipher)
        self.key_id = key_id
        self.cipher = cipher
        self.sent = encrypt_dir.epoch << COUNTER_BITS
        """The packet-id used last; counter 0 for none of its epoch."""
        self.usage = 0
        """Packets and blocks sealed so far in this epoch, together."""
        self._first_word = first_word(key_id, peer_id=0)
        self._packet_id_warning = EPOCH_WARNING << COUNTER_BITS
        self._key_length = encrypt_dir.key_length
        self._send_secret = encrypt_dir.secret
        self._send = _Epoch(encrypt_dir.epoch, cipher, encrypt_dir.secret, self._key_length)
        self._current = _Epoch(decrypt_dir.epoch, cipher, decrypt_dir.secret, self._key_length)
        self._retiring: _Epoch | None = None
        self._future: deque[_Epoch] = deque()
        self._future_secret = decrypt_dir.secret
        self._prepare_future()

    def __repr__(self) -> str:
        return f"EpochKey(key_id={self.key_id}, cipher={self.cipher.name}, sent={self.sent:#x})"

    @property
    def forged(self) -> int:
        """Packets of the epoch being received that did not open so far."""
        return self._current.forged

    @forged.setter
    def forged(self, packets: int) -> None:
        self._current.forged = packets

    @property
    def replay_window(self) -> ReplayWindow:
        """The packet-ids received in the current epoch."""
        return self._current.window

    def seal(self, peer_id: int, payload: bytes) -> bytes | None:
        """The packet to peer_id (0..0xFFFFFF) with this payload; None when the key is used up."""
        usage = self.usage + usage_of(len(payload))
        is_over = self.sent & COUNTER_MAX == COUNTER_MAX or usage > USAGE_MAX[self.cipher]
        is_attacked = self.forged >= FORGERIES_WARNING and self._send.number == self._current.number
        if (is_over or is_attacked) and self._send.number < LAST_EPOCH:
            self._send_in(self._send.number + 1)
            usage = usage_of(len(payload))
        elif is_over:
            return None
        self.sent += 1
        self.usage = usage
        head = EPOCH_HEAD.pack(self._first_word | peer_id, self.sent)
        return head + self._send.encrypt(head, payload)

    @property
    def end(self) -> DropReason:
        """Why seal() gave None: there is no epoch left."""
        return DropReason.TX_PACKET_ID_EXHAUSTED

    def take_warning(self) -> KeyLimit | None:
        """A limit that the key has come near of, which can be its epochs only; told once."""
        if self.sent >= self._packet_id_warning:
            self._packet_id_warning = UNLIMITED
            return KeyLimit.PACKET_IDS
        return None

    def refusal(self, datagram: bytes) -> DropReason | None:
        """Why this packet of at least 24 bytes need not be opened; None: it may be."""
        if len(datagram) < EPOCH_OVERHEAD:
            return DropReason.RX_TRUNCATED
        epoch = self._receiving(datagram)
        if epoch is None:
            return DropReason.RX_EPOCH_REJECTED
        return DropReason.RX_FORGERY_LIMIT if epoch.forged > FORGERIES_MAX else None

    def open(self, datagram: bytes) -> bytes | None:
        """The payload of a packet that refusal() has nothing against; None if it is not authentic.

        Changes no epoch and no replay window: that is accept()'s.
        """
        epoch = self._receiving(datagram)
        if epoch is None or len(datagram) < EPOCH_OVERHEAD:
            return None
        try:
            return epoch.decrypt(datagram[:EPOCH_HEAD_SIZE], datagram[EPOCH_HEAD_SIZE:])
        except InvalidTag:
            epoch.forged += 1
            return None

    def packet_id_of(self, datagram: bytes) -> int:
        """The packet-id of a packet of at least 28 bytes."""
        return int.from_bytes(datagram[4:EPOCH_HEAD_SIZE], "big")

    def accept(self, packet_id: int, now_ns: int) -> DropReason | None:
        """Takes the packet-id of a packet that was opened; None if it is accepted, else why not."""
        number = packet_id >> COUNTER_BITS
        if not packet_id & COUNTER_MAX:
            return DropReason.RX_PACKET_ID_ZERO
        if number > self._current.number:
            self._receive_in(number)
        if number == self._current.number:
            return self._current.window.accept(packet_id, now_ns)
        if self._retiring is not None and number == self._retiring.number:
            return self._retiring.window.accept(packet_id, now_ns)
        return DropReason.RX_EPOCH_REJECTED

    def _receiving(self, datagram: bytes) -> _Epoch | None:
        number = int.from_bytes(datagram[4:6], "big")
        ahead = number - self._current.number
        if ahead == 0:
            return self._current
        if self._retiring is not None and number == self._retiring.number:
            return self._retiring
        if 0 < ahead <= FUTURE_EPOCHS and number <= LAST_EPOCH:
            return self._future[ahead - 1]
        return None

    def _receive_in(self, number: int) -> None:
        """Makes one of the epochs to come the current one; we follow with what we send."""
        self._retiring = self._current
        while self._current.number < number:
            self._current = self._future.popleft()
        self._prepare_future()
        if self._send.number < number:
            self._send_in(number)

    def _prepare_future(self) -> None:
        while len(self._future) < FUTURE_EPOCHS:
            number = self._current.number + len(self._future) + 1
            self._future_secret = next_secret(self._future_secret)
            self._future.append(_Epoch(number, self.cipher, self._future_secret, self._key_length))

    def _send_in(self, number: int) -> None:
        for _ in range(self._send.number, number):
            self._send_secret = next_secret(self._send_secret)
        self._send = _Epoch(number, self.cipher, self._send_secret, self._key_length)
        self.sent = number << COUNTER_BITS
        self.usage = 0
