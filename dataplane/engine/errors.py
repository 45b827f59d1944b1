"""The refusals of the engine: one function a reason, so that words and metadata are the same everywhere.

Knows the reasons that the comments in proto/ovpn/dataplane/v1 promise. Must not know when they apply.
"""

from __future__ import annotations

import errno
from typing import Final

from dataplane.engine.types import EngineError, ErrorKind, IPAddress
from dataplane.messages import Reply
from dataplane.vocabulary import KeySlot

_KIND_OF_WORKER_ERROR: Final = {
    "PEER_NOT_FOUND": ErrorKind.NOT_FOUND,
    "SOCKET_NOT_FOUND": ErrorKind.NOT_FOUND,
    "KEY_SLOT_EMPTY": ErrorKind.NOT_FOUND,
    "PEER_EXISTS": ErrorKind.ALREADY_EXISTS,
    "SOCKET_EXISTS": ErrorKind.ALREADY_EXISTS,
    "VPN_ADDRESS_IN_USE": ErrorKind.ALREADY_EXISTS,
    "ADDRESS_FAMILY_MISMATCH": ErrorKind.FAILED_PRECONDITION,
    "SOCKET_IN_USE": ErrorKind.FAILED_PRECONDITION,
    "SOCKET_CLOSED": ErrorKind.FAILED_PRECONDITION,
    "KEY_REUSE": ErrorKind.FAILED_PRECONDITION,
}


def device_not_found(device: str) -> EngineError:
    """There is no such device, or it is being deleted."""
    return EngineError(ErrorKind.NOT_FOUND, "DEVICE_NOT_FOUND", f"no device {device!r}", device=device)


def device_exists(device: str) -> EngineError:
    """The name is taken, perhaps by a device that is still being made."""
    return EngineError(ErrorKind.ALREADY_EXISTS, "DEVICE_EXISTS", f"device {device!r} exists", device=device)


def device_limit(limit: int) -> EngineError:
    """No more devices."""
    return EngineError(
        ErrorKind.RESOURCE_EXHAUSTED, "DEVICE_LIMIT", f"there are {limit} devices, the limit", limit=str(limit)
    )


def shutting_down() -> EngineError:
    """The engine is being closed."""
    return EngineError(ErrorKind.UNAVAILABLE, "SHUTTING_DOWN", "the data plane is shutting down")


def interface_exists(interface: str) -> EngineError:
    """Linux has an interface of this name already."""
    return EngineError(
        ErrorKind.ALREADY_EXISTS,
        "INTERFACE_EXISTS",
        f"there is an interface {interface!r}, which is not ours",
        interface=interface,
    )


def network_namespace_not_found(path: str) -> EngineError:
    """The path does not lead to a network namespace."""
    return EngineError(
        ErrorKind.NOT_FOUND, "NETWORK_NAMESPACE_NOT_FOUND", f"no network namespace at {path!r}", path=path
    )


def permission_denied(deed: str, error: OSError) -> EngineError:
    """The daemon lacks a capability."""
    return EngineError(
        ErrorKind.PERMISSION_DENIED,
        "PERMISSION_DENIED",
        f"the data plane may not {deed}: {error.strerror}",
        deed=deed,
        errno=_errno_name(error),
    )


def tun_unavailable(interface: str, error: OSError) -> EngineError:
    """Linux does not make the TUN."""
    return EngineError(
        ErrorKind.FAILED_PRECONDITION,
        "TUN_UNAVAILABLE",
        f"cannot make the TUN {interface!r}: {error.strerror}",
        interface=interface,
        errno=_errno_name(error),
    )


def not_a_tun(detail: str) -> EngineError:
    """The descriptor handed over is something else."""
    return EngineError(ErrorKind.FAILED_PRECONDITION, "NOT_A_TUN", detail, detail=detail)


def link_setting_refused(interface: str, error: OSError) -> EngineError:
    """Linux does not take the MTU, the state or an address, or the interface is gone."""
    return EngineError(
        ErrorKind.FAILED_PRECONDITION,
        "LINK_SETTING_REFUSED",
        f"cannot change the interface {interface!r}: {error.strerror}",
        interface=interface,
        errno=_errno_name(error),
    )


def socket_not_found(device: str, socket: str) -> EngineError:
    """The device has no such socket."""
    return EngineError(
        ErrorKind.NOT_FOUND,
        "SOCKET_NOT_FOUND",
        f"device {device!r} has no socket {socket!r}",
        device=device,
        socket=socket,
    )


def socket_exists(device: str, socket: str) -> EngineError:
    """The name is taken."""
    return EngineError(
        ErrorKind.ALREADY_EXISTS,
        "SOCKET_EXISTS",
        f"device {device!r} has a socket {socket!r}",
        device=device,
        socket=socket,
    )


def socket_limit(device: str, limit: int) -> EngineError:
    """No more sockets on this device."""
    return EngineError(
        ErrorKind.RESOURCE_EXHAUSTED,
        "SOCKET_LIMIT",
        f"device {device!r} has {limit} sockets, the limit",
        device=device,
        limit=str(limit),
    )


def bind_failed(address: IPAddress, port: int, error: OSError) -> EngineError:
    """Linux does not let a socket have this address and port."""
    return EngineError(
        ErrorKind.FAILED_PRECONDITION,
        "BIND_FAILED",
        f"cannot bind to {address} port {port}: {error.strerror}",
        address=str(address),
        port=str(port),
        errno=_errno_name(error),
    )


def not_a_udp_socket(detail: str) -> EngineError:
    """The descriptor handed over is something else."""
    return EngineError(ErrorKind.FAILED_PRECONDITION, "NOT_A_UDP_SOCKET", detail, detail=detail)


def socket_not_bound(detail: str) -> EngineError:
    """The socket handed over has no port."""
    return EngineError(ErrorKind.FAILED_PRECONDITION, "SOCKET_NOT_BOUND", detail, detail=detail)


def socket_not_connected(detail: str) -> EngineError:
    """The TCP socket handed over has no other end."""
    return EngineError(ErrorKind.FAILED_PRECONDITION, "SOCKET_NOT_CONNECTED", detail, detail=detail)


def socket_in_use(device: str, socket: str, peer_id: int) -> EngineError:
    """A TCP socket carries one peer."""
    return EngineError(
        ErrorKind.FAILED_PRECONDITION,
        "SOCKET_IN_USE",
        f"the TCP socket {socket!r} of device {device!r} carries peer {peer_id}",
        device=device,
        socket=socket,
        peer_id=str(peer_id),
    )


def socket_closed(device: str, socket: str) -> EngineError:
    """The connection of a TCP socket has ended."""
    return EngineError(
        ErrorKind.FAILED_PRECONDITION,
        "SOCKET_CLOSED",
        f"the connection of socket {socket!r} of device {device!r} has ended",
        device=device,
        socket=socket,
    )


def not_a_control_outlet(detail: str) -> EngineError:
    """The second descriptor handed over is something else."""
    return EngineError(ErrorKind.FAILED_PRECONDITION, "NOT_A_CONTROL_OUTLET", detail, detail=detail)


def peer_not_found(device: str, peer_id: int) -> EngineError:
    """The device has no such peer."""
    return EngineError(
        ErrorKind.NOT_FOUND,
        "PEER_NOT_FOUND",
        f"device {device!r} has no peer {peer_id}",
        device=device,
        peer_id=str(peer_id),
    )


def peer_exists(device: str, peer_id: int) -> EngineError:
    """The peer-id is taken."""
    return EngineError(
        ErrorKind.ALREADY_EXISTS,
        "PEER_EXISTS",
        f"device {device!r} has a peer {peer_id}",
        device=device,
        peer_id=str(peer_id),
    )


def peer_limit(device: str, limit: int) -> EngineError:
    """No more peers on this device."""
    return EngineError(
        ErrorKind.RESOURCE_EXHAUSTED,
        "PEER_LIMIT",
        f"device {device!r} has {limit} peers, the limit",
        device=device,
        limit=str(limit),
    )


def vpn_address_in_use(device: str, address: IPAddress, owner: int) -> EngineError:
    """Another peer of the device has this address inside the tunnel."""
    return EngineError(
        ErrorKind.ALREADY_EXISTS,
        "VPN_ADDRESS_IN_USE",
        f"peer {owner} of device {device!r} has the VPN address {address}",
        device=device,
        peer_id=str(owner),
        address=str(address),
    )


def address_family_mismatch(remote: IPAddress, other: IPAddress) -> EngineError:
    """Packets cannot go to `remote` from a socket or local address of another family."""
    return EngineError(
        ErrorKind.FAILED_PRECONDITION,
        "ADDRESS_FAMILY_MISMATCH",
        f"{remote} cannot be reached from {other}",
        remote=str(remote),
        local=str(other),
    )


def key_slot_empty(device: str, peer_id: int, slot: KeySlot) -> EngineError:
    """No key is installed there."""
    return EngineError(
        ErrorKind.NOT_FOUND,
        "KEY_SLOT_EMPTY",
        f"the {slot.name.lower()} slot of peer {peer_id} of device {device!r} is empty",
        device=device,
        peer_id=str(peer_id),
        slot=slot.name,
    )


def worker_restarting(device: str) -> EngineError:
    """The worker died; a new one is on its way. A later call may succeed."""
    return EngineError(
        ErrorKind.UNAVAILABLE,
        "WORKER_RESTARTING",
        f"the worker of device {device!r} is being restarted",
        device=device,
    )


def worker_failed(device: str, detail: str) -> EngineError:
    """The worker does not come up, or not for long."""
    return EngineError(
        ErrorKind.UNAVAILABLE,
        "WORKER_FAILED",
        f"the worker of device {device!r} failed: {detail}",
        device=device,
        detail=detail,
    )


def worker_refused(device: str, reply: Reply) -> EngineError:
    """The worker did not do what it was told, for the reason it gives; one that is not known is INTERNAL."""
    kind = _KIND_OF_WORKER_ERROR.get(reply.error)
    detail = reply.detail or reply.error
    return EngineError(
        kind or ErrorKind.INTERNAL,
        reply.error if kind else "INTERNAL",
        f"the worker of device {device!r} refused: {detail}",
        device=device,
        detail=detail,
    )


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))
