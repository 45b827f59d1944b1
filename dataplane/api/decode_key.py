"""From the requests of KeyService to what the engine is asked for.

Knows the fields of each request and the lengths of keys. Must not know the engine's state, and never puts
key bytes into a description. Every function raises InvalidRequest with all violations at once.
"""

from __future__ import annotations

from typing import Final

from ovpn.dataplane.v1 import common_pb2, key_pb2

from dataplane.api import validation
from dataplane.api.enums import CIPHERS, KEY_SLOTS
from dataplane.api.violations import Violations
from dataplane.engine.types import KeySpec
from dataplane.vocabulary import Cipher, KeySlot

_MAX_KEY_ID: Final = 7
_NONCE_TAIL_BYTES: Final = 8


def decode_installation(request: key_pb2.InstallKeyRequest) -> KeySpec:
    """The key to install."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    peer_id = validation.read_peer_id(found, "peer_id", request.peer_id)
    slot = validation.read_enum(found, "slot", request.slot, KEY_SLOTS, common_pb2.KeySlot.Name)
    key_id = validation.read_number(found, "key_id", request.key_id, 0, _MAX_KEY_ID)
    cipher = validation.read_enum(found, "cipher", request.cipher, CIPHERS, common_pb2.Cipher.Name)
    encrypt, decrypt = request.encrypt, request.decrypt
    encrypt_fits = _check_direction(found.under("encrypt"), encrypt, cipher)
    decrypt_fits = _check_direction(found.under("decrypt"), decrypt, cipher)
    if encrypt_fits and decrypt_fits and len(encrypt.cipher_key) != len(decrypt.cipher_key):
        found.add("decrypt.cipher_key", f"must be as long as encrypt.cipher_key, {len(encrypt.cipher_key)} bytes")
    found.raise_if_any()
    assert slot is not None
    assert cipher is not None
    return KeySpec(
        device=device,
        peer_id=peer_id,
        slot=slot,
        key_id=key_id,
        cipher=cipher,
        encrypt_key=encrypt.cipher_key,
        encrypt_nonce_tail=encrypt.nonce_tail,
        decrypt_key=decrypt.cipher_key,
        decrypt_nonce_tail=decrypt.nonce_tail,
    )


def decode_slot(request: key_pb2.GetKeyRequest | key_pb2.DeleteKeyRequest) -> tuple[str, int, KeySlot]:
    """Device, peer-id and slot."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    peer_id = validation.read_peer_id(found, "peer_id", request.peer_id)
    slot = validation.read_enum(found, "slot", request.slot, KEY_SLOTS, common_pb2.KeySlot.Name)
    found.raise_if_any()
    assert slot is not None
    return device, peer_id, slot


def _check_direction(at: Violations, direction: key_pb2.KeyDirection, cipher: Cipher | None) -> bool:
    """Whether the cipher key has a length that the cipher takes; without a cipher that is not known."""
    if len(direction.nonce_tail) != _NONCE_TAIL_BYTES:
        at.add("nonce_tail", f"must be {_NONCE_TAIL_BYTES} bytes; is {len(direction.nonce_tail)}")
    if cipher is None:
        return False
    fits = len(direction.cipher_key) in cipher.key_lengths
    if not fits:
        lengths = " or ".join(str(length) for length in cipher.key_lengths)
        at.add("cipher_key", f"must be {lengths} bytes for {cipher.name}; is {len(direction.cipher_key)}")
    return fits
