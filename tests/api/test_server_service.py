"""ServerService over a real server."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ovpn.dataplane.v1 import server_pb2

from dataplane.api.server_service import DaemonFacts, ServerService
from dataplane.engine.engine import Engine
from dataplane.observability.log import LogLevel, set_log_level
from dataplane.vocabulary import Cipher, DatapathKind
from tests.api.conftest import Api, refusal_of


@pytest.fixture
def log_level() -> Iterator[None]:
    """The level INFO, which is undone."""
    own, root = logging.getLogger("dataplane").level, logging.getLogger().level
    set_log_level(LogLevel.INFO)
    yield
    logging.getLogger("dataplane").setLevel(own)
    logging.getLogger().setLevel(root)


async def test_info_tells_what_the_daemon_is(api: Api) -> None:
    info = await api.info.GetServerInfo(server_pb2.GetServerInfoRequest())
    assert info.instance_id == api.engine.instance_id
    assert info.version == "1.2.3"
    assert 0 <= time.time() - info.start_time.ToMicroseconds() / 1e6 < 60
    assert info.handoff_path == str(api.handoff_path)
    assert info.limits == server_pb2.Limits(max_devices=256, max_sockets_per_device=8192, max_peers_per_device=65535)


@pytest.mark.parametrize(
    ("datapath", "number"),
    [
        (DatapathKind.PYTHON, server_pb2.DATAPATH_KIND_PYTHON),
        (DatapathKind.COMPILED, server_pb2.DATAPATH_KIND_COMPILED),
    ],
)
async def test_info_tells_which_datapath_runs(datapath: DatapathKind, number: int) -> None:
    service = ServerService(Engine(), DaemonFacts("1.2.3", Path("/h"), datapath))
    assert (await service.GetServerInfo(server_pb2.GetServerInfoRequest(), None)).datapath == number


async def test_info_names_a_cipher_for_each_key_length(api: Api) -> None:
    info = await api.info.GetServerInfo(server_pb2.GetServerInfoRequest())
    assert list(info.ciphers) == ["AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305"]
    assert len(info.ciphers) == sum(len(cipher.key_lengths) for cipher in Cipher)


@pytest.mark.usefixtures("log_level")
async def test_the_log_level_is_changed_and_the_one_before_returned(api: Api) -> None:
    debug = server_pb2.SetLogLevelRequest(level=server_pb2.LOG_LEVEL_DEBUG)
    assert (await api.info.SetLogLevel(debug)).previous_level == server_pb2.LOG_LEVEL_INFO
    assert (await api.info.SetLogLevel(debug)).previous_level == server_pb2.LOG_LEVEL_DEBUG


@pytest.mark.usefixtures("log_level")
@pytest.mark.parametrize("level", [0, 5, -1])
async def test_an_unknown_log_level_is_refused_and_changes_nothing(api: Api, level: int) -> None:
    request = server_pb2.SetLogLevelRequest()
    request.level = level  # type: ignore[assignment] # what a client of a later contract may send
    assert set((await refusal_of(api.info.SetLogLevel(request))).violations) == {"level"}
    assert set_log_level(LogLevel.INFO) is LogLevel.INFO
