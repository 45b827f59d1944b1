"""A server's peers over TCP: their keys are swapped before OpenVPN asks for it, and it never finds out."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from ovpn.dataplane.v1 import common_pb2

from controlplane_shim.operations import DelKey, DelPeer, Done, SwapKeys
from controlplane_shim.peer_timers import PeerTimers
from controlplane_shim.translate import rpc
from tests.shim.conftest import GONE, World, new_key, new_peer
from tests.shim.test_offload import REFUSED

FD = 9


@pytest.fixture
def server(world: World) -> Iterator[int]:
    """An MP device with peer 1 over TCP, whose interface index this is, and an empty diary."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        tcp, _address = listening.accept()
        with tcp:
            world.caller.numbers[FD] = tcp.fileno()
            ifindex, _ = world.make_device()
            assert world.perform(replace(new_peer(ifindex, 1, FD), remote=None)) == Done()
            world.offload._not_asked = PeerTimers(world.bell.ring, delay_seconds=0.01)
            world.diary.clear()
            yield ifindex


def let_time_pass(world: World) -> list[tuple[int, str]]:
    """The deletions that are told meanwhile."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    return world.deletions()


def test_keys_are_swapped_once_before_openvpn_asks(world: World, server: int) -> None:
    world.perform(new_key(server, 1, slot=1))
    assert world.methods() == ["install_key"]
    let_time_pass(world)
    assert world.methods() == ["install_key", "swap_keys"]
    assert world.perform(SwapKeys(server, 1)) == Done()
    assert world.perform(DelKey(server, 1, 1)) == Done()
    assert world.diary[2:] == [("delete_key", 1, common_pb2.KEY_SLOT_SECONDARY, rpc.LINGER_SECONDS)]


def test_next_swap_is_openvpns_again(world: World, server: int) -> None:
    world.perform(new_key(server, 1, slot=1))
    let_time_pass(world)
    for _ in range(2):
        world.perform(SwapKeys(server, 1))
    assert world.methods() == ["install_key", "swap_keys", "swap_keys"]


def test_keys_are_swapped_once_if_openvpn_asks_first(world: World, server: int) -> None:
    world.perform(new_key(server, 1, slot=1))
    world.perform(SwapKeys(server, 1))
    let_time_pass(world)
    assert world.methods() == ["install_key", "swap_keys"]


@pytest.mark.parametrize("slot", [0, 1])
def test_another_change_finds_the_slots_as_openvpn_believes_them_to_be(world: World, server: int, slot: int) -> None:
    world.perform(new_key(server, 1, slot=1))
    let_time_pass(world)
    world.perform(DelKey(server, 1, slot))
    assert world.methods() == ["install_key", "swap_keys", "swap_keys", "delete_key"]
    let_time_pass(world)
    world.perform(SwapKeys(server, 1))
    assert world.methods()[4:] == ["swap_keys"]


def test_another_key_is_swapped_in_its_turn(world: World, server: int) -> None:
    for _ in range(2):
        world.perform(new_key(server, 1, slot=1))
        let_time_pass(world)
    assert world.methods() == ["install_key", "swap_keys", "swap_keys", "install_key", "swap_keys"]


def test_first_key_is_where_it_belongs(world: World, server: int) -> None:
    world.perform(new_key(server, 1, slot=0))
    let_time_pass(world)
    assert world.methods() == ["install_key"]


def test_over_udp_openvpn_says_when(world: World, server: int) -> None:
    world.make_peer(server, 2)
    world.diary.clear()
    world.perform(new_key(server, 2, slot=1))
    let_time_pass(world)
    assert world.methods() == ["install_key"]


def test_a_peer_that_is_gone_is_forgotten(world: World, server: int) -> None:
    world.perform(new_key(server, 1, slot=1))
    world.perform(DelPeer(server, 1))
    let_time_pass(world)
    assert "swap_keys" not in world.methods()


def test_a_swap_that_fails_costs_the_peer(world: World, server: int) -> None:
    world.dataplane.fail("swap_keys", REFUSED)
    world.perform(new_key(server, 1, slot=1))
    assert let_time_pass(world) == [(1, "TRANSPORT_ERROR")]
    assert world.offload.fatal == ""


def test_a_swap_that_finds_the_data_plane_gone_ends_openvpn(world: World, server: int) -> None:
    world.dataplane.fail("swap_keys", GONE)
    world.perform(new_key(server, 1, slot=1))
    let_time_pass(world)
    assert "gone" in world.offload.fatal
