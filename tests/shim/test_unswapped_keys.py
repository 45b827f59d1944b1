"""OpenVPN is woken while the key that it installed last does not seal, and at no other time."""

from __future__ import annotations

import threading

import pytest

from controlplane_shim.netlink.message import NLMSG_NOOP, split
from controlplane_shim.operations import DelPeer, DelReason, Family, SetPeer, SwapKeys, WakeNotice
from controlplane_shim.peers import Device, Peer, Socket
from controlplane_shim.translate.translator import Translator
from controlplane_shim.unswapped_keys import WAKES, UnswappedKeys
from tests.shim.conftest import World, new_key


def let_time_pass() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()


@pytest.fixture
def client(world: World) -> int:
    """A P2P device with peer 1, whose interface index this is."""
    ifindex, _ = world.make_device(multipeer=False)
    world.make_peer(ifindex, 1)
    world.perform(SetPeer(ifindex, 1, 10, 60))
    world.offload._unswapped = UnswappedKeys(world.bell.ring, wake_seconds=0.01)
    return ifindex


def wakes(world: World) -> int:
    """How often OpenVPN is woken until it is left alone."""
    count = 0
    while True:
        let_time_pass()
        notices = [notice for notice in world.offload.take_notices() if isinstance(notice, WakeNotice)]
        if not notices:
            return count
        count += len(notices)


def test_a_client_is_woken_until_it_was_often_enough(world: World, client: int) -> None:
    world.perform(new_key(client, 1, slot=1))
    assert wakes(world) == WAKES


def test_a_client_is_left_alone_once_it_has_swapped(world: World, client: int) -> None:
    world.perform(new_key(client, 1, slot=1))
    world.perform(SwapKeys(client, 1))
    assert wakes(world) == 0


def test_another_key_begins_anew(world: World, client: int) -> None:
    world.perform(new_key(client, 1, slot=1))
    let_time_pass()
    world.offload.take_notices()
    world.perform(new_key(client, 1, slot=1))
    assert wakes(world) == WAKES


def test_a_key_that_seals_at_once_wakes_nobody(world: World, client: int) -> None:
    world.perform(new_key(client, 1, slot=0))
    assert wakes(world) == 0


def test_a_peer_that_is_gone_wakes_nobody(world: World, client: int) -> None:
    world.perform(new_key(client, 1, slot=1))
    world.perform(DelPeer(client, 1))
    assert wakes(world) == 0


def test_a_server_is_not_woken(world: World) -> None:
    """What wakes it turns the loop of no client's instance."""
    ifindex, _ = world.make_device()
    world.make_peer(ifindex, 1)
    world.perform(new_key(ifindex, 1, slot=1))
    assert wakes(world) == 0


@pytest.mark.parametrize(("family", "expected"), [(Family.OVPN_DCO_V2, 0), (Family.OVPN, 1)])
@pytest.mark.parametrize(("expired_peer_id", "is_the_same"), [(1, True), (2, False), (None, False)])
def test_openvpn_26_is_not_woken_to_read_again_that_its_peer_has_expired(
    family: Family, expected: int, expired_peer_id: int | None, *, is_the_same: bool
) -> None:
    device = Device("tun0", 5, multipeer=False, family=family, expired_peer_id=expired_peer_id)
    device.add(Peer(1, Socket(inode=1, local_port=1194), create_revision=1))
    unswapped = UnswappedKeys(lambda: None, wake_seconds=0.01)
    unswapped.add(device, device.peers[1])
    let_time_pass()
    assert len(unswapped.take_due()) == (expected if is_the_same else 1)
    let_time_pass()


def test_expiry_is_remembered_until_something_else_is_told(world: World, client: int) -> None:
    device = world.offload._holdings.device(client)
    world.offload._holdings.lose(device, device.peers[1], DelReason.TRANSPORT_ERROR)
    assert world.deletions() == [(1, "EXPIRED")]
    assert device.expired_peer_id == 1
    world.make_peer(client, 1)
    world.perform(SetPeer(client, 1, 0, 0))
    world.offload._holdings.lose(device, device.peers[1], DelReason.TRANSPORT_ERROR)
    assert world.deletions() == [(1, "TRANSPORT_ERROR")]
    assert device.expired_peer_id is None


@pytest.mark.parametrize("family", Family)
def test_openvpn_is_woken_by_a_message_that_every_reader_skips(family: Family) -> None:
    datagram = Translator().notice(WakeNotice(family))
    assert datagram is not None
    (message,) = split(datagram)
    assert (message.type, message.flags, message.seq, message.body) == (NLMSG_NOOP, 0, 0, b"")
