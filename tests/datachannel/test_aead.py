"""Sealing and opening with one data key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher as RawCipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.key_direction import KeyDirection
from dataplane.datachannel.wire import KEEPALIVE, PACKET_ID_MAX
from dataplane.vocabulary import Cipher

if TYPE_CHECKING:
    from tests.datachannel.conftest import Maker

SUITES = st.integers(0, 3)
PEER_IDS = st.integers(0, 0xFFFFFF)
KEY_IDS = st.integers(0, 7)


def direction(length: int, first: int) -> KeyDirection:
    """Counting bytes: the key from `first` on, the tail from 0xF0 on."""
    return KeyDirection(bytes(range(first, first + length)), bytes(range(0xF0, 0xF8)))


# A keepalive for peer_id 0x00ABCD, key_id 3, packet-id 1; computed from the specifications alone: RFC 8439 and
# NIST SP 800-38D (over the AES block cipher).
KNOWN_ANSWERS = [
    (Cipher.AES_GCM, 16, "4b00abcd0000000150c61d6e8e3ebdfc58d9190c7155e32fc7971cc4fcfc2f7998c9c968a4a3908f"),
    (Cipher.AES_GCM, 24, "4b00abcd00000001d9e8d790e722fb876f14d2abc9765b7b2ab95ea351928be853d6f087dbb80d67"),
    (Cipher.AES_GCM, 32, "4b00abcd000000011335a95c5d4e4272a9941717199c2f2019964255b704c6864f4d774c1fba3b0e"),
    (Cipher.CHACHA20_POLY1305, 32, "4b00abcd000000017f95e7b5751db2fa32aabb824b89ca7ab24d710ec44cdd27ca786d5f8c8e4e18"),
]


@pytest.mark.parametrize(("cipher", "length", "datagram"), KNOWN_ANSWERS)
def test_keepalive_seals_to_the_known_packet(make: Maker, cipher: Cipher, length: int, datagram: str) -> None:
    key = make.implementation.data_key(3, cipher, direction(length, 0x00), direction(length, 0x40))
    sealed = key.seal(0x00ABCD, KEEPALIVE)
    assert sealed is not None
    assert sealed.hex() == datagram


@pytest.mark.parametrize(("cipher", "length", "datagram"), KNOWN_ANSWERS)
def test_known_packet_opens_to_the_keepalive(make: Maker, cipher: Cipher, length: int, datagram: str) -> None:
    key = make.implementation.data_key(3, cipher, direction(length, 0x40), direction(length, 0x00))
    assert key.open(bytes.fromhex(datagram)) == KEEPALIVE


def test_aes_gcm_agrees_with_the_bare_mode_of_operation(make: Maker) -> None:
    key = make.implementation.data_key(1, Cipher.AES_GCM, direction(32, 0x00), direction(32, 0x40))
    encryptor = RawCipher(AES(bytes(range(32))), GCM(bytes.fromhex("00000001f0f1f2f3f4f5f6f7"))).encryptor()
    encryptor.authenticate_additional_data(bytes.fromhex("4900000900000001"))
    ciphertext = encryptor.update(b"payload") + encryptor.finalize()
    assert key.seal(9, b"payload") == bytes.fromhex("4900000900000001") + encryptor.tag + ciphertext


@given(suite=SUITES, key_id=KEY_IDS, peer_id=PEER_IDS, payloads=st.lists(st.binary(max_size=2000), max_size=5))
def test_far_end_opens_what_is_sealed(
    make: Maker, suite: int, key_id: int, peer_id: int, payloads: list[bytes]
) -> None:
    far = make.far_end(suite, key_id)
    key = far.data_key()
    for count, payload in enumerate(payloads, start=1):
        datagram = key.seal(peer_id, payload)
        assert datagram is not None
        assert len(datagram) == len(payload) + 24
        assert far.open(datagram) == (peer_id, count, payload)


@given(
    suite=SUITES,
    key_id=KEY_IDS,
    peer_id=PEER_IDS,
    packet_id=st.integers(0, PACKET_ID_MAX),
    payload=st.binary(max_size=2000),
)
def test_what_the_far_end_sealed_opens(
    make: Maker, suite: int, key_id: int, peer_id: int, packet_id: int, payload: bytes
) -> None:
    far = make.far_end(suite, key_id)
    assert far.data_key().open(far.seal(payload, peer_id=peer_id, packet_id=packet_id)) == payload


@given(suite=SUITES, payload=st.binary(max_size=200), data=st.data())
def test_changed_packet_never_opens(make: Maker, suite: int, payload: bytes, data: st.DataObject) -> None:
    far = make.far_end(suite)
    datagram = bytearray(far.seal(payload))
    position = data.draw(st.integers(0, len(datagram) - 1))
    datagram[position] ^= data.draw(st.integers(1, 255))
    assert far.data_key().open(bytes(datagram)) is None


@given(suite=SUITES, payload=st.binary(min_size=1, max_size=200), data=st.data())
def test_shortened_packet_never_opens(make: Maker, suite: int, payload: bytes, data: st.DataObject) -> None:
    far = make.far_end(suite)
    length = data.draw(st.integers(24, 23 + len(payload)))
    assert far.data_key().open(far.seal(payload)[:length]) is None


@given(datagram=st.binary(min_size=24, max_size=200))
def test_random_bytes_never_open(make: Maker, datagram: bytes) -> None:
    assert make.far_end().data_key().open(datagram) is None


def test_key_does_not_open_its_own_packets(make: Maker) -> None:
    key = make.far_end().data_key()
    datagram = key.seal(1, b"payload")
    assert datagram is not None
    assert key.open(datagram) is None


def test_sent_counts_packet_ids_from_one(make: Maker) -> None:
    far = make.far_end()
    key = far.data_key()
    assert key.sent == 0
    assert far.open(key.seal(1, b"") or b"")[1] == 1
    assert far.open(key.seal(1, b"") or b"")[1] == 2
    assert key.sent == 2


def test_last_packet_id_is_used_and_none_after_it(make: Maker) -> None:
    far = make.far_end()
    key = far.data_key()
    key.sent = PACKET_ID_MAX - 1
    assert far.open(key.seal(1, b"last") or b"") == (1, PACKET_ID_MAX, b"last")
    assert key.seal(1, b"one too many") is None
    assert key.seal(1, b"still") is None
    assert key.sent == PACKET_ID_MAX


def test_packet_id_of_a_failed_seal_is_not_used_again() -> None:
    """Of the readable key only: what is no payload never gets as far in the compiled one."""
    key = DataKey(0, Cipher.AES_GCM, direction(32, 0x00), direction(32, 0x40))
    with pytest.raises(TypeError):
        key.seal(1, "text")  # type: ignore[arg-type]
    assert key.sent == 1


@pytest.mark.parametrize("key_id", [-1, 8])
def test_key_id_beyond_three_bits_is_refused(make: Maker, key_id: int) -> None:
    with pytest.raises(ValueError, match="key_id"):
        make.implementation.data_key(key_id, Cipher.AES_GCM, direction(32, 0), direction(32, 0))


@pytest.mark.parametrize(
    ("cipher", "length"), [(Cipher.AES_GCM, 0), (Cipher.AES_GCM, 31), (Cipher.CHACHA20_POLY1305, 16)]
)
def test_cipher_key_of_wrong_length_is_refused_in_either_direction(make: Maker, cipher: Cipher, length: int) -> None:
    with pytest.raises(ValueError, match=f"no key of {length} bytes"):
        make.implementation.data_key(0, cipher, direction(length, 0), direction(32, 0))
    with pytest.raises(ValueError, match=f"no key of {length} bytes"):
        make.implementation.data_key(0, cipher, direction(32, 0), direction(length, 0))


def test_nonce_tail_of_wrong_length_is_refused(make: Maker) -> None:
    with pytest.raises(ValueError, match="nonce tail of 12 bytes"):
        make.implementation.data_key(0, Cipher.AES_GCM, direction(32, 0), KeyDirection(bytes(32), bytes(12)))


def test_representations_show_no_secret(make: Maker) -> None:
    material = KeyDirection(b"K" * 32, b"T" * 8)
    assert repr(material) == "KeyDirection()"
    assert (
        repr(make.implementation.data_key(2, Cipher.AES_GCM, material, material))
        == "DataKey(key_id=2, cipher=AES_GCM, sent=0)"
    )
