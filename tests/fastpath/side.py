"""A device of one implementation of the data channel, which tells all that can be seen of it, and what its peers seal.

Whatever differs between two of them is a fault (test_channel.py).
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from dataplane.datachannel.key_direction import KeyDirection
from dataplane.datachannel.outcomes import PeerExists, UnknownPeer
from dataplane.datachannel.wire import PACKET_ID_MAX
from dataplane.vocabulary import ROW_WORDS, Cipher, Mode
from tests.datachannel.implementations import Implementation


def cipher_of(secret: int) -> Cipher:
    return Cipher.CHACHA20_POLY1305 if secret else Cipher.AES_GCM


def material(key_id: int, secret: int) -> KeyDirection:
    """One for both directions: no packet comes back here."""
    return KeyDirection(hashlib.sha256(bytes([key_id, secret])).digest(), bytes([key_id, secret]) * 4)


def seal(head: bytes, key_id: int, secret: int, payload: bytes) -> bytes:
    direction = material(key_id, secret)
    aead = (ChaCha20Poly1305 if secret else AESGCM)(direction.cipher_key)
    sealed = aead.encrypt(head[4:] + direction.nonce_tail, payload, head)
    return head + sealed[-16:] + sealed[:-16]


class Side:
    """A device of one implementation, which tells everything in words that both have."""

    def __init__(self, implementation: Implementation, mode: Mode) -> None:
        self.implementation = implementation
        self.device_row = array("Q", bytes(8 * ROW_WORDS))
        self.channel = implementation.data_channel(mode, self.device_row)
        self.peers: list[Any] = []  # all there ever were

    def do(self, call: Callable[[Side], object]) -> object:
        """What a call gives or raises."""
        try:
            return call(self)
        except (UnknownPeer, PeerExists) as error:
            return type(error), str(error)

    def add_peer(self, now_ns: int, **fields: Any) -> None:
        row = array("Q", bytes(8 * ROW_WORDS))
        peer = self.implementation.peer(uid=len(self.peers), row=row, **fields)
        self.peers.append(peer)
        self.channel.add_peer(peer, now_ns)

    def key(self, key_id: int, secret: int, left: int | None) -> Any:
        direction = material(key_id, secret)
        key = self.implementation.data_key(key_id, cipher_of(secret), direction, direction)
        if left is not None:
            key.sent = PACKET_ID_MAX - left
        return key

    def events(self) -> list[tuple[object, ...]]:
        taken = self.channel.take_events()
        return [(type(event), event.peer.uid, getattr(event, "key_id", None)) for event in taken]

    def timers(self, now_ns: int) -> tuple[object, ...]:
        due = self.channel.run_timers(now_ns)
        return of_peers(due.keepalives), [peer.uid for peer in due.expired]

    def looks(self) -> list[object]:
        """All that can be seen from outside."""
        looks: list[object] = [self.channel.next_deadline_ns(), self.device_row]
        for peer in self.peers:
            slots = peer.keys.primary, peer.keys.secondary, peer.keys.lingering
            keys = [key and (key.key_id, key.cipher, key.sent) for key in slots]
            looks.append((repr(peer), peer.peer_id, peer.socket_id, peer.remote, peer.local, peer.row, keys))
            looks.append(peer.keys.linger_end_ns())
            looks.append((peer.vpn_ipv4, peer.vpn_ipv6, peer.asked, peer.send_at_ns(), peer.expire_at_ns()))
        return looks


def of_peers(packets: Sequence[tuple[Any, bytes]]) -> list[tuple[int, bytes]]:
    return [(peer.uid, packet) for peer, packet in packets]
