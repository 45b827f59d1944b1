"""No key is installed twice while the daemon lives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataplane.engine.engine import Engine
from dataplane.engine.key_history import KeyHistory
from dataplane.engine.types import EngineError, ErrorKind, KeySpec, WorkerRestarted
from dataplane.messages import InstallKey
from dataplane.vocabulary import KeySlot
from tests.engine.conftest import FakeLauncher, key_spec, make_device, make_ready, next_event, peer_spec, socket_spec


def is_refused(history: KeyHistory, spec: KeySpec) -> bool:
    try:
        history.record(spec)
    except EngineError as error:
        return error.reason == "KEY_REUSE"
    return False


def test_the_same_bytes_are_refused_whatever_they_are_for() -> None:
    history, spec = KeyHistory(), key_spec(1, key_id=1)
    history.record(spec)
    assert is_refused(history, spec)
    assert is_refused(history, replace(spec, device="other", peer_id=2, slot=KeySlot.SECONDARY, key_id=2))


@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
def test_one_direction_is_enough_to_be_refused(direction: str) -> None:
    history, spec, other = KeyHistory(), key_spec(1), key_spec(1)
    history.record(spec)
    names = (f"{direction}_key", f"{direction}_nonce_tail")
    mixed = replace(other, **{name: getattr(spec, name) for name in names})
    with pytest.raises(EngineError) as caught:
        history.record(mixed)
    assert caught.value.kind is ErrorKind.FAILED_PRECONDITION
    assert caught.value.metadata == {"device": "d", "peer_id": "1", "direction": direction}


def test_a_refused_key_leaves_its_good_direction_unused() -> None:
    history, spec, other = KeyHistory(), key_spec(1), key_spec(1)
    history.record(spec)
    mixed = replace(other, decrypt_key=spec.decrypt_key, decrypt_nonce_tail=spec.decrypt_nonce_tail)
    assert is_refused(history, mixed)
    assert not is_refused(history, other)


def test_the_other_end_of_a_tunnel_may_be_here_too() -> None:
    history, spec = KeyHistory(), key_spec(1)
    history.record(spec)
    history.record(
        replace(
            spec,
            encrypt_key=spec.decrypt_key,
            encrypt_nonce_tail=spec.decrypt_nonce_tail,
            decrypt_key=spec.encrypt_key,
            decrypt_nonce_tail=spec.encrypt_nonce_tail,
        )
    )


def test_another_nonce_tail_makes_another_key() -> None:
    history, spec = KeyHistory(), key_spec(1)
    history.record(spec)
    history.record(replace(spec, encrypt_nonce_tail=b"another1", decrypt_nonce_tail=b"another2"))


def test_memory_is_bounded_and_the_oldest_key_goes_first() -> None:
    history, specs = KeyHistory(remembered=3), [key_spec(1) for _ in range(4)]
    for spec in specs:
        history.record(spec)
    assert len(history._encrypt) == len(history._decrypt) == 3
    assert [is_refused(history, spec) for spec in reversed(specs)] == [True, True, True, False]


def test_no_key_bytes_are_kept() -> None:
    history, spec = KeyHistory(), key_spec(1)
    history.record(spec)
    kept = b"".join([*history._encrypt, *history._decrypt])
    secret = (spec.encrypt_key, spec.encrypt_nonce_tail, spec.decrypt_key, spec.decrypt_nonce_tail)
    has_secret = any(part in kept for part in secret)
    assert not has_secret, "key bytes are in the history"
    assert len(kept) == 32


async def test_a_key_of_a_deleted_peer_is_refused_to_the_next_and_on_another_device(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    spec = key_spec(1)
    await engine.install_key(spec)
    await engine.delete_peer("d", 1)
    await engine.create_peer(peer_spec(1))
    with pytest.raises(EngineError, match="was installed before"):
        await engine.install_key(spec)
    assert (1, KeySlot.PRIMARY) in launcher.worker.keys
    assert sum(isinstance(command, InstallKey) for command in launcher.worker.commands) == 1

    await make_device(engine, "e")
    await engine.create_socket(socket_spec(device="e"))
    await engine.create_peer(peer_spec(1, device="e"))
    with pytest.raises(EngineError, match="was installed before"):
        await engine.install_key(replace(spec, device="e"))


async def test_a_key_that_a_worker_had_is_refused_to_its_successor(engine: Engine, launcher: FakeLauncher) -> None:
    await make_ready(engine)
    await engine.create_peer(peer_spec(1))
    spec = key_spec(1)
    launcher.worker.reactions[InstallKey] = lambda _: launcher.worker.end(-9)
    async with engine.watch() as watch:
        with pytest.raises(EngineError, match="being restarted"):
            await engine.install_key(spec)
        while not isinstance(await next_event(watch), WorkerRestarted):
            pass
    await engine.create_peer(peer_spec(1))
    with pytest.raises(EngineError, match="was installed before"):
        await engine.install_key(spec)
