"""ServerService: what the daemon is, and its log level.

Knows the daemon's facts, which are passed in. Must not know devices.
"""
# ruff: noqa: N802 - gRPC calls the methods as the contract names them

from __future__ import annotations

import time
from typing import Final

from dataplane.api.enums import LOG_LEVELS
from dataplane.api.validation import read_enum
from dataplane.api.violations import Violations
from dataplane.config import VERSION
from dataplane.engine.engine import Engine
from dataplane.observability.log import LogLevel
from google.protobuf.timestamp_pb2 import Timestamp
from ovpn.dataplane.v1 import server_pb2, server_pb2_grpc

CIPHERS: Final = ("AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305")
"""The ciphers of vocabulary.Cipher, a name a key length, as OpenVPN calls them."""
