"""The key slots of peers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataplane import messages
from dataplane.engine.engine import Engine
from dataplane.engine.types import EngineError, ErrorKind, KeyLimitNear, KeySwapNeeded, KeyView
from dataplane.messages import DeleteKey, InstallKey, KeyExhausted, SwapKeys
from dataplane.vocabulary import Cipher, Column, DataFormat, KeyLimit, KeySlot
from tests.engine.conftest import FakeLauncher, key_spec, make_ready, next_event, peer_spec


@pytest.fixture
async def engine_with_peer(engine: Engine) -> Engine:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    return engine


def key_ids(engine: Engine) -> tuple[int | None, int | None]:
    """Key-ids in the primary and secondary slot of peer 1."""
    return key_id(engine, KeySlot.PRIMARY), key_id(engine, KeySlot.SECONDARY)


def key_id(engine: Engine, slot: KeySlot) -> int | None:
    try:
        return engine.get_key("d", 1, slot).key_id
    except EngineError:
        return None


async def test_an_installed_key_is_shown_without_its_bytes(engine_with_peer: Engine) -> None:
    view = await engine_with_peer.install_key(key_spec(1, KeySlot.SECONDARY, key_id=5, bits=192))
    assert view == KeyView(KeySlot.SECONDARY, 5, Cipher.AES_GCM, 192, sent_packet_ids=0)
    assert engine_with_peer.get_key("d", 1, KeySlot.SECONDARY) == view


async def test_the_worker_gets_the_key_bytes(engine_with_peer: Engine, launcher: FakeLauncher) -> None:
    spec = key_spec(1, key_id=2)
    await engine_with_peer.install_key(spec)
    command = launcher.worker.commands[-1]
    assert isinstance(command, InstallKey)
    assert (command.peer_id, command.slot, command.key_id, command.cipher) == (1, 0, 2, 1)
    told = (command.encrypt_key, command.encrypt_nonce_tail, command.decrypt_key, command.decrypt_nonce_tail)
    wanted = (spec.encrypt_key, spec.encrypt_nonce_tail, spec.decrypt_key, spec.decrypt_nonce_tail)
    is_same = told == wanted
    assert is_same, "not the bytes that were given"


async def test_a_key_in_the_slot_is_replaced(engine_with_peer: Engine) -> None:
    await engine_with_peer.install_key(key_spec(1, key_id=1, bits=128))
    await engine_with_peer.install_key(key_spec(1, key_id=2))
    view = engine_with_peer.get_key("d", 1, KeySlot.PRIMARY)
    assert (view.key_id, view.key_bits) == (2, 256)


async def test_used_packet_ids_are_read_from_the_column_of_the_slot(
    engine_with_peer: Engine, launcher: FakeLauncher
) -> None:
    await engine_with_peer.install_key(key_spec(1, KeySlot.PRIMARY, 0))
    await engine_with_peer.install_key(key_spec(1, KeySlot.SECONDARY, 1))
    launcher.worker.count(1, Column.SENT_PRIMARY, 77)
    launcher.worker.count(1, Column.SENT_SECONDARY, 5)
    assert engine_with_peer.get_key("d", 1, KeySlot.PRIMARY).sent_packet_ids == 77
    assert engine_with_peer.get_key("d", 1, KeySlot.SECONDARY).sent_packet_ids == 5


async def test_a_refused_key_leaves_the_slot_as_it_was(engine_with_peer: Engine, launcher: FakeLauncher) -> None:
    await engine_with_peer.install_key(key_spec(1, key_id=1))
    launcher.worker.reactions[InstallKey] = lambda _: "PEER_NOT_FOUND"
    with pytest.raises(EngineError) as caught:
        await engine_with_peer.install_key(key_spec(1, key_id=2))
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.NOT_FOUND, "PEER_NOT_FOUND")
    assert key_ids(engine_with_peer) == (1, None)


async def test_swap_exchanges_the_slots(engine_with_peer: Engine, launcher: FakeLauncher) -> None:
    await engine_with_peer.install_key(key_spec(1, KeySlot.PRIMARY, 1))
    await engine_with_peer.install_key(key_spec(1, KeySlot.SECONDARY, 2))
    await engine_with_peer.swap_keys("d", 1)
    assert key_ids(engine_with_peer) == (2, 1)
    assert launcher.worker.commands[-1] == SwapKeys(1)


async def test_swap_with_an_empty_slot_moves_the_key(engine_with_peer: Engine) -> None:
    await engine_with_peer.install_key(key_spec(1, KeySlot.PRIMARY, 1))
    await engine_with_peer.swap_keys("d", 1)
    assert key_ids(engine_with_peer) == (None, 1)


async def test_delete_empties_the_slot_and_may_be_repeated(engine_with_peer: Engine, launcher: FakeLauncher) -> None:
    await engine_with_peer.install_key(key_spec(1, KeySlot.SECONDARY, 1))
    await engine_with_peer.delete_key("d", 1, KeySlot.SECONDARY)
    await engine_with_peer.delete_key("d", 1, KeySlot.SECONDARY)
    assert launcher.worker.commands[-1] == DeleteKey(1, KeySlot.SECONDARY)
    with pytest.raises(EngineError) as caught:
        engine_with_peer.get_key("d", 1, KeySlot.SECONDARY)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.NOT_FOUND, "KEY_SLOT_EMPTY")
    assert caught.value.metadata == {"device": "d", "peer_id": "1", "slot": "SECONDARY"}


async def test_a_key_that_lingers_in_the_worker_is_gone_from_its_slot(
    engine_with_peer: Engine, launcher: FakeLauncher
) -> None:
    await engine_with_peer.install_key(key_spec(1, KeySlot.SECONDARY, 1))
    await engine_with_peer.delete_key("d", 1, KeySlot.SECONDARY, 1_500_000_000)
    assert launcher.worker.commands[-1] == DeleteKey(1, KeySlot.SECONDARY, 1_500_000_000)
    assert key_ids(engine_with_peer) == (None, None)
    await engine_with_peer.install_key(key_spec(1, KeySlot.SECONDARY, 2))
    assert key_ids(engine_with_peer) == (None, 2)


async def test_every_call_names_a_missing_peer(engine_with_peer: Engine) -> None:
    for call in (
        engine_with_peer.install_key(key_spec(2)),
        engine_with_peer.swap_keys("d", 2),
        engine_with_peer.delete_key("d", 2, KeySlot.PRIMARY),
    ):
        with pytest.raises(EngineError) as caught:
            await call
        assert caught.value.reason == "PEER_NOT_FOUND"
    with pytest.raises(EngineError) as caught:
        engine_with_peer.get_key("d", 2, KeySlot.PRIMARY)
    assert caught.value.reason == "PEER_NOT_FOUND"


async def test_keys_go_with_their_peer(engine_with_peer: Engine) -> None:
    await engine_with_peer.install_key(key_spec(1))
    await engine_with_peer.delete_peer("d", 1)
    await engine_with_peer.create_peer(peer_spec(1))
    assert key_ids(engine_with_peer) == (None, None)


async def test_an_exhausted_key_is_dropped_and_reported(engine_with_peer: Engine, launcher: FakeLauncher) -> None:
    await engine_with_peer.install_key(key_spec(1, KeySlot.PRIMARY, 6))
    await engine_with_peer.install_key(key_spec(1, KeySlot.SECONDARY, 7))
    async with engine_with_peer.watch() as watch:
        launcher.worker.say(KeyExhausted(1, launcher.worker.peers[1].uid, 6))
        event = await next_event(watch)
    assert event == KeySwapNeeded(engine_with_peer.revision, "d", 1, 6)
    assert key_ids(engine_with_peer) == (None, 7)


async def test_an_exhaustion_told_after_a_swap_hits_the_right_key(
    engine_with_peer: Engine, launcher: FakeLauncher
) -> None:
    await engine_with_peer.install_key(key_spec(1, KeySlot.PRIMARY, 6))
    await engine_with_peer.install_key(key_spec(1, KeySlot.SECONDARY, 7))
    worker = launcher.worker

    def answer_then_tell(_: messages.Command) -> None:
        worker.say(messages.Reply(len(worker.commands)), KeyExhausted(1, worker.peers[1].uid, 6))

    worker.reactions[SwapKeys] = answer_then_tell
    async with engine_with_peer.watch() as watch:
        await engine_with_peer.swap_keys("d", 1)
        await next_event(watch)
    assert key_ids(engine_with_peer) == (7, None)


async def test_a_limit_that_is_near_is_told_and_leaves_the_key(
    engine_with_peer: Engine, launcher: FakeLauncher
) -> None:
    await engine_with_peer.install_key(key_spec(1, KeySlot.PRIMARY, 6))
    uid = launcher.worker.peers[1].uid
    async with engine_with_peer.watch() as watch:
        launcher.worker.say(messages.KeyLimitNear(1, uid + 1, 6, KeyLimit.AEAD_USAGE))
        launcher.worker.say(messages.KeyLimitNear(1, uid, 6, KeyLimit.AEAD_USAGE))
        event = await next_event(watch)
    assert event == KeyLimitNear(engine_with_peer.revision, "d", 1, 6, KeyLimit.AEAD_USAGE)
    assert key_ids(engine_with_peer) == (6, None)


async def test_an_epoch_key_goes_to_the_worker_and_shows_its_epoch(
    engine_with_peer: Engine, launcher: FakeLauncher
) -> None:
    spec = replace(
        key_spec(1),
        data_format=DataFormat.EPOCH,
        key_length=16,
        encrypt_nonce_tail=b"",
        decrypt_nonce_tail=b"",
    )
    await engine_with_peer.install_key(spec)
    command = launcher.worker.keys[1, 0]
    assert (command.data_format, command.cipher_key_length) == (DataFormat.EPOCH, 16)
    launcher.worker.count(1, Column.SENT_PRIMARY, 5 << 48 | 77)
    assert engine_with_peer.get_key("d", 1, KeySlot.PRIMARY) == KeyView(
        KeySlot.PRIMARY, 0, Cipher.AES_GCM, 128, sent_packet_ids=77, data_format=DataFormat.EPOCH, send_epoch=5
    )
