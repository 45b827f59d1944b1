"""The operating system's part of devices and sockets, with its errors as the engine's.

Knows dataplane.tun and dataplane.transport. Must not know devices, workers or limits. Everything here
blocks and is called in a thread. `Resources` is the Protocol that tests put something else behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

from dataplane.engine import errors
from dataplane.engine.types import DeviceChange, DeviceSpec, Endpoint, EngineError, IPAddress, IPNetwork, SocketSpec
from dataplane.transport.socket_options import NO_OPTIONS, OptionRefused, SocketOptions, read_options
from dataplane.transport.tcp_socket import NotATcpStream, inspect_tcp, is_tcp
from dataplane.transport.udp_socket import NotAUdpSocket, SocketNotBound, bind_udp, enlarge_buffers, inspect_udp
from dataplane.tun.device import NotATun, inspect_tun, open_tun, set_carrier
from dataplane.tun.link import get_link, set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.tun.routes import NextHop, RouteWatch
from dataplane.vocabulary import Mode

_TUNGETDEVNETNS: Final = 0x54E3
"""<linux/if_tun.h>: gives a descriptor of the network namespace that the interface is in."""

_NO_SUCH_NAMESPACE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL})

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Tun:
    """An open TUN. mtu in bytes."""

    fd: int
    interface_name: str
    mtu: int


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """A bound UDP socket, or a connected TCP socket, which has a remote.

    ipv6_only: takes no IPv4 peers although its address is IPv6. options: as they were got.
    """

    fd: int
    address: IPAddress
    port: int
    ipv6_only: bool
    remote: Endpoint | None = None
    options: SocketOptions = NO_OPTIONS


class RouteFeed(Protocol):
    """The kernel's routes through an interface; see dataplane.tun.routes.RouteWatch."""

    @property
    def fd(self) -> int:
        """Readable when read() may have something to tell."""

    def read(self) -> dict[IPNetwork, tuple[NextHop, ...]]:
        """The networks whose next hops have changed, at first all. Raises OSError."""

    def close(self) -> None:
        """Closes the descriptor."""


class Resources(Protocol):
    """Makes what a device consists of. All methods raise EngineError and leave no descriptor open when they do."""

    def make_tun(self, spec: DeviceSpec) -> Tun:
        """Makes an interface and sets it up. The caller owns the descriptor.

        INTERFACE_EXISTS, NETWORK_NAMESPACE_NOT_FOUND, PERMISSION_DENIED, TUN_UNAVAILABLE, LINK_SETTING_REFUSED.
        """

    def adopt_tun(self, fd: int, mtu: int) -> Tun:
        """Inspects a descriptor, which stays the caller's, and sets the MTU of its interface (0: leaves it).

        NOT_A_TUN, PERMISSION_DENIED, LINK_SETTING_REFUSED.
        """

    def change_link(self, fd: int, change: DeviceChange) -> None:
        """Changes settings of a TUN's interface.

        NOT_A_TUN (any more: the interface was deleted), PERMISSION_DENIED, LINK_SETTING_REFUSED.
        """

    def set_carrier(self, fd: int, *, on: bool) -> None:
        """Sets the carrier of a TUN's interface.

        NOT_A_TUN (any more), LINK_SETTING_REFUSED (Linux before 5.0).
        """

    def watch_routes(self, fd: int) -> RouteFeed:
        """Follows the kernel's routes through a TUN's interface. The caller owns the feed.

        NOT_A_TUN (any more), PERMISSION_DENIED, LINK_SETTING_REFUSED (the interface is gone).
        """

    def bind_udp(self, spec: SocketSpec) -> BoundSocket:
        """Makes a socket. The caller owns the descriptor.

        BIND_FAILED, SOCKET_OPTION_REFUSED, NETWORK_NAMESPACE_NOT_FOUND, PERMISSION_DENIED.
        """

    def adopt_socket(self, fd: int) -> BoundSocket:
        """Inspects a descriptor, which stays the caller's, and gives a UDP socket large buffers.

        NOT_A_UDP_SOCKET, SOCKET_NOT_BOUND, SOCKET_NOT_CONNECTED.
        """


class LinuxResources:
    """The real ones."""

    def make_tun(self, spec: DeviceSpec) -> Tun:
        """See Resources."""
        try:
            fd, name = _in_namespace(spec.network_namespace, lambda: open_tun(spec.interface_name))
        except PermissionError as error:
            raise errors.permission_denied("make a TUN", error) from error
        except OSError as error:
            if error.errno in {errno.EBUSY, errno.EEXIST}:
                raise errors.interface_exists(spec.interface_name) from error
            raise errors.tun_unavailable(spec.interface_name, error) from error
        with closed_on_failure(fd):
            if spec.mode is Mode.P2P:
                with suppress(EngineError):  # see carrier.py, which will tell; here, so that it is never up with one
                    self.set_carrier(fd, on=False)
            self.change_link(fd, DeviceChange(spec.mtu, spec.addresses or None, spec.admin_up or None))
            return Tun(fd, name, spec.mtu)

    def adopt_tun(self, fd: int, mtu: int) -> Tun:
        """See Resources."""
        name = _interface_name(fd)
        with _link_errors(name), _namespace_of(fd) as namespace:
            link = get_link(name, namespace)
        if link.packet_info:  # TUNGETIFF cannot tell
            raise errors.not_a_tun(f"{name} puts packet information before each packet; make it with IFF_NO_PI")
        if mtu:
            self.change_link(fd, DeviceChange(mtu=mtu))
        return Tun(fd, name, mtu or link.mtu)

    def change_link(self, fd: int, change: DeviceChange) -> None:
        """See Resources."""
        name = _interface_name(fd)  # asked anew, for an interface may be renamed
        with _link_errors(name), _namespace_of(fd) as namespace:
            set_link(name, namespace, mtu=change.mtu, admin_up=change.admin_up, addresses=change.addresses)

    def set_carrier(self, fd: int, *, on: bool) -> None:
        """See Resources."""
        with _link_errors(_interface_name(fd)):
            set_carrier(fd, on=on)

    def watch_routes(self, fd: int) -> RouteFeed:
        """See Resources."""
        name = _interface_name(fd)
        with _link_errors(name), _namespace_of(fd) as namespace:
            return RouteWatch(name, namespace)

    def bind_udp(self, spec: SocketSpec) -> BoundSocket:
        """See Resources."""
        try:
            udp = _in_namespace(
                spec.network_namespace,
                lambda: bind_udp(spec.address, spec.port, ipv6_only=spec.ipv6_only, options=spec.options),
            )
        except OptionRefused as refused:
            raise _option_refused(refused) from refused
        except OSError as error:
            raise errors.bind_failed(spec.address, spec.port, error) from error
        with closed_on_failure(fd := udp.detach()):
            bound = _inspected(fd)
            return replace(bound, options=replace(bound.options, copy_dscp=spec.options.copy_dscp))

    def adopt_socket(self, fd: int) -> BoundSocket:
        """See Resources."""
        if is_tcp(fd):
            return _adopt_tcp(fd)
        bound = _inspected(fd)
        with socket.socket(fileno=os.dup(fd)) as udp:
            enlarge_buffers(udp)
            return replace(bound, options=read_options(udp))


def _adopt_tcp(fd: int) -> BoundSocket:
    try:
        info = inspect_tcp(fd)
    except NotATcpStream as error:
        raise errors.socket_not_connected(str(error)) from error
    address, port, _ = info.local
    with socket.socket(fileno=os.dup(fd)) as tcp:
        options = read_options(tcp)
    return BoundSocket(fd, address, port, ipv6_only=False, remote=Endpoint(*info.remote), options=options)


@contextmanager
def closed_on_failure(fd: int) -> Iterator[None]:
    """Closes a descriptor if the block fails."""
    try:
        yield
    except BaseException:
        os.close(fd)
        raise


def _in_namespace(path: str, function: Callable[[], Result]) -> Result:
    """Calls a function in a namespace; only what the function itself raises comes out as OSError."""
    try:
        return in_network_namespace(path, function)
    except OSError as error:
        if not path or error.filename != path:
            raise
        if error.errno in _NO_SUCH_NAMESPACE:
            raise errors.network_namespace_not_found(path) from error
        raise errors.permission_denied(f"enter the network namespace {path}", error) from error


def _inspected(fd: int) -> BoundSocket:
    try:
        info = inspect_udp(fd)
    except NotAUdpSocket as error:
        raise errors.not_a_udp_socket(str(error)) from error
    except SocketNotBound as error:
        raise errors.socket_not_bound(str(error)) from error
    with socket.socket(fileno=os.dup(fd)) as udp:
        return BoundSocket(fd, info.address, info.port, info.ipv6_only, options=read_options(udp))


def _option_refused(refused: OptionRefused) -> EngineError:
    if isinstance(refused.error, PermissionError):
        return errors.permission_denied(f"set the {refused.option} of a socket", refused.error)
    return errors.socket_option_refused(refused.option, refused.error)


def _interface_name(tun_fd: int) -> str:
    try:
        return inspect_tun(tun_fd)
    except NotATun as error:
        raise errors.not_a_tun(str(error)) from error


@contextmanager
def _namespace_of(tun_fd: int) -> Iterator[str]:
    """Path of the namespace that a TUN's interface is in; empty for our own, which can be had without privileges.

    The interface need not be where it was made, nor in a namespace that has a name.
    """
    try:
        namespace_fd = fcntl.ioctl(tun_fd, _TUNGETDEVNETNS)
    except PermissionError:
        yield ""
        return
    try:
        path = Path(f"/proc/self/fd/{namespace_fd}")
        yield "" if path.samefile("/proc/self/ns/net") else str(path)
    finally:
        os.close(namespace_fd)


@contextmanager
def _link_errors(interface_name: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise errors.permission_denied(f"change the interface {interface_name}", error) from error
    except OSError as error:
        raise errors.link_setting_refused(interface_name, error) from error
