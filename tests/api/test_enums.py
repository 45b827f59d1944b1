"""Every word of the vocabulary has its number in the contract, and every number but zero its word."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import pytest
from google.protobuf.descriptor import EnumDescriptor
from ovpn.dataplane.v1 import common_pb2, device_pb2, event_pb2, key_pb2, server_pb2, socket_pb2

from dataplane.api import enums
from dataplane.engine.types import DeviceState
from dataplane.observability.log import LogLevel
from dataplane.vocabulary import (
    Cipher,
    DataFormat,
    DatapathKind,
    DelReason,
    FloatPolicy,
    KeyLimit,
    KeySlot,
    Mode,
    SocketProtocol,
)


@pytest.mark.parametrize(
    ("words", "numbers", "contract"),
    [
        (Mode, enums.MODES, common_pb2.DeviceMode.DESCRIPTOR),
        (Cipher, enums.CIPHERS, common_pb2.Cipher.DESCRIPTOR),
        (KeySlot, enums.KEY_SLOTS, common_pb2.KeySlot.DESCRIPTOR),
        (DataFormat, enums.DATA_FORMATS, key_pb2.DataFormat.DESCRIPTOR),
        (KeyLimit, enums.KEY_LIMITS, event_pb2.KeyLimit.DESCRIPTOR),
        (DelReason, enums.DEL_REASONS, common_pb2.DelReason.DESCRIPTOR),
        (DeviceState, enums.DEVICE_STATES, device_pb2.DeviceState.DESCRIPTOR),
        (FloatPolicy, enums.FLOAT_POLICIES, device_pb2.FloatPolicy.DESCRIPTOR),
        (DatapathKind, enums.DATAPATH_KINDS, server_pb2.DatapathKind.DESCRIPTOR),
        (SocketProtocol, enums.SOCKET_PROTOCOLS, socket_pb2.SocketProtocol.DESCRIPTOR),
        (LogLevel, enums.LOG_LEVELS, server_pb2.LogLevel.DESCRIPTOR),
    ],
)
def test_words_and_numbers_match_by_name(
    words: type[Enum], numbers: Mapping[Enum, int], contract: EnumDescriptor
) -> None:
    names = {value.number: value.name for value in contract.values}
    assert {names[number].endswith(f"_{word.name}") for word, number in numbers.items()} == {True}
    assert set(numbers) == set(words)
    assert set(numbers.values()) == set(names) - {0}
