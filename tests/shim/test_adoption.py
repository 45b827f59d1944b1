"""Interfaces and twins of sockets on their way into the data plane."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from errno import EBUSY, EIO, EPERM
from pathlib import Path
from typing import Any

import pytest

from controlplane_shim.adoption import InterfaceRefusedError, adopt_socket, make_device
from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.event_feed import EventFeed
from controlplane_shim.operations import NewLink
from controlplane_shim.selftest import Link
from tests.descriptors import open_fds
from tests.shim.conftest import FAMILY, GONE, INSTANCE, FakeDataPlane, FakeHandoff, FakeLinux

EXISTS = DataPlaneError("ALREADY_EXISTS", "DEVICE_EXISTS", "there is one")
LIMIT = DataPlaneError("RESOURCE_EXHAUSTED", "DEVICE_LIMIT", "enough")
TUN0 = NewLink("tun0", "ovpn-dco", multipeer=True)


@pytest.fixture
def link(
    dataplane: FakeDataPlane,
    handoff: FakeHandoff,
    linux: FakeLinux,  # noqa: ARG001 - takes the place of Linux
) -> Iterator[Link]:
    feed = EventFeed(dataplane, INSTANCE, lambda: None)
    yield Link(dataplane, handoff, feed)
    feed.close()


def methods(dataplane: FakeDataPlane) -> list[str]:
    return [entry[0] for entry in dataplane.diary]


def namespace() -> int:
    return Path("/proc/self/ns/net").stat().st_ino


def test_a_device_is_handed_over_created_and_followed(link: Link, dataplane: FakeDataPlane) -> None:
    before = open_fds()
    device = make_device(link, TUN0, FAMILY)
    assert methods(dataplane) == ["hand_over", "create_device", "watch"]
    ((request,),) = dataplane.calls("create_device")
    assert request.tun_token == "t1"
    assert request.delete_on_handoff_close
    assert request.device.mtu == 0
    assert device.name == request.device.name == f"tun0.{namespace()}"
    assert (device.ifindex, device.multipeer, device.stream) == (100, True, 1)
    assert open_fds() <= before


def test_an_mss_goes_with_the_device(link: Link, dataplane: FakeDataPlane) -> None:
    dataplane.fail("create_device", EXISTS)
    make_device(link, TUN0, FAMILY, 1300)
    assert [request.device.tcp_mss_ipv4 for (request,) in dataplane.calls("create_device")] == [1300, 1300]


@pytest.mark.parametrize("name", ["_tun", "tün", "a@b", "-x"])
def test_a_name_that_the_data_plane_would_refuse_is_replaced(link: Link, name: str) -> None:
    assert make_device(link, NewLink(name, "ovpn-dco", True), FAMILY).name == f"ifindex-100.{namespace()}"


def test_a_stale_device_of_ours_is_deleted_and_creation_tried_once_more(link: Link, dataplane: FakeDataPlane) -> None:
    dataplane.fail("create_device", EXISTS)
    make_device(link, TUN0, FAMILY)
    assert methods(dataplane) == ["hand_over", "create_device", "delete_device", "hand_over", "create_device", "watch"]
    assert [request.tun_token for (request,) in dataplane.calls("create_device")] == ["t1", "t2"]


@pytest.mark.parametrize("errors", [[EXISTS, EXISTS], [LIMIT], [GONE]])
def test_a_device_that_is_refused_leaves_no_interface(
    link: Link, dataplane: FakeDataPlane, errors: list[DataPlaneError]
) -> None:
    before = open_fds()
    dataplane.fail("create_device", *errors)
    with pytest.raises(DataPlaneError):
        make_device(link, TUN0, FAMILY)
    assert dataplane.calls("delete_interface") == [(100,)]
    assert open_fds() <= before


def test_a_device_that_cannot_be_watched_leaves_no_interface(link: Link, dataplane: FakeDataPlane) -> None:
    dataplane.instance_id = "restarted"
    with pytest.raises(DataPlaneError):
        make_device(link, TUN0, FAMILY)
    assert dataplane.calls("delete_interface") == [(100,)]


@pytest.mark.parametrize(("errno", "told"), [(EBUSY, EBUSY), (EPERM, EPERM), (EIO, EPERM)])
def test_only_a_taken_name_makes_openvpn_try_the_next(link: Link, linux: FakeLinux, errno: int, told: int) -> None:
    linux.errors.append(OSError(errno, os.strerror(errno)))
    with pytest.raises(InterfaceRefusedError, match="tun0") as caught:
        make_device(link, TUN0, FAMILY)
    assert caught.value.errno == told


def test_a_socket_is_adopted_under_its_inode_and_no_copy_is_kept(
    link: Link, dataplane: FakeDataPlane, udp: socket.socket, log: Any
) -> None:
    before = open_fds()
    adopted = adopt_socket(link, "tun0.1", udp, log)
    number = os.fstat(udp.fileno()).st_ino
    assert (adopted.inode, adopted.local_port, adopted.peers) == (number, udp.getsockname()[1], 0)
    assert dataplane.diary == [("hand_over", "t1"), ("adopt_socket", "tun0.1", f"openvpn-{number}", "t1")]
    assert open_fds() <= before


def test_the_wish_for_the_dscp_goes_with_the_socket(
    link: Link, dataplane: FakeDataPlane, udp: socket.socket, log: Any
) -> None:
    adopted = adopt_socket(link, "tun0.1", udp, log, copy_dscp=True)
    assert dataplane.calls("adopt_socket") == [("tun0.1", adopted.name, "t1", "copy_dscp")]


def test_a_socket_that_is_refused_is_closed(link: Link, dataplane: FakeDataPlane, udp: socket.socket, log: Any) -> None:
    before = open_fds()
    dataplane.fail("adopt_socket", DataPlaneError("RESOURCE_EXHAUSTED", "SOCKET_LIMIT", "enough"))
    with pytest.raises(DataPlaneError):
        adopt_socket(link, "tun0.1", udp, log)
    assert open_fds() <= before
