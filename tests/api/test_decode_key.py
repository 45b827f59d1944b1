"""What the engine is asked for by KeyService's requests."""

from __future__ import annotations

import pytest
from ovpn.dataplane.v1 import common_pb2, key_pb2

from dataplane.api import decode_key
from dataplane.api.violations import InvalidRequest
from dataplane.vocabulary import Cipher, DataFormat, KeySlot
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


def epoch_message(**changes: object) -> key_pb2.InstallKeyRequest:
    """key_message() in the format EPOCH; changes: fields of encrypt."""
    encrypt = {"epoch_secret": ENCRYPT_KEY, "cipher_key_length": 16, **changes}
    return key_pb2.InstallKeyRequest(
        device="d",
        peer_id=1,
        slot=common_pb2.KEY_SLOT_PRIMARY,
        key_id=3,
        cipher=common_pb2.CIPHER_AES_GCM,
        encrypt=key_pb2.KeyDirection(**encrypt),  # type: ignore[arg-type]
        decrypt=key_pb2.KeyDirection(epoch_secret=DECRYPT_KEY, cipher_key_length=16),
        data_format=key_pb2.DATA_FORMAT_EPOCH,
    )


def test_epoch_secrets_are_decoded_with_the_length_of_their_keys() -> None:
    spec = decode_key.decode_installation(epoch_message())
    assert (spec.data_format, spec.key_length) == (DataFormat.EPOCH, 16)
    is_right = (spec.encrypt_key, spec.decrypt_key) == (ENCRYPT_KEY, DECRYPT_KEY)
    assert is_right
    assert (spec.encrypt_nonce_tail, spec.decrypt_nonce_tail) == (b"", b"")
    assert not shows_secrets(repr(spec))


def test_format_is_data_v2_unless_another_is_named() -> None:
    spec = decode_key.decode_installation(key_message())
    assert (spec.data_format, spec.key_length) == (DataFormat.DATA_V2, 32)
    assert decode_key.decode_installation(key_message(data_format=1)).data_format is DataFormat.DATA_V2


@pytest.mark.parametrize(
    ("request_", "field", "description"),
    [
        (epoch_message(epoch_secret=ENCRYPT_KEY[:31]), "encrypt.epoch_secret", "must be 32 bytes; is 31"),
        (epoch_message(epoch_secret=b""), "encrypt.epoch_secret", "must be 32 bytes; is 0"),
        (epoch_message(cipher_key=ENCRYPT_KEY), "encrypt.cipher_key", "must be empty in data_format EPOCH"),
        (epoch_message(nonce_tail=ENCRYPT_TAIL), "encrypt.nonce_tail", "must be empty in data_format EPOCH"),
        (
            epoch_message(cipher_key_length=20),
            "encrypt.cipher_key_length",
            "must be 16 or 24 or 32 bytes for AES_GCM; is 20",
        ),
        (
            epoch_message(cipher_key_length=24),
            "decrypt.cipher_key_length",
            "must be as long as encrypt.cipher_key_length, 24 bytes",
        ),
        (
            key_message(encrypt__epoch_secret=ENCRYPT_KEY),
            "encrypt.epoch_secret",
            "must be empty but in data_format EPOCH",
        ),
        (
            key_message(encrypt__cipher_key_length=32),
            "encrypt.cipher_key_length",
            "must be 0 but in data_format EPOCH",
        ),
    ],
)
def test_material_of_the_other_format_is_refused(
    request_: key_pb2.InstallKeyRequest, field: str, description: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode_key.decode_installation(request_)
    (violation,) = raised.value.violations
    assert (violation.field, violation.description) == (field, description)


def test_format_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode_key.decode_installation(key_message(data_format=3))
    assert [violation.field for violation in raised.value.violations] == ["data_format"]


def test_a_slot_is_named_by_device_peer_and_slot() -> None:
    request = key_pb2.GetKeyRequest(device="d", peer_id=0, slot=common_pb2.KEY_SLOT_PRIMARY)
    assert decode_key.decode_slot(request) == ("d", 0, KeySlot.PRIMARY)
