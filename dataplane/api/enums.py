"""Which number of the contract stands for which word of the vocabulary, for both directions.

Knows pairs only. Zero is "unspecified" in the contract and a value in the kernel's enums, so the numbers differ.
"""

from __future__ import annotations

from typing import Final

from ovpn.dataplane.v1 import common_pb2, device_pb2, event_pb2, key_pb2, server_pb2, socket_pb2

from dataplane.engine.types import DeviceState
from dataplane.observability.log import LogLevel
from dataplane.vocabulary import (
    Cipher,
    DataFormat,
    DatapathKind,
    DelReason,
    FloatPolicy,
    FragmentationPolicy,
    KeyLimit,
    KeySlot,
    Mode,
    SocketProtocol,
)

MODES: Final = {
    Mode.P2P: common_pb2.DEVICE_MODE_P2P,
    Mode.MP: common_pb2.DEVICE_MODE_MP,
}
CIPHERS: Final = {
    Cipher.AES_GCM: common_pb2.CIPHER_AES_GCM,
    Cipher.CHACHA20_POLY1305: common_pb2.CIPHER_CHACHA20_POLY1305,
}
DATA_FORMATS: Final = {
    DataFormat.DATA_V2: key_pb2.DATA_FORMAT_DATA_V2,
    DataFormat.EPOCH: key_pb2.DATA_FORMAT_EPOCH,
}
KEY_SLOTS: Final = {
    KeySlot.PRIMARY: common_pb2.KEY_SLOT_PRIMARY,
    KeySlot.SECONDARY: common_pb2.KEY_SLOT_SECONDARY,
}
KEY_LIMITS: Final = {
    KeyLimit.PACKET_IDS: event_pb2.KEY_LIMIT_PACKET_IDS,
    KeyLimit.AEAD_USAGE: event_pb2.KEY_LIMIT_AEAD_USAGE,
    KeyLimit.FORGERIES: event_pb2.KEY_LIMIT_FORGERIES,
}
DEL_REASONS: Final = {
    DelReason.TEARDOWN: common_pb2.DEL_REASON_TEARDOWN,
    DelReason.USERSPACE: common_pb2.DEL_REASON_USERSPACE,
    DelReason.EXPIRED: common_pb2.DEL_REASON_EXPIRED,
    DelReason.TRANSPORT_ERROR: common_pb2.DEL_REASON_TRANSPORT_ERROR,
    DelReason.TRANSPORT_DISCONNECT: common_pb2.DEL_REASON_TRANSPORT_DISCONNECT,
}
DEVICE_STATES: Final = {
    DeviceState.READY: device_pb2.DEVICE_STATE_READY,
    DeviceState.RESTARTING: device_pb2.DEVICE_STATE_RESTARTING,
    DeviceState.FAILED: device_pb2.DEVICE_STATE_FAILED,
}
FLOAT_POLICIES: Final = {
    FloatPolicy.ALLOW: device_pb2.FLOAT_POLICY_ALLOW,
    FloatPolicy.ASK: device_pb2.FLOAT_POLICY_ASK,
    FloatPolicy.DENY: device_pb2.FLOAT_POLICY_DENY,
}
DATAPATH_KINDS: Final = {
    DatapathKind.PYTHON: server_pb2.DATAPATH_KIND_PYTHON,
    DatapathKind.COMPILED: server_pb2.DATAPATH_KIND_COMPILED,
}
FRAGMENTATION_POLICIES: Final = {
    FragmentationPolicy.MAY_FRAGMENT: socket_pb2.FRAGMENTATION_POLICY_MAY_FRAGMENT,
    FragmentationPolicy.PATH_MTU: socket_pb2.FRAGMENTATION_POLICY_PATH_MTU,
    FragmentationPolicy.DONT_FRAGMENT: socket_pb2.FRAGMENTATION_POLICY_DONT_FRAGMENT,
}
SOCKET_PROTOCOLS: Final = {
    SocketProtocol.UDP: socket_pb2.SOCKET_PROTOCOL_UDP,
    SocketProtocol.TCP: socket_pb2.SOCKET_PROTOCOL_TCP,
}
LOG_LEVELS: Final = {
    LogLevel.DEBUG: server_pb2.LOG_LEVEL_DEBUG,
    LogLevel.INFO: server_pb2.LOG_LEVEL_INFO,
    LogLevel.WARNING: server_pb2.LOG_LEVEL_WARNING,
    LogLevel.ERROR: server_pb2.LOG_LEVEL_ERROR,
}
