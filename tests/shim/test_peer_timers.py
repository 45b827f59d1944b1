"""Peers for which something is to be done a moment later."""

from __future__ import annotations

import threading

import pytest

from controlplane_shim.operations import Family
from controlplane_shim.peer_timers import PeerTimers
from controlplane_shim.peers import Device, Peer, Socket

SOCKET = Socket(inode=1, local_port=1194)


@pytest.fixture
def device() -> Device:
    device = Device("tun0", 5, multipeer=False, family=Family.OVPN_DCO_V2)
    device.add(Peer(1, SOCKET, create_revision=1))
    return device


def let_time_pass() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()


def test_a_peer_is_given_out_once_when_its_time_has_come(device: Device) -> None:
    rings: list[None] = []
    timers = PeerTimers(lambda: rings.append(None), delay_seconds=0.01)
    timers.add(device, device.peers[1])
    let_time_pass()
    assert len(rings) == 1
    assert timers.take_due() == [(device, device.peers[1])]
    assert timers.take_due() == []


def test_a_peer_whose_time_has_not_come_is_not_given_out(device: Device) -> None:
    timers = PeerTimers(lambda: None, delay_seconds=3600)
    timers.add(device, device.peers[1])
    assert timers.take_due() == []
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


def test_a_peer_that_was_taken_early_is_not_given_out_again(device: Device) -> None:
    timers = PeerTimers(lambda: None, delay_seconds=0.01)
    timers.add(device, device.peers[1])
    assert timers.take(device.peers[1])
    assert not timers.take(device.peers[1])
    let_time_pass()
    assert timers.take_due() == []


def test_a_peer_that_was_taken_and_added_again_waits_its_whole_time(device: Device) -> None:
    timers = PeerTimers(lambda: None, delay_seconds=0.01)
    timers.add(device, device.peers[1])
    let_time_pass()
    timers.take(device.peers[1])
    timers.add(device, device.peers[1])
    let_time_pass()
    assert timers.take_due() == [(device, device.peers[1])]
    assert timers.take_due() == []


def test_a_peer_that_is_gone_is_forgotten(device: Device) -> None:
    timers = PeerTimers(lambda: None, delay_seconds=0.01)
    timers.add(device, device.peers[1])
    device.add(Peer(2, SOCKET, create_revision=2))
    let_time_pass()
    assert timers.take_due() == []
