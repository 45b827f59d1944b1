"""When the carrier of a P2P device's interface is switched, and what becomes of a refusal."""

from __future__ import annotations

import errno
import os

import pytest
from structlog.testing import capture_logs

from dataplane.engine import errors
from dataplane.engine.engine import Engine
from dataplane.engine.types import EngineError, PeerDeleted, WorkerRestarted
from dataplane.messages import PeerExpired
from dataplane.vocabulary import Mode
from tests.engine.conftest import (
    FakeLauncher,
    FakeResources,
    device_spec,
    make_ready,
    next_event,
    next_events,
    peer_spec,
)


async def test_the_carrier_is_on_while_there_is_a_peer(engine: Engine, resources: FakeResources) -> None:
    await make_ready(engine, Mode.P2P)
    assert resources.carriers == [False]
    await engine.create_peer(peer_spec(1))
    assert resources.carriers == [False, True]
    await engine.delete_peer("d", 1)
    await engine.create_peer(peer_spec(1))
    assert resources.carriers == [False, True, False, True]
    await engine.delete_device("d")
    assert resources.carriers[4:] == [False]


async def test_a_new_peer_in_place_of_another_ends_with_the_carrier_on(
    engine: Engine, resources: FakeResources
) -> None:
    await make_ready(engine, Mode.P2P)
    await engine.create_peer(peer_spec(1))
    await engine.create_peer(peer_spec(2))
    assert resources.carriers[-1]


async def test_an_expired_peer_takes_the_carrier_along(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    await make_ready(engine, Mode.P2P)
    await engine.create_peer(peer_spec(1))
    async with engine.watch("d") as watch:
        launcher.worker.say(PeerExpired(1, launcher.worker.peers[1].uid))
        assert isinstance(await next_event(watch), PeerDeleted)
    await engine.delete_device("d")
    assert resources.carriers[2:] == [False, False]


async def test_a_dead_worker_takes_the_carrier_along(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    await make_ready(engine, Mode.P2P)
    await engine.create_peer(peer_spec(1))
    async with engine.watch("d") as watch:
        launcher.worker.kill()
        assert isinstance((await next_events(watch, 2))[-1], WorkerRestarted)
    await engine.create_peer(peer_spec(1))
    assert resources.carriers == [False, True, False, True]


async def test_an_adopted_interface_has_no_carrier_before_its_peer(engine: Engine, resources: FakeResources) -> None:
    await engine.create_device(device_spec(mode=Mode.P2P), tun_fd=os.open("/dev/null", os.O_RDWR))
    assert resources.carriers == [False]


async def test_the_carrier_of_an_mp_device_is_left_alone(engine: Engine, resources: FakeResources) -> None:
    await make_ready(engine, Mode.MP)
    await engine.create_peer(peer_spec(1))
    await engine.delete_device("d")
    assert resources.carriers == []


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (errors.link_setting_refused("tun-d", OSError(errno.EINVAL, os.strerror(errno.EINVAL))), ["carrier_not_set"]),
        (errors.not_a_tun("it was deleted"), []),
    ],
)
async def test_a_refusal_is_logged_once_and_all_goes_on(
    engine: Engine, resources: FakeResources, refusal: EngineError, told: list[str]
) -> None:
    resources.carrier_refusal = refusal
    with capture_logs() as records:
        await make_ready(engine, Mode.P2P)
        await engine.create_peer(peer_spec(1))
        await engine.delete_peer("d", 1)
        await engine.delete_device("d")
    assert [record["event"] for record in records if record["log_level"] == "warning"] == told
    assert resources.carriers == [False]
