"""From the requests of KeyService to what the engine is asked for.

Knows the fields of each request and the lengths of keys. Must not know the engine's state, and never puts
key bytes into a description. Every function raises InvalidRequest with all violations at once.
"""

from __future__ import annotations

from typing import Final

from ovpn.dataplane.v1 import common_pb2, key_pb2

from dataplane.api import validation
from dataplane.api.enums import CIPHERS, DATA_FORMATS, KEY_SLOTS
from dataplane.api.violations import Violations
from dataplane.engine.types import KeySpec
from dataplane.vocabulary import LINGER_MAX_NS, Cipher, DataFormat, KeySlot

_MAX_KEY_ID: Final = 7
_NONCE_TAIL_BYTES: Final = 8
_EPOCH_SECRET_BYTES: Final = 32
_NS_PER_S: Final = 1_000_000_000


def decode_installation(request: key_pb2.InstallKeyRequest) -> KeySpec:
    """The key to install."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    peer_id = validation.read_peer_id(found, "peer_id", request.peer_id)
    slot = validation.read_enum(found, "slot", request.slot, KEY_SLOTS, common_pb2.KeySlot.Name)
    key_id = validation.read_number(found, "key_id", request.key_id, 0, _MAX_KEY_ID)
    cipher = validation.read_enum(found, "cipher", request.cipher, CIPHERS, common_pb2.Cipher.Name)
    data_format: DataFormat | None = DataFormat.DATA_V2
    if request.data_format != key_pb2.DATA_FORMAT_UNSPECIFIED:
        data_format = validation.read_enum(
            found, "data_format", request.data_format, DATA_FORMATS, key_pb2.DataFormat.Name
        )
    encrypt, decrypt = request.encrypt, request.decrypt
    check = _check_epochs if data_format is DataFormat.EPOCH else _check_direction
    encrypt_length = check(found.under("encrypt"), encrypt, cipher)
    decrypt_length = check(found.under("decrypt"), decrypt, cipher)
    if encrypt_length is not None and decrypt_length is not None and encrypt_length != decrypt_length:
        field = "cipher_key_length" if data_format is DataFormat.EPOCH else "cipher_key"
        found.add(f"decrypt.{field}", f"must be as long as encrypt.{field}, {encrypt_length} bytes")
    found.raise_if_any()
    assert slot is not None
    assert cipher is not None
    assert data_format is not None
    assert encrypt_length is not None
    return KeySpec(
        device=device,
        peer_id=peer_id,
        slot=slot,
        key_id=key_id,
        cipher=cipher,
        encrypt_key=encrypt.epoch_secret or encrypt.cipher_key,
        encrypt_nonce_tail=encrypt.nonce_tail,
        decrypt_key=decrypt.epoch_secret or decrypt.cipher_key,
        decrypt_nonce_tail=decrypt.nonce_tail,
        key_length=encrypt_length,
        data_format=data_format,
    )


def decode_slot(request: key_pb2.GetKeyRequest) -> tuple[str, int, KeySlot]:
    """Device, peer-id and slot."""
    found = Violations()
    device, peer_id, slot = _read_slot(found, request)
    found.raise_if_any()
    assert slot is not None
    return device, peer_id, slot


def decode_deletion(request: key_pb2.DeleteKeyRequest) -> tuple[str, int, KeySlot, int]:
    """Device, peer-id, slot, and how long its key lingers, in ns."""
    found = Violations()
    device, peer_id, slot = _read_slot(found, request)
    linger_ns = request.linger.seconds * _NS_PER_S + request.linger.nanos
    if not 0 <= linger_ns <= LINGER_MAX_NS or not 0 <= request.linger.nanos < _NS_PER_S:
        shown = f"{request.linger.seconds} s and {request.linger.nanos} ns"
        found.add("linger", f"must be 0..{LINGER_MAX_NS // _NS_PER_S} s, 0 for gone at once; is {shown}")
    elif linger_ns and slot is KeySlot.PRIMARY:
        found.add("linger", "must be 0 for slot PRIMARY; only a key in slot SECONDARY may linger: swap the keys first")
    found.raise_if_any()
    assert slot is not None
    return device, peer_id, slot, linger_ns


def _read_slot(
    found: Violations, request: key_pb2.GetKeyRequest | key_pb2.DeleteKeyRequest
) -> tuple[str, int, KeySlot | None]:
    device = validation.read_name(found, "device", request.device)
    peer_id = validation.read_peer_id(found, "peer_id", request.peer_id)
    return device, peer_id, validation.read_enum(found, "slot", request.slot, KEY_SLOTS, common_pb2.KeySlot.Name)


def _check_direction(at: Violations, direction: key_pb2.KeyDirection, cipher: Cipher | None) -> int | None:
    """The length of the cipher key, if the cipher takes it; without a cipher that is not known."""
    if len(direction.nonce_tail) != _NONCE_TAIL_BYTES:
        at.add("nonce_tail", f"must be {_NONCE_TAIL_BYTES} bytes; is {len(direction.nonce_tail)}")
    if direction.epoch_secret:
        at.add("epoch_secret", "must be empty but in data_format EPOCH")
    if direction.cipher_key_length:
        at.add("cipher_key_length", "must be 0 but in data_format EPOCH")
    return _check_length(at, "cipher_key", len(direction.cipher_key), cipher)


def _check_epochs(at: Violations, direction: key_pb2.KeyDirection, cipher: Cipher | None) -> int | None:
    """The same, of a direction in the format EPOCH."""
    if len(direction.epoch_secret) != _EPOCH_SECRET_BYTES:
        at.add("epoch_secret", f"must be {_EPOCH_SECRET_BYTES} bytes; is {len(direction.epoch_secret)}")
    if direction.cipher_key:
        at.add("cipher_key", "must be empty in data_format EPOCH")
    if direction.nonce_tail:
        at.add("nonce_tail", "must be empty in data_format EPOCH")
    return _check_length(at, "cipher_key_length", direction.cipher_key_length, cipher)


def _check_length(at: Violations, field: str, length: int, cipher: Cipher | None) -> int | None:
    if cipher is None:
        return None
    if length in cipher.key_lengths:
        return length
    lengths = " or ".join(str(length) for length in cipher.key_lengths)
    at.add(field, f"must be {lengths} bytes for {cipher.name}; is {length}")
    return None
