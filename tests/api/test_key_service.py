"""KeyService over a real server: what each call does, how it refuses, and that no key byte ever comes out."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from ovpn.dataplane.v1 import common_pb2, key_pb2

from dataplane.messages import DeleteKey, InstallKey, SwapKeys
from dataplane.vocabulary import Column
from tests.api.conftest import (
    DECRYPT_KEY,
    DECRYPT_TAIL,
    ENCRYPT_KEY,
    ENCRYPT_TAIL,
    Api,
    key_message,
    refusal_of,
    shows_secrets,
)

PRIMARY, SECONDARY = common_pb2.KEY_SLOT_PRIMARY, common_pb2.KEY_SLOT_SECONDARY
CHACHA = common_pb2.CIPHER_CHACHA20_POLY1305


def get(slot: common_pb2.KeySlot = PRIMARY, peer_id: int = 1, device: str = "d") -> key_pb2.GetKeyRequest:
    return key_pb2.GetKeyRequest(device=device, peer_id=peer_id, slot=slot)


def delete(
    slot: common_pb2.KeySlot = PRIMARY, peer_id: int = 1, device: str = "d", linger: Duration | None = None
) -> key_pb2.DeleteKeyRequest:
    return key_pb2.DeleteKeyRequest(device=device, peer_id=peer_id, slot=slot, linger=linger)


def swap(peer_id: int = 1, device: str = "d") -> key_pb2.SwapKeysRequest:
    return key_pb2.SwapKeysRequest(device=device, peer_id=peer_id)


async def test_a_key_reaches_the_worker_whole(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    await api.keys.InstallKey(key_message())
    installed = api.launcher.worker.keys[1, 0]
    assert isinstance(installed, InstallKey)
    is_whole = (
        installed.encrypt_key == ENCRYPT_KEY
        and installed.encrypt_nonce_tail == ENCRYPT_TAIL
        and installed.decrypt_key == DECRYPT_KEY
        and installed.decrypt_nonce_tail == DECRYPT_TAIL
    )
    assert is_whole
    assert (installed.peer_id, installed.slot, installed.key_id, installed.cipher) == (1, 0, 3, 1)


@pytest.mark.parametrize(
    ("cipher", "length"),
    [(common_pb2.CIPHER_AES_GCM, 16), (common_pb2.CIPHER_AES_GCM, 24), (common_pb2.CIPHER_AES_GCM, 32), (CHACHA, 32)],
)
async def test_what_was_installed_is_told_without_the_key(api: Api, cipher: common_pb2.Cipher, length: int) -> None:
    await api.make_ready()
    await api.make_peer()
    request = key_message(
        slot=SECONDARY,
        key_id=7,
        cipher=cipher,
        encrypt__cipher_key=ENCRYPT_KEY[:length],
        decrypt__cipher_key=DECRYPT_KEY[:length],
    )
    key = (await api.keys.InstallKey(request)).key
    assert key == key_pb2.Key(
        slot=SECONDARY,
        key_id=7,
        cipher=cipher,
        key_bits=8 * length,
        data_format=key_pb2.DATA_FORMAT_DATA_V2,
    )
    assert (await api.keys.GetKey(get(SECONDARY))).key == key


async def test_a_key_in_the_slot_is_replaced(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    await api.keys.InstallKey(key_message(key_id=3))
    await api.keys.InstallKey(key_message(key_id=4, encrypt__cipher_key=bytes(32), decrypt__cipher_key=bytes(32)))
    assert (await api.keys.GetKey(get())).key.key_id == 4


BAD_INSTALLATIONS = [
    ({"device": ""}, {"device"}),
    ({"device": "d", "peer_id": 0xFFFFFF}, {"peer_id"}),
    ({"slot": 0}, {"slot"}),
    ({"slot": 3}, {"slot"}),
    ({"key_id": 8}, {"key_id"}),
    ({"cipher": 0}, {"cipher"}),
    ({"cipher": 3}, {"cipher"}),
    ({"encrypt": None}, {"encrypt.cipher_key", "encrypt.nonce_tail"}),
    ({"decrypt": None}, {"decrypt.cipher_key", "decrypt.nonce_tail"}),
    ({"encrypt__cipher_key": ENCRYPT_KEY[:31]}, {"encrypt.cipher_key"}),
    ({"encrypt__cipher_key": ENCRYPT_KEY + b"x"}, {"encrypt.cipher_key"}),
    ({"decrypt__cipher_key": DECRYPT_KEY[:15]}, {"decrypt.cipher_key"}),
    ({"decrypt__cipher_key": DECRYPT_KEY[:16]}, {"decrypt.cipher_key"}),
    ({"cipher": CHACHA, "encrypt__cipher_key": ENCRYPT_KEY[:16]}, {"encrypt.cipher_key"}),
    ({"encrypt__nonce_tail": ENCRYPT_TAIL[:7]}, {"encrypt.nonce_tail"}),
    ({"decrypt__nonce_tail": DECRYPT_TAIL + b"1234"}, {"decrypt.nonce_tail"}),
    (
        {"slot": 9, "key_id": 9, "cipher": 9, "encrypt__nonce_tail": b"", "peer_id": 2**24},
        {"slot", "key_id", "cipher", "encrypt.nonce_tail", "peer_id"},
    ),
]


@pytest.mark.parametrize(("fields", "wrong"), BAD_INSTALLATIONS)
async def test_a_wrong_field_of_an_installation_is_named_without_key_bytes(
    api: Api, fields: dict[str, Any], wrong: set[str]
) -> None:
    await api.make_ready()
    await api.make_peer()
    with structlog.testing.capture_logs() as records:
        refusal = await refusal_of(api.keys.InstallKey(key_message(**fields)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert set(refusal.violations) == wrong
    assert not shows_secrets(str(refusal))
    assert not shows_secrets(str(records))
    assert not api.launcher.worker.keys


async def test_no_key_byte_is_in_replies_errors_events_or_the_log(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    with structlog.testing.capture_logs() as records:
        seen = [await api.keys.InstallKey(key_message()), await api.keys.GetKey(get())]
        seen.append(await api.keys.SwapKeys(swap()))
        refusals = [
            await refusal_of(api.keys.InstallKey(key_message(peer_id=9))),
            await refusal_of(api.keys.InstallKey(key_message(device="gone"))),
        ]
        refusals.append(await refusal_of(api.keys.InstallKey(key_message(key_id=4))))
    assert len(records) >= 6
    assert refusals[-1].reason == "KEY_REUSE"
    for text in (str(seen), str(refusals), str(records), str(await api.everything())):
        assert not shows_secrets(text)


async def test_a_missing_device_peer_or_key_is_not_found(api: Api) -> None:
    for reason in ("DEVICE_NOT_FOUND", "PEER_NOT_FOUND"):
        for call in (
            api.keys.InstallKey(key_message()),
            api.keys.GetKey(get()),
            api.keys.SwapKeys(swap()),
            api.keys.DeleteKey(delete()),
        ):
            refusal = await refusal_of(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, reason)
        if reason == "DEVICE_NOT_FOUND":
            await api.make_ready()
    await api.make_peer()
    refusal = await refusal_of(api.keys.GetKey(get()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_SLOT_EMPTY")


async def test_malformed_names_are_refused_by_every_call(api: Api) -> None:
    unknown = common_pb2.KEY_SLOT_UNSPECIFIED
    for call, wrong in (
        (api.keys.GetKey(get(unknown, 2**24, "")), {"device", "peer_id", "slot"}),
        (api.keys.DeleteKey(delete(unknown, 2**24, "")), {"device", "peer_id", "slot"}),
        (api.keys.SwapKeys(swap(2**24, "")), {"device", "peer_id"}),
    ):
        assert set((await refusal_of(call)).violations) == wrong


async def test_get_tells_the_used_packet_ids(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    await api.keys.InstallKey(key_message())
    api.launcher.worker.count(1, Column.SENT_PRIMARY, 0xFFFFFFFF)
    assert (await api.keys.GetKey(get())).key.sent_packet_ids == 0xFFFFFFFF


async def test_swap_exchanges_the_slots_of_which_one_may_be_empty(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    await api.keys.InstallKey(key_message(key_id=3))
    await api.keys.SwapKeys(swap())
    assert (await api.keys.GetKey(get(SECONDARY))).key.key_id == 3
    assert (await refusal_of(api.keys.GetKey(get(PRIMARY)))).reason == "KEY_SLOT_EMPTY"
    assert isinstance(api.launcher.worker.commands[-1], SwapKeys)


async def test_delete_empties_a_slot_and_may_be_repeated(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    await api.keys.InstallKey(key_message())
    for _ in range(2):
        await api.keys.DeleteKey(delete())
    assert (await refusal_of(api.keys.GetKey(get()))).reason == "KEY_SLOT_EMPTY"


@pytest.mark.parametrize(
    ("linger", "linger_ns"),
    [
        (None, 0),
        (Duration(), 0),
        (Duration(nanos=1), 1),
        (Duration(seconds=1, nanos=500_000_000), 1_500_000_000),
        (Duration(seconds=60), 60_000_000_000),
    ],
)
async def test_a_deleted_secondary_key_may_linger(api: Api, linger: Duration | None, linger_ns: int) -> None:
    await api.make_ready()
    await api.make_peer()
    await api.keys.InstallKey(key_message(slot=SECONDARY))
    await api.keys.DeleteKey(delete(SECONDARY, linger=linger))
    assert api.launcher.worker.commands[-1] == DeleteKey(1, 1, linger_ns)
    assert (await refusal_of(api.keys.GetKey(get(SECONDARY)))).reason == "KEY_SLOT_EMPTY"


@pytest.mark.parametrize(
    ("slot", "linger", "said"),
    [
        (SECONDARY, Duration(seconds=60, nanos=1), "must be 0..60 s, 0 for gone at once; is 60 s and 1 ns"),
        (SECONDARY, Duration(seconds=-1), "must be 0..60 s, 0 for gone at once; is -1 s and 0 ns"),
        (SECONDARY, Duration(nanos=-1), "must be 0..60 s, 0 for gone at once; is 0 s and -1 ns"),
        (SECONDARY, Duration(nanos=10**9), "must be 0..60 s, 0 for gone at once; is 0 s and 1000000000 ns"),
        (PRIMARY, Duration(seconds=61), "must be 0..60 s, 0 for gone at once; is 61 s and 0 ns"),
        (PRIMARY, Duration(nanos=1), "must be 0 for slot PRIMARY; only a key in slot SECONDARY may linger"),
    ],
)
async def test_a_linger_that_cannot_be_is_refused(
    api: Api, slot: common_pb2.KeySlot, linger: Duration, said: str
) -> None:
    await api.make_ready()
    await api.make_peer()
    refusal = await refusal_of(api.keys.DeleteKey(delete(slot, linger=linger)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert list(refusal.violations) == ["linger"]
    assert refusal.violations["linger"].startswith(said)
