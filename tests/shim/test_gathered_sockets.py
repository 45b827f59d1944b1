"""When a socket's port is gathered, and when that ends: before its twin is deleted, and never without it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ovpn.dataplane.v1 import event_pb2

from controlplane_shim import adoption
from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.operations import DelPeer, Done, Failed, NewLink
from tests.descriptors import open_fds
from tests.shim.conftest import GONE, World, new_peer

GATHERED = ["hand_over", "hand_over", "adopt_socket", "begin", "create_peer"]


class FakeGathering:
    """Writes into the diary what becomes of it."""

    def __init__(self, diary: list[tuple[Any, ...]]) -> None:
        self.outlet, self._other = socket.socketpair()
        self._diary = diary

    def begin(self, ours: socket.socket, *, has_outlet: bool) -> bool:
        assert ours.fileno() >= 0
        self._diary.append(("begin", has_outlet))
        return has_outlet

    def end(self) -> None:
        self._diary.append(("end",))

    def close(self) -> None:
        self._diary.append(("close",))
        self.outlet.close()
        self._other.close()


@pytest.fixture
def gathering(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An Offload on a machine where ports can be gathered. Nothing may be left open."""
    before = open_fds()
    monkeypatch.setattr(adoption, "prepare_gathering", lambda _openvpn, _log: FakeGathering(world.diary))
    yield world
    assert world.methods().count("close") >= world.methods().count("begin")
    assert open_fds() <= before


def delete_last_peer(world: World, ifindex: int) -> None:
    world.diary.clear()
    assert world.perform(DelPeer(ifindex, 1)) == Done()


def test_the_data_plane_gets_the_control_outlet_before_all_is_gathered(gathering: World) -> None:
    ifindex, _ = gathering.make_device()
    gathering.make_peer(ifindex, 1)
    assert gathering.methods() == GATHERED
    ((_, name, *tokens),) = gathering.dataplane.calls("adopt_socket")
    assert tokens == ["t2", "t3"]  # t1 was the TUN
    assert gathering.dataplane.calls("begin") == [(True,)]
    assert name.startswith("openvpn-")
    gathering.perform(DelPeer(ifindex, 1))


def test_the_split_is_back_before_the_twin_is_deleted_and_what_waits_is_handed_back_after(gathering: World) -> None:
    ifindex, _ = gathering.make_device()
    gathering.make_peer(ifindex, 1)
    delete_last_peer(gathering, ifindex)
    assert gathering.methods() == ["delete_peer", "end", "delete_socket", "close"]


def test_a_data_plane_without_outlets_gets_the_socket_alone(gathering: World) -> None:
    gathering.dataplane.knows_outlets = False
    ifindex, _ = gathering.make_device()
    gathering.make_peer(ifindex, 1)
    assert gathering.methods() == [*GATHERED[:-1], "close", "create_peer"]
    assert gathering.dataplane.calls("begin") == [(False,)]
    delete_last_peer(gathering, ifindex)
    assert gathering.methods() == ["delete_peer", "delete_socket"]


def test_a_refused_socket_is_not_gathered(gathering: World) -> None:
    ifindex, _ = gathering.make_device()
    gathering.dataplane.fail("adopt_socket", DataPlaneError("RESOURCE_EXHAUSTED", "SOCKET_LIMIT", "enough"))
    assert isinstance(gathering.perform(new_peer(ifindex, 1)), Failed)
    assert gathering.methods() == ["hand_over", "hand_over", "adopt_socket", "close"]


def test_a_twin_that_could_not_be_deleted_is_given_up_with_its_device(gathering: World) -> None:
    ifindex, _ = gathering.make_device()
    gathering.make_peer(ifindex, 1)
    gathering.dataplane.fail("delete_socket", DataPlaneError("UNAVAILABLE", "WORKER_RESTARTING", "wait"))
    delete_last_peer(gathering, ifindex)
    assert gathering.methods() == ["delete_peer", "end", "delete_socket"]
    gathering.offload.close()
    assert gathering.methods()[3:] == ["delete_device", "close"]


def test_it_ends_with_a_device_that_somebody_else_deleted(gathering: World) -> None:
    ifindex, device = gathering.make_device()
    gathering.make_peer(ifindex, 1)
    gathering.diary.clear()
    gathering.dataplane.emit(device, device_deleted=event_pb2.DeviceDeleted(device=device))
    gathering.deletions()
    assert gathering.methods() == ["close"]


def test_it_ends_with_a_device_whose_name_is_used_again(gathering: World) -> None:
    ifindex, _ = gathering.make_device()
    gathering.make_peer(ifindex, 1)
    gathering.linux.interfaces.clear()
    assert gathering.perform(NewLink("tun0", "ovpn-dco", multipeer=True)) == Done()
    assert gathering.methods()[-1] == "close"


def test_it_ends_with_the_data_plane(gathering: World) -> None:
    ifindex, _ = gathering.make_device()
    gathering.make_peer(ifindex, 1)
    gathering.dataplane.fail("delete_peer", GONE)
    delete_last_peer(gathering, ifindex)
    assert gathering.offload.fatal
    assert gathering.methods() == ["delete_peer", "close"]
