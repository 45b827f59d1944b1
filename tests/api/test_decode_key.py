"""What the engine is asked for by KeyService's requests."""

from __future__ import annotations

import pytest
from ovpn.dataplane.v1 import common_pb2, key_pb2

from dataplane.api import decode_key
from dataplane.api.violations import InvalidRequest
from dataplane.vocabulary import Cipher, KeySlot
from tests.api.conftest import DECRYPT_KEY, DECRYPT_TAIL, ENCRYPT_KEY, ENCRYPT_TAIL, key_message, shows_secrets


def test_each_direction_gets_its_own_key_and_tail() -> None:
    spec = decode_key.decode_installation(key_message(slot=common_pb2.KEY_SLOT_SECONDARY))
    assert (spec.device, spec.peer_id, spec.slot, spec.key_id, spec.cipher) == (
        "d",
        1,
        KeySlot.SECONDARY,
        3,
        Cipher.AES_GCM,
    )
    is_right = (spec.encrypt_key, spec.encrypt_nonce_tail, spec.decrypt_key, spec.decrypt_nonce_tail) == (
        ENCRYPT_KEY,
        ENCRYPT_TAIL,
        DECRYPT_KEY,
        DECRYPT_TAIL,
    )
    assert is_right
    assert not shows_secrets(repr(spec))


def test_directions_of_different_length_are_refused_by_length_only() -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode_key.decode_installation(key_message(decrypt__cipher_key=DECRYPT_KEY[:16]))
    (violation,) = raised.value.violations
    assert violation.field == "decrypt.cipher_key"
    assert violation.description == "must be as long as encrypt.cipher_key, 32 bytes"


def test_a_wrong_length_is_told_with_those_that_the_cipher_takes() -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode_key.decode_installation(key_message(encrypt__cipher_key=ENCRYPT_KEY[:5]))
    assert raised.value.violations[0].description == "must be 16 or 24 or 32 bytes for AES_GCM; is 5"


def test_a_slot_is_named_by_device_peer_and_slot() -> None:
    request = key_pb2.GetKeyRequest(device="d", peer_id=0, slot=common_pb2.KEY_SLOT_PRIMARY)
    assert decode_key.decode_slot(request) == ("d", 0, KeySlot.PRIMARY)
