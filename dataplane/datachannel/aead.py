"""A data key: seals and opens DATA_V2 packets, and counts the packet-ids of both directions.

Knows the AEAD ciphers, the nonce and its uniqueness: a packet-id is used up before it is used, and after
0xFFFFFFFF the key seals no more. Must not know peers, slots or what a payload means. Layout: wire.py.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from dataplane.datachannel.key_direction import KeyDirection
from dataplane.datachannel.replay_window import ReplayWindow
from dataplane.datachannel.wire import (
    HEAD,
    HEAD_SIZE,
    KEY_ID_MAX,
    NONCE_TAIL_SIZE,
    OVERHEAD,
    PACKET_ID_MAX,
    TAG_SIZE,
    first_word,
)
from dataplane.vocabulary import Cipher

__all__ = ["DataKey", "KeyDirection"]


class DataKey:
    """One key of a peer, with an AEAD, a nonce tail and packet-ids for each direction.

    Fresh: sealing begins with packet-id 1 and the replay window is empty.
    """

    __slots__ = (
        "_decrypt",
        "_decrypt_nonce_tail",
        "_encrypt",
        "_encrypt_nonce_tail",
        "_first_word",
        "cipher",
        "key_id",
        "replay_window",
        "sent",
    )

    def __init__(self, key_id: int, cipher: Cipher, encrypt_dir: KeyDirection, decrypt_dir: KeyDirection) -> None:
        """Raises ValueError for a key_id outside 0..7 or material of a wrong length."""
        if not 0 <= key_id <= KEY_ID_MAX:
            raise ValueError(f"key_id {key_id} is not in 0..{KEY_ID_MAX}")
        self.key_id = key_id
        self.cipher = cipher
        self.sent = 0
        """Packet-ids used for sealing so far, which is also the last one used."""
        self.replay_window = ReplayWindow()
        self._first_word = first_word(key_id, peer_id=0)
        self._encrypt = _aead(cipher, encrypt_dir).encrypt
        self._encrypt_nonce_tail = encrypt_dir.nonce_tail
        self._decrypt = _aead(cipher, decrypt_dir).decrypt
        self._decrypt_nonce_tail = decrypt_dir.nonce_tail

    def __repr__(self) -> str:
        return f"DataKey(key_id={self.key_id}, cipher={self.cipher.name}, sent={self.sent})"

    def seal(self, peer_id: int, payload: bytes) -> bytes | None:
        """The DATA_V2 packet to peer_id (0..0xFFFFFF) with this payload; None when no packet-id is left."""
        packet_id = self.sent + 1
        if packet_id > PACKET_ID_MAX:
            return None
        self.sent = packet_id
        head = HEAD.pack(self._first_word | peer_id, packet_id)
        sealed = self._encrypt(head[4:] + self._encrypt_nonce_tail, payload, head)
        # The AEAD appends the tag, DATA_V2 has it in front.
        return head + sealed[-TAG_SIZE:] + sealed[:-TAG_SIZE]

    def open(self, datagram: bytes) -> bytes | None:
        """The payload of a DATA_V2 packet of at least 24 bytes; None if it is not authentic.

        Leaves the replay window alone: that is the next question about an authentic packet.
        """
        head = datagram[:HEAD_SIZE]
        sealed = datagram[OVERHEAD:] + datagram[HEAD_SIZE:OVERHEAD]
        try:
            return self._decrypt(head[4:] + self._decrypt_nonce_tail, sealed, head)
        except InvalidTag:
            return None


def _aead(cipher: Cipher, direction: KeyDirection) -> AESGCM | ChaCha20Poly1305:
    if len(direction.cipher_key) not in cipher.key_lengths:
        raise ValueError(f"{cipher.name} has no key of {len(direction.cipher_key)} bytes")
    if len(direction.nonce_tail) != NONCE_TAIL_SIZE:
        raise ValueError(f"a nonce tail of {len(direction.nonce_tail)} bytes instead of {NONCE_TAIL_SIZE}")
    return AESGCM(direction.cipher_key) if cipher is Cipher.AES_GCM else ChaCha20Poly1305(direction.cipher_key)
