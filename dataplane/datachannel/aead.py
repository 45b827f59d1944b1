"""A data key: seals and opens DATA_V2 packets, and counts the packet-ids of both directions.

Knows the AEAD ciphers, the nonce and its uniqueness: a packet-id is used up before it is used, and after 0xFFFFFFFF, or
where its cipher may be used no more (key_limits.py), the key seals no more. Must not know peers, slots or what a
payload means. Layout: wire.py.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from dataplane.datachannel.key_direction import KeyDirection
from dataplane.datachannel.key_limits import (
    FORGERIES_MAX,
    FORGERIES_WARNING,
    PACKET_ID_WARNING,
    UNLIMITED,
    USAGE_MAX,
    USAGE_WARNING,
    usage_of,
)
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
from dataplane.vocabulary import Cipher, DropReason, KeyLimit

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
        "_forgery_warning",
        "_packet_id_warning",
        "_usage_max",
        "_usage_warning",
        "cipher",
        "forged",
        "key_id",
        "replay_window",
        "sent",
        "usage",
    )

    def __init__(self, key_id: int, cipher: Cipher, encrypt_dir: KeyDirection, decrypt_dir: KeyDirection) -> None:
        """Raises ValueError for a key_id outside 0..7 or material of a wrong length."""
        if not 0 <= key_id <= KEY_ID_MAX:
            raise ValueError(f"key_id {key_id} is not in 0..{KEY_ID_MAX}")
        self.key_id = key_id
        self.cipher = cipher
        self.sent = 0
        """Packet-ids used for sealing so far, which is also the last one used."""
        self.usage = 0
        """Packets and blocks sealed so far, together."""
        self.forged = 0
        """Packets that did not open so far."""
        self.replay_window = ReplayWindow()
        self._usage_max = USAGE_MAX[cipher]
        # From where on a warning is due; UNLIMITED once it was given.
        self._packet_id_warning = PACKET_ID_WARNING
        self._usage_warning = USAGE_WARNING[cipher]
        self._forgery_warning = FORGERIES_WARNING
        self._first_word = first_word(key_id, peer_id=0)
        self._encrypt = _aead(cipher, encrypt_dir).encrypt
        self._encrypt_nonce_tail = encrypt_dir.nonce_tail
        self._decrypt = _aead(cipher, decrypt_dir).decrypt
        self._decrypt_nonce_tail = decrypt_dir.nonce_tail

    def __repr__(self) -> str:
        return f"DataKey(key_id={self.key_id}, cipher={self.cipher.name}, sent={self.sent})"

    def seal(self, peer_id: int, payload: bytes) -> bytes | None:
        """The DATA_V2 packet to peer_id (0..0xFFFFFF) with this payload; None when the key is used up."""
        packet_id = self.sent + 1
        usage = self.usage + usage_of(len(payload))
        if packet_id > PACKET_ID_MAX or usage > self._usage_max:
            return None
        self.sent = packet_id
        self.usage = usage
        head = HEAD.pack(self._first_word | peer_id, packet_id)
        sealed = self._encrypt(head[4:] + self._encrypt_nonce_tail, payload, head)
        # The AEAD appends the tag, DATA_V2 has it in front.
        return head + sealed[-TAG_SIZE:] + sealed[:-TAG_SIZE]

    @property
    def end(self) -> DropReason:
        """Why seal() gave None."""
        return DropReason.TX_PACKET_ID_EXHAUSTED if self.sent == PACKET_ID_MAX else DropReason.TX_USAGE_LIMIT

    def take_warning(self) -> KeyLimit | None:
        """A limit that the key has come near of; each is told once."""
        if self.sent >= self._packet_id_warning:
            self._packet_id_warning = UNLIMITED
            return KeyLimit.PACKET_IDS
        if self.usage >= self._usage_warning:
            self._usage_warning = UNLIMITED
            return KeyLimit.AEAD_USAGE
        if self.forged >= self._forgery_warning:
            self._forgery_warning = UNLIMITED
            return KeyLimit.FORGERIES
        return None

    def refusal(self, _datagram: bytes) -> DropReason | None:
        """Why this DATA_V2 packet of at least 24 bytes need not be opened; None: it may be."""
        return DropReason.RX_FORGERY_LIMIT if self.forged > FORGERIES_MAX else None

    def packet_id_of(self, datagram: bytes) -> int:
        """The packet-id of a packet of at least 24 bytes."""
        return int.from_bytes(datagram[4:HEAD_SIZE], "big")

    def accept(self, packet_id: int, now_ns: int) -> DropReason | None:
        """Takes the packet-id of a packet that was opened; None if it is accepted, else why not."""
        return self.replay_window.accept(packet_id, now_ns)

    def open(self, datagram: bytes) -> bytes | None:
        """The payload of a DATA_V2 packet of at least 24 bytes; None if it is not authentic.

        Leaves the replay window alone: that is the next question about an authentic packet.
        """
        head = datagram[:HEAD_SIZE]
        sealed = datagram[OVERHEAD:] + datagram[HEAD_SIZE:OVERHEAD]
        try:
            return self._decrypt(head[4:] + self._decrypt_nonce_tail, sealed, head)
        except InvalidTag:
            self.forged += 1
            return None


def _aead(cipher: Cipher, direction: KeyDirection) -> AESGCM | ChaCha20Poly1305:
    if len(direction.cipher_key) not in cipher.key_lengths:
        raise ValueError(f"{cipher.name} has no key of {len(direction.cipher_key)} bytes")
    if len(direction.nonce_tail) != NONCE_TAIL_SIZE:
        raise ValueError(f"a nonce tail of {len(direction.nonce_tail)} bytes instead of {NONCE_TAIL_SIZE}")
    return AESGCM(direction.cipher_key) if cipher is Cipher.AES_GCM else ChaCha20Poly1305(direction.cipher_key)
