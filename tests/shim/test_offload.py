"""Operations in the data plane: order, errors, losses."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from errno import EEXIST, EINVAL, ENOENT, ENOTSOCK, EPERM

import pytest
from ovpn.dataplane.v1 import common_pb2, event_pb2

from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.operations import (
    DelKey,
    DelPeer,
    Done,
    DumpPeers,
    Failed,
    Family,
    GetPeer,
    NewLink,
    PeerFound,
    PeersFound,
    SetPeer,
    SwapKeys,
)
from controlplane_shim.translate.rpc import LINGER_SECONDS
from tests.descriptors import open_fds
from tests.shim.conftest import GONE, World, errno_of, is_readable, new_key, new_peer

REFUSED = DataPlaneError("UNAVAILABLE", "WORKER_RESTARTING", "wait")


# Peers and sockets


def test_the_first_peer_brings_its_socket(world: World) -> None:
    ifindex, device = world.make_device()
    world.make_peer(ifindex, 1)
    assert world.methods() == ["hand_over", "adopt_socket", "create_peer"]
    peer = world.dataplane.peers[1]
    assert (peer.device, peer.socket) == (device, f"openvpn-{os.fstat(world.udp.fileno()).st_ino}")
    assert peer.vpn_ipv4 == "10.8.0.3"


def test_a_second_peer_uses_the_same_socket_whatever_its_descriptor(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    with world.udp.dup() as copy:
        world.caller.numbers[8] = copy.fileno()
        world.make_peer(ifindex, 2, fd=8)
    assert len(world.dataplane.calls("adopt_socket")) == 1


def test_the_socket_goes_with_its_last_peer_and_before_the_answer(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.make_peer(ifindex, 2)
    world.diary.clear()
    assert world.perform(DelPeer(ifindex, 1)) == Done()
    assert world.methods() == ["delete_peer"]
    assert world.perform(DelPeer(ifindex, 2)) == Done()
    assert world.methods() == ["delete_peer", "delete_peer", "delete_socket"]


def test_a_socket_is_adopted_anew_after_its_last_peer_went(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.perform(DelPeer(ifindex, 1))
    world.make_peer(ifindex, 1)
    assert len(world.dataplane.calls("adopt_socket")) == 2


def test_a_refused_peer_takes_its_socket_with_it(world: World) -> None:
    ifindex, _ = world.make_device()
    world.dataplane.fail("create_peer", REFUSED)
    assert isinstance(world.perform(new_peer(ifindex, 1)), Failed)
    assert world.methods() == ["hand_over", "adopt_socket", "create_peer", "delete_socket"]
    world.make_peer(ifindex, 1)


def test_a_refused_peer_leaves_a_socket_that_others_use(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.fail("create_peer", DataPlaneError("ALREADY_EXISTS", "PEER_EXISTS", "there is one"))
    assert errno_of(world.perform(new_peer(ifindex, 1))) == EEXIST
    assert world.dataplane.calls("delete_socket") == []


def test_a_second_peer_replaces_the_first_on_a_p2p_device(world: World) -> None:
    ifindex, _ = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as restarted:
        restarted.bind(("127.0.0.1", 0))
        world.caller.numbers[8] = restarted.fileno()
        world.diary.clear()
        world.make_peer(ifindex, 2, fd=8)
    assert world.methods() == ["hand_over", "adopt_socket", "create_peer", "delete_socket"]
    assert world.deletions() == [(1, "TEARDOWN")]
    assert errno_of(world.perform(GetPeer(ifindex, 1))) == ENOENT


def test_no_notice_is_sent_of_a_p2p_peer_that_its_own_successor_replaced(world: World) -> None:
    ifindex, _ = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    world.make_peer(ifindex, 1)
    assert world.deletions() == []
    assert world.dataplane.calls("delete_socket") == []


def test_vpn_addresses_are_not_passed_on_for_a_p2p_device(world: World) -> None:
    ifindex, _ = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    assert world.dataplane.peers[1].vpn_ipv4 == ""


def test_a_descriptor_that_openvpn_does_not_have_is_not_a_socket(world: World) -> None:
    ifindex, _ = world.make_device()
    assert errno_of(world.perform(new_peer(ifindex, 1, fd=10**6))) == ENOTSOCK


def test_a_udp_peer_without_remote_is_refused(world: World) -> None:
    ifindex, _ = world.make_device()
    assert errno_of(world.perform(replace(new_peer(ifindex, 1), remote=None))) == EINVAL
    assert world.diary == []


def test_no_copy_of_openvpns_socket_is_kept(world: World) -> None:
    ifindex, _ = world.make_device()
    before = open_fds()
    world.make_peer(ifindex, 1)
    world.make_peer(ifindex, 2)
    assert open_fds() <= before


def test_an_interface_that_is_not_ours_is_refused_but_never_with_enodev(world: World) -> None:
    for operation in (new_peer(1, 1), SetPeer(1, 1, 1, 1), DelPeer(1, 1), SwapKeys(1, 1), GetPeer(1, 1), DumpPeers(1)):
        assert errno_of(world.perform(operation)) == EINVAL


def test_an_unknown_peer_is_refused_without_a_call(world: World) -> None:
    ifindex, _ = world.make_device()
    for operation in (SetPeer(ifindex, 1, 1, 1), DelPeer(ifindex, 1), SwapKeys(ifindex, 1), DelKey(ifindex, 1, 0)):
        assert errno_of(world.perform(operation)) == ENOENT
    assert world.diary == []


# Other operations


def test_keepalives_are_set_only_if_asked_for(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    assert world.perform(SetPeer(ifindex, 1, None, None)) == Done()
    assert world.dataplane.calls("update_peer") == []
    assert world.perform(SetPeer(ifindex, 1, 10, 60)) == Done()
    assert world.dataplane.calls("update_peer") == [(1, ["keepalive_interval", "keepalive_timeout"])]


def test_keys_are_installed_swapped_and_deleted(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.diary.clear()
    for operation in (new_key(ifindex, 1, slot=1), SwapKeys(ifindex, 1), DelKey(ifindex, 1, 1)):
        assert world.perform(operation) == Done()
    deletion = ("delete_key", 1, common_pb2.KEY_SLOT_SECONDARY, LINGER_SECONDS)
    assert world.diary == [("install_key", 1), ("swap_keys", 1), deletion]


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("slots", [(0, 1), (1, 0)])
def test_a_primary_key_goes_at_once_so_that_a_client_that_lost_its_keys_passes_nothing(
    world: World, slots: tuple[int, int], family: Family
) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    for slot in slots:
        assert world.offload.perform(DelKey(ifindex, 1, slot), family, world.caller) == Done()
    asked = {tuple(call[1:]) for call in world.dataplane.calls("delete_key")}
    assert asked == {(common_pb2.KEY_SLOT_PRIMARY, 0), (common_pb2.KEY_SLOT_SECONDARY, LINGER_SECONDS)}


def test_a_peer_is_told_with_the_port_of_its_socket(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    found = world.perform(GetPeer(ifindex, 1))
    assert isinstance(found, PeerFound)
    assert (found.peer.peer_id, found.peer.local_port) == (1, world.udp.getsockname()[1])


def test_a_dump_tells_all_peers_of_a_multipeer_device(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.make_peer(ifindex, 2)
    found = world.perform(DumpPeers(ifindex))
    assert isinstance(found, PeersFound)
    assert [peer.peer_id for peer in found.peers] == [1, 2]


def test_a_dump_of_a_p2p_device_is_empty(world: World) -> None:
    ifindex, _ = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    assert world.perform(DumpPeers(ifindex)) == PeersFound(())
    assert world.dataplane.calls("list_peers") == []


def test_deletion_is_echoed_to_openvpn(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.perform(DelPeer(ifindex, 1))
    assert is_readable(world.bell.fileno())
    assert world.deletions() == [(1, "USERSPACE")]


def test_a_peer_that_the_data_plane_has_lost_already_is_deleted_without_error(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.fail("delete_peer", DataPlaneError("NOT_FOUND", "PEER_NOT_FOUND", "no peer 1"))
    assert world.perform(DelPeer(ifindex, 1)) == Done()
    assert world.methods()[-1] == "delete_socket"


def test_the_echo_of_a_deletion_is_not_sent_when_the_peer_id_was_given_away_again(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.perform(DelPeer(ifindex, 1))
    world.make_peer(ifindex, 1)
    assert world.deletions() == []


def test_a_device_made_again_under_its_name_replaces_the_earlier(world: World) -> None:
    first, name = world.make_device()
    world.make_peer(first, 1)
    second, same_name = world.make_device()
    assert (second != first, same_name) == (True, name)
    assert errno_of(world.perform(GetPeer(first, 1))) == EINVAL
    assert world.dataplane.watches[name][0].cancelled


def test_an_interface_that_cannot_be_made_is_told(world: World) -> None:
    world.linux.errors.append(OSError(EPERM, "Operation not permitted"))
    assert errno_of(world.perform(NewLink("tun0", "ovpn-dco", True))) == EPERM


# A client's swap, which waits until the handshake is out


def wait_for_swap(world: World) -> list[tuple[int, str]]:
    """The deletions that come with the pending swap, once its timer has run."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    assert is_readable(world.bell.fileno())
    return world.deletions()


@pytest.fixture
def client(world: World) -> int:
    """A P2P device with peer 1, whose interface index this is, and nothing rung."""
    ifindex, _ = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    world.perform(SetPeer(ifindex, 1, 10, 60))
    world.deletions()
    world.bell.silence()
    world.diary.clear()
    return ifindex


def test_a_clients_swap_is_acknowledged_at_once_and_carried_out_later(world: World, client: int) -> None:
    assert world.perform(SwapKeys(client, 1)) == Done()
    assert world.diary == []
    assert wait_for_swap(world) == []
    assert world.diary == [("swap_keys", 1)]


def test_other_changes_of_the_keys_come_after_a_pending_swap(world: World, client: int) -> None:
    world.perform(SwapKeys(client, 1))
    world.perform(DelKey(client, 1, 1))
    world.perform(SwapKeys(client, 1))
    world.perform(new_key(client, 1, slot=1))
    assert world.methods() == ["swap_keys", "delete_key", "swap_keys", "install_key"]
    wait_for_swap(world)
    assert world.methods().count("swap_keys") == 2


def test_a_pending_swap_of_a_peer_that_is_deleted_is_forgotten(world: World, client: int) -> None:
    world.perform(SwapKeys(client, 1))
    world.perform(DelPeer(client, 1))
    world.make_peer(client, 1)
    wait_for_swap(world)
    assert "swap_keys" not in world.methods()


def test_a_swap_that_fails_costs_the_peer(world: World, client: int) -> None:
    world.dataplane.fail("swap_keys", REFUSED)
    world.perform(SwapKeys(client, 1))
    assert wait_for_swap(world) == [(1, "EXPIRED")]
    assert errno_of(world.perform(GetPeer(client, 1))) == ENOENT
    assert world.offload.fatal == ""


def test_a_swap_that_fails_before_a_new_key_costs_the_peer_but_not_openvpn(world: World, client: int) -> None:
    world.dataplane.fail("swap_keys", REFUSED)
    world.perform(SwapKeys(client, 1))
    assert world.perform(new_key(client, 1)) == Done()
    assert "install_key" not in world.methods()


def test_a_swap_that_finds_the_data_plane_gone_ends_openvpn(world: World, client: int) -> None:
    world.dataplane.fail("swap_keys", GONE)
    world.perform(SwapKeys(client, 1))
    wait_for_swap(world)
    assert "gone" in world.offload.fatal


# A key that is refused


def test_a_refused_key_is_acknowledged_and_the_peer_lost(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.diary.clear()
    world.dataplane.fail("install_key", REFUSED)
    assert world.perform(new_key(ifindex, 1)) == Done()
    assert world.methods() == ["install_key", "delete_peer", "delete_socket"]
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
    assert errno_of(world.perform(GetPeer(ifindex, 1))) == ENOENT
    assert world.offload.fatal == ""


def test_a_key_for_an_unknown_peer_is_acknowledged_and_its_loss_told_again(world: World) -> None:
    ifindex, _ = world.make_device()
    assert world.perform(new_key(ifindex, 5)) == Done()
    assert world.deletions() == [(5, "TRANSPORT_ERROR")]
    assert world.diary == []


def test_a_refused_key_is_logged_without_its_bytes(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.fail("install_key", REFUSED)
    world.perform(new_key(ifindex, 1))
    assert "key refused" in world.events()
    assert "SECRET" not in str(world.log.entries)


def test_a_p2p_openvpn_that_has_not_set_its_keepalive_yet_is_not_ended_by_a_refused_key(world: World) -> None:
    # SET_PEER follows, and its ENOENT makes OpenVPN start over.
    ifindex, _ = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    world.dataplane.fail("install_key", REFUSED)
    assert world.perform(new_key(ifindex, 1)) == Done()
    assert world.offload.fatal == ""
    assert errno_of(world.perform(SetPeer(ifindex, 1, 10, 60))) == ENOENT


# The end


def test_a_new_peer_of_a_device_that_somebody_deleted_ends_openvpn(world: World) -> None:
    ifindex, device = world.make_device()
    world.dataplane.emit(device, device_deleted=event_pb2.DeviceDeleted(device=device))
    assert world.deletions() == []
    assert world.offload.fatal == ""
    assert errno_of(world.perform(new_peer(ifindex, 1))) == EINVAL
    assert "deleted" in world.offload.fatal


def test_after_the_end_nothing_is_called_and_nothing_fails_that_openvpn_cannot_bear(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.fail("get_peer", GONE)
    world.perform(GetPeer(ifindex, 1))
    world.diary.clear()
    for operation in (new_key(ifindex, 1), SetPeer(ifindex, 1, 1, 1), DelPeer(ifindex, 1), SwapKeys(ifindex, 1)):
        assert world.perform(operation) == Done()
    assert errno_of(world.perform(new_peer(ifindex, 1))) == EINVAL
    assert errno_of(world.perform(GetPeer(ifindex, 1))) == ENOENT
    assert errno_of(world.perform(NewLink("tun1", "ovpn-dco", True))) == EPERM
    assert world.perform(DumpPeers(ifindex)) == PeersFound(())
    assert world.diary == []


@pytest.mark.parametrize("method", ["adopt_socket", "create_peer"])
def test_a_new_peer_during_which_the_data_plane_dies_is_refused_at_once(world: World, method: str) -> None:
    ifindex, _ = world.make_device()
    world.dataplane.fail(method, GONE)
    assert errno_of(world.perform(new_peer(ifindex, 1))) == EINVAL
    assert world.dataplane.calls("delete_socket") == []
    assert world.offload.fatal


def test_a_key_during_which_the_data_plane_dies_is_acknowledged(world: World) -> None:
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.dataplane.fail("install_key", GONE)
    assert world.perform(new_key(ifindex, 1)) == Done()
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
