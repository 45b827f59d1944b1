"""ServerService: what the daemon is, and its log level.

Knows the daemon's facts, which are passed in. Must not know devices.
"""
# ruff: noqa: N802 - gRPC calls the methods as the contract names them

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from ovpn.dataplane.v1 import server_pb2, server_pb2_grpc

from dataplane.api.enums import DATAPATH_KINDS, LOG_LEVELS
from dataplane.api.validation import read_enum
from dataplane.api.violations import Violations
from dataplane.engine.engine import Engine
from dataplane.observability.log import set_log_level
from dataplane.vocabulary import DatapathKind

CIPHERS: Final = ("AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305")
"""The ciphers of vocabulary.Cipher, one name a key length, as OpenVPN calls them."""


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What the daemon tells about itself: see GetServerInfoResponse."""

    version: str
    handoff_path: Path
    datapath: DatapathKind


class ServerService(server_pb2_grpc.ServerServiceServicer):
    """See proto/ovpn/dataplane/v1/server.proto. The daemon counts as started when this is made."""

    def __init__(self, engine: Engine, facts: DaemonFacts) -> None:
        self._engine = engine
        self._facts = facts
        self._start_time = Timestamp()
        self._start_time.FromNanoseconds(time.time_ns())

    async def GetServerInfo(
        self, _request: server_pb2.GetServerInfoRequest, _context: object
    ) -> server_pb2.GetServerInfoResponse:
        """Returns versions, limits and the instance_id."""
        limits = self._engine.limits
        return server_pb2.GetServerInfoResponse(
            instance_id=self._engine.instance_id,
            version=self._facts.version,
            start_time=self._start_time,
            datapath=DATAPATH_KINDS[self._facts.datapath],
            handoff_path=str(self._facts.handoff_path),
            limits=server_pb2.Limits(
                max_devices=limits.max_devices,
                max_sockets_per_device=limits.max_sockets_per_device,
                max_peers_per_device=limits.max_peers_per_device,
            ),
            ciphers=CIPHERS,
        )

    async def SetLogLevel(
        self, request: server_pb2.SetLogLevelRequest, _context: object
    ) -> server_pb2.SetLogLevelResponse:
        """Changes the log level until the daemon ends."""
        found = Violations()
        level = read_enum(found, "level", request.level, LOG_LEVELS, server_pb2.LogLevel.Name)
        found.raise_if_any()
        assert level is not None
        return server_pb2.SetLogLevelResponse(previous_level=LOG_LEVELS[set_log_level(level)])
