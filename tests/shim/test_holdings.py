"""What is lost in the data plane, and how OpenVPN hears of it; what is given back at the end."""

from __future__ import annotations

from errno import ENOENT
from typing import Any

import pytest
from ovpn.dataplane.v1 import common_pb2, event_pb2

from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.holdings import CLOSE_SECONDS
from controlplane_shim.operations import DelPeer, Done, GetPeer, NewLink, PeerFound, SetPeer
from tests.shim.conftest import GONE, World, errno_of, is_readable

# Peers that are lost


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (common_pb2.DEL_REASON_EXPIRED, "EXPIRED"),
        (common_pb2.DEL_REASON_TRANSPORT_ERROR, "TRANSPORT_ERROR"),
        (common_pb2.DEL_REASON_TRANSPORT_DISCONNECT, "TRANSPORT_DISCONNECT"),
        (common_pb2.DEL_REASON_TEARDOWN, "TEARDOWN"),
        # A server would take USERSPACE for the echo of its own request.
        (common_pb2.DEL_REASON_USERSPACE, "TRANSPORT_ERROR"),
    ],
)
def test_a_server_is_told_of_a_lost_peer_by_a_reason_that_it_heeds(
    world: World, reason: common_pb2.DelReason, told: str
) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.delete_by_itself(device, 1, reason)
    assert world.deletions() == [(1, told)]
    assert world.methods()[-1] == "delete_socket"
    assert world.offload.fatal == ""


def test_a_peer_whose_key_is_used_up_is_lost_since_openvpn_2_6_hears_of_no_key(world: World) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.emit(device, key_swap_needed=event_pb2.KeySwapNeeded(device=device, peer_id=1, key_id=0))
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
    assert world.methods()[-2:] == ["delete_peer", "delete_socket"]
    assert world.offload.fatal == ""


def test_a_p2p_openvpn_is_told_of_any_loss_as_of_an_expiry(world: World) -> None:
    ifindex, device = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    world.perform(SetPeer(ifindex, 1, 10, 60))
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_TRANSPORT_ERROR)
    assert world.deletions() == [(1, "EXPIRED")]
    assert world.offload.fatal == ""


def test_a_p2p_openvpn_without_keepalive_is_ended_when_its_peer_is_lost(world: World) -> None:
    ifindex, device = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    world.perform(SetPeer(ifindex, 1, 0, 0))
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_TRANSPORT_ERROR)
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
    assert "--keepalive" in world.offload.fatal


def test_a_stale_event_of_a_peer_id_that_was_given_away_again_is_ignored(world: World) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_EXPIRED)
    world.make_peer(ifindex, 1)
    assert world.deletions() == []
    assert isinstance(world.perform(GetPeer(ifindex, 1)), PeerFound)
    assert world.dataplane.calls("delete_socket") == []


def test_the_event_of_a_deletion_that_openvpn_asked_for_is_not_told_twice(world: World) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    world.perform(DelPeer(ifindex, 1))
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_USERSPACE)
    assert world.deletions() == [(1, "USERSPACE")]


def test_the_other_peers_of_a_socket_keep_it(world: World) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    world.make_peer(ifindex, 2)
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_EXPIRED)
    assert world.deletions() == [(1, "EXPIRED")]
    assert world.dataplane.calls("delete_socket") == []


def test_a_socket_that_could_not_be_deleted_is_used_again_and_deleted_later(world: World) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.fail("delete_socket", DataPlaneError("UNAVAILABLE", "WORKER_RESTARTING", "wait"))
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_TRANSPORT_ERROR)
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
    world.diary.clear()
    world.make_peer(ifindex, 1)
    assert world.methods() == ["create_peer"]
    world.perform(DelPeer(ifindex, 1))
    assert world.methods() == ["create_peer", "delete_peer", "delete_socket"]


def test_a_restarted_worker_does_not_end_the_session(world: World) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_TRANSPORT_ERROR)
    world.dataplane.emit(device, worker_restarted=event_pb2.WorkerRestarted(device=device, worker_pid=9))
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
    world.make_peer(ifindex, 1)


def test_a_reader_that_fell_behind_loses_the_peers_that_a_new_snapshot_lacks(world: World) -> None:
    ifindex, device = world.make_device()
    for peer_id in (1, 2):
        world.make_peer(ifindex, peer_id)
    del world.dataplane.peers[1]
    world.dataplane.watches[device][0].send(DataPlaneError("RESOURCE_EXHAUSTED", "WATCH_TOO_SLOW", "too slow"))
    assert is_readable(world.bell.fileno(), 5)
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
    world.dataplane.delete_by_itself(device, 2, common_pb2.DEL_REASON_EXPIRED)
    assert world.deletions() == [(2, "EXPIRED")]
    assert world.offload.fatal == ""


# Devices that somebody else deletes


def test_a_device_that_is_deleted_already_is_not_deleted_at_the_end(world: World) -> None:
    _, device = world.make_device()
    world.dataplane.emit(device, device_deleted=event_pb2.DeviceDeleted(device=device))
    world.offload.close()
    assert world.dataplane.calls("delete_device") == []


# The data plane is gone


def lose_the_data_plane_by_its_stream(world: World, device: str) -> None:
    world.bell.silence()
    world.dataplane.watches[device][0].send(GONE)
    assert is_readable(world.bell.fileno(), 5)


def lose_the_data_plane_by_a_call(world: World, _device: str) -> None:
    world.dataplane.fail("get_peer", DataPlaneError("DEADLINE_EXCEEDED", "", "no answer"))
    assert errno_of(world.perform(GetPeer(100, 1))) == ENOENT


@pytest.mark.parametrize("lose", [lose_the_data_plane_by_its_stream, lose_the_data_plane_by_a_call])
def test_when_the_data_plane_is_gone_every_peer_is_told_and_the_session_ends(world: World, lose: Any) -> None:
    ifindex, device = world.make_device()
    for peer_id in (1, 2):
        world.make_peer(ifindex, peer_id)
    lose(world, device)
    assert world.deletions() == [(1, "TRANSPORT_ERROR"), (2, "TRANSPORT_ERROR")]
    assert "the data plane is gone" in world.offload.fatal


def test_the_end_rings_the_bell_even_if_there_is_nobody_to_tell(world: World) -> None:
    world.make_device()
    world.bell.silence()
    world.dataplane.fail("create_device", GONE)
    world.perform(NewLink("tun1", "ovpn-dco", True))
    assert is_readable(world.bell.fileno())
    assert world.offload.fatal


def test_a_lost_peer_is_told_even_if_the_data_plane_dies_while_its_socket_is_deleted(world: World) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.fail("delete_socket", GONE)
    world.dataplane.delete_by_itself(device, 1, common_pb2.DEL_REASON_EXPIRED)
    assert world.deletions() == [(1, "EXPIRED")]
    assert world.offload.fatal


# The end


def test_closing_deletes_the_devices_then_closes_the_link(world: World) -> None:
    _, device = world.make_device()
    world.offload.close()
    assert world.diary == [("delete_device", device, CLOSE_SECONDS)]
    assert world.dataplane.closed
    assert world.handoff.closed
    assert world.dataplane.watches[device][0].cancelled


def test_closing_does_not_wait_for_a_data_plane_that_is_gone(world: World) -> None:
    world.make_device("tun0")
    world.dataplane.diary.clear()
    assert world.perform(NewLink("tun1", "ovpn-dco", True)) == Done()
    world.diary.clear()
    world.dataplane.fail("delete_device", GONE, GONE)
    world.offload.close()
    assert len(world.dataplane.calls("delete_device")) == 1
    assert world.handoff.closed
