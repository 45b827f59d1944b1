"""Every event, and the views that the services do not show in each of their fields."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from ovpn.dataplane.v1 import common_pb2, device_pb2, event_pb2

from dataplane.api.encode import encode_counters, encode_event, encode_peer
from dataplane.engine.types import (
    DeviceCreated,
    DeviceDeleted,
    DeviceState,
    DeviceView,
    Endpoint,
    Event,
    KeyLimitNear,
    KeySwapNeeded,
    PeerCounters,
    PeerCreated,
    PeerDeleted,
    PeerFloatAsked,
    PeerFloated,
    PeerSpec,
    PeerView,
    WorkerRestarted,
)
from dataplane.vocabulary import DelReason, KeyLimit, Mode

REMOTE = Endpoint(IPv6Address("fe80::7"), 7, 3)
DEVICE = DeviceView("d", "tun0", Mode.P2P, 1400, (), True, "", DeviceState.RESTARTING, 2, {"rx_truncated": 3}, 0)
PEER = PeerView(PeerSpec("d", 1, "s", REMOTE), PeerCounters(), 5, 1_700_000_000_123_456_789, 0, 0)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            DeviceCreated(9, DEVICE),
            event_pb2.WatchResponse(
                device_created=device_pb2.Device(
                    name="d",
                    interface_name="tun0",
                    mode=common_pb2.DEVICE_MODE_P2P,
                    mtu=1400,
                    admin_up=True,
                    state=device_pb2.DEVICE_STATE_RESTARTING,
                    peer_count=2,
                    drops=[common_pb2.DropCounter(reason="rx_truncated", packets=3)],
                    float_policy=device_pb2.FLOAT_POLICY_ALLOW,
                )
            ),
        ),
        (DeviceDeleted(9, "d"), event_pb2.WatchResponse(device_deleted=event_pb2.DeviceDeleted(device="d"))),
        (PeerCreated(9, PEER), event_pb2.WatchResponse(peer_created=encode_peer(PEER))),
        (
            PeerDeleted(9, "d", 1, DelReason.EXPIRED, None, 5),
            event_pb2.WatchResponse(
                peer_deleted=event_pb2.PeerDeleted(
                    device="d", peer_id=1, reason=common_pb2.DEL_REASON_EXPIRED, create_revision=5
                )
            ),
        ),
        (
            PeerFloated(9, "d", 1, REMOTE),
            event_pb2.WatchResponse(
                peer_floated=event_pb2.PeerFloated(
                    device="d", peer_id=1, remote=common_pb2.Endpoint(address="fe80::7", port=7, scope_id=3)
                )
            ),
        ),
        (
            PeerFloatAsked(9, "d", 1, Endpoint(IPv4Address("192.0.2.7"), 8), REMOTE, "s"),
            event_pb2.WatchResponse(
                peer_float_asked=event_pb2.PeerFloatAsked(
                    device="d",
                    peer_id=1,
                    remote=common_pb2.Endpoint(address="192.0.2.7", port=8),
                    asked_remote=common_pb2.Endpoint(address="fe80::7", port=7, scope_id=3),
                    asked_socket="s",
                )
            ),
        ),
        (
            KeySwapNeeded(9, "d", 1, 6),
            event_pb2.WatchResponse(key_swap_needed=event_pb2.KeySwapNeeded(device="d", peer_id=1, key_id=6)),
        ),
        (
            KeyLimitNear(9, "d", 1, 6, KeyLimit.FORGERIES),
            event_pb2.WatchResponse(
                key_limit_near=event_pb2.KeyLimitNear(
                    device="d", peer_id=1, key_id=6, limit=event_pb2.KEY_LIMIT_FORGERIES
                )
            ),
        ),
        (
            WorkerRestarted(9, "d", 4711),
            event_pb2.WatchResponse(worker_restarted=event_pb2.WorkerRestarted(device="d", worker_pid=4711)),
        ),
    ],
)
def test_an_event_carries_instance_revision_and_what_happened(event: Event, expected: event_pb2.WatchResponse) -> None:
    expected.instance_id, expected.revision = "instance", 9
    assert encode_event("instance", event) == expected


def test_final_counters_of_zero_are_there_and_lost_ones_are_not() -> None:
    kept = encode_event("i", PeerDeleted(9, "d", 1, DelReason.USERSPACE, PeerCounters(), 5))
    lost = encode_event("i", PeerDeleted(9, "d", 1, DelReason.TRANSPORT_ERROR, None, 5))
    assert kept.peer_deleted.HasField("final_counters")
    assert not lost.peer_deleted.HasField("final_counters")


def test_times_keep_their_nanoseconds_and_never_is_absent() -> None:
    peer = encode_peer(PEER)
    assert (peer.create_time.seconds, peer.create_time.nanos) == (1_700_000_000, 123_456_789)
    assert not peer.HasField("last_receive_time")


def test_counters_of_64_bits_fit() -> None:
    counters = encode_counters(PeerCounters(vpn_rx_bytes=2**64 - 1, drops={"rx_replayed": 2**64 - 1, "rx_not_ip": 0}))
    assert counters.vpn_rx.bytes == 2**64 - 1
    assert [drop.reason for drop in counters.drops] == ["rx_replayed"]
