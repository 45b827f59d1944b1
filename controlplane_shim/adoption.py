"""Makes what the data plane adopts: the TUN interface of a device, the twin of a UDP socket, the pair for a TCP one.

Knows in which order to make, hand over and name them, and how to undo that. Keeps no state. Must not know which
peers there are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import string
from contextlib import ExitStack
from errno import EBUSY, EPERM
from pathlib import Path
from typing import Final

from structlog.typing import FilteringBoundLogger

from controlplane_shim.dataplane_client import DEADLINE_SECONDS, DataPlaneError
from controlplane_shim.gathering import prepare_gathering
from controlplane_shim.operations import Family, NewLink
from controlplane_shim.peers import Device, Socket
from controlplane_shim.selftest import Link
from controlplane_shim.supervisor.handler import Caller
from controlplane_shim.tcp_switch import ControlStream
from controlplane_shim.translate import rpc
from controlplane_shim.tun import delete_interface, open_tun
from controlplane_shim.udp_split import split

_NAME_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "._-")


class InterfaceRefusedError(Exception):
    """Linux does not give the TUN interface. errno: for OpenVPN."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


def make_device(link: Link, operation: NewLink, family: Family, mss: int = 0) -> Device:
    """Makes a TUN interface in the shim's network namespace and a device of it; its event stream is followed.

    Raises InterfaceRefusedError or DataPlaneError; then there is neither interface nor device.
    """
    try:
        tun = open_tun(operation.name)
    except OSError as error:
        # Any errno but EPERM makes `--dev tun` try the next of 256 names. Worth it only if the name is the trouble.
        errno = EBUSY if error.errno == EBUSY else EPERM
        raise InterfaceRefusedError(errno, f"no TUN interface {operation.name}: {error.strerror}") from error
    try:
        ifindex = socket.if_nametoindex(operation.name)
        name = _device_name(operation.name, ifindex)
        try:
            _create_device(link, operation, name, tun, mss)
            stream = link.feed.follow(name, DEADLINE_SECONDS).stream
        except DataPlaneError:
            # The data plane may still hold the descriptor; without the interface it deletes what it made of it.
            delete_interface(ifindex)
            raise
    finally:
        os.close(tun)
    return Device(name, ifindex, operation.multipeer, family, stream)


def adopt_socket(
    link: Link, device: str, openvpn: socket.socket, log: FilteringBoundLogger, *, copy_dscp: bool = False
) -> Socket:
    """Splits the port of OpenVPN's UDP socket, gives the second socket to a device and, if possible, gathers all there.

    copy_dscp: see Tuning. Raises UnsuitableSocketError or DataPlaneError.
    """
    adopted = Socket(inode(openvpn), openvpn.getsockname()[1])
    with split(openvpn) as twin, ExitStack() as unless_gathered:
        token = link.handoff.hand_over(twin.fileno())
        gathering = prepare_gathering(openvpn, log)
        if gathering is None:
            link.dataplane.adopt_socket(device, adopted.name, token, copy_dscp=copy_dscp)
            return adopted
        unless_gathered.callback(gathering.close)
        control_token = link.handoff.hand_over(gathering.outlet.fileno())
        has_outlet = link.dataplane.adopt_socket(device, adopted.name, token, control_token, copy_dscp=copy_dscp)
        if gathering.begin(twin, has_outlet=has_outlet):
            adopted.gathering = gathering
            unless_gathered.pop_all()
    return adopted


def adopt_stream(link: Link, device: str, openvpn: socket.socket, caller: Caller, number: int) -> Socket:
    """Gives OpenVPN's TCP socket to a device, and OpenVPN a control stream under its number instead.

    Nothing is read from the TCP socket before OpenVPN has got its control stream; if the data plane then refuses, the
    TCP socket is put back untouched. Raises UnsuitableSocketError, OSError or DataPlaneError.
    """
    with ExitStack() as unless_adopted:
        stream = ControlStream(openvpn)
        unless_adopted.callback(stream.close)
        token = link.handoff.hand_over(openvpn.fileno())
        control_token = link.handoff.hand_over(stream.outlet.fileno())
        caller.replace_fd(number, stream.openvpn.fileno())
        unless_adopted.callback(_put_back, caller, number, openvpn)
        adopted = Socket(stream.inode, openvpn.getsockname()[1], stream=stream)
        link.dataplane.adopt_socket(device, adopted.name, token, control_token)
        unless_adopted.pop_all()
    stream.begin()
    return adopted


def inode(openvpn: socket.socket) -> int:
    """What tells OpenVPN's sockets apart, whatever descriptors they have."""
    return os.fstat(openvpn.fileno()).st_ino


def _put_back(caller: Caller, number: int, openvpn: socket.socket) -> None:
    # If that fails too, the pair is closed and OpenVPN reads the end of its stream.
    with contextlib.suppress(OSError):
        caller.replace_fd(number, openvpn.fileno())


def _create_device(link: Link, operation: NewLink, name: str, tun: int, mss: int) -> None:
    try:
        link.dataplane.create_device(rpc.create_device(operation, name, link.handoff.hand_over(tun), mss))
    except DataPlaneError as error:
        if error.reason != "DEVICE_EXISTS":
            raise
        # It is an earlier one of this interface name, whose interface is gone: the data plane is about to notice.
        link.dataplane.delete_device(name)
        link.dataplane.create_device(rpc.create_device(operation, name, link.handoff.hand_over(tun), mss))


def _device_name(interface: str, ifindex: int) -> str:
    """Unique among the sessions of a machine, for their network namespaces have different inode numbers."""
    network_namespace = Path("/proc/thread-self/ns/net").stat().st_ino
    legal = interface[0].isalnum() and _NAME_CHARACTERS.issuperset(interface)
    return f"{interface if legal else f'ifindex-{ifindex}'}.{network_namespace}"
