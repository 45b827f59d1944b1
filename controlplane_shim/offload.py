"""Carries operations out in the data plane, and tells which peers were lost.

Knows what each operation means there and what OpenVPN makes of each answer. Must not know netlink bytes, port ids
or groups (session.py), nor how interfaces and sockets are made (adoption.py).

Three rules stand above all:
* The twin of a UDP socket is deleted before OpenVPN hears that its last peer is gone: it may bind the port anew.
* NewKey never fails, for any error to it ends the whole OpenVPN. It is answered Done, and the peer is lost.
* When the data plane does not answer, everything is lost at once (`fatal`), and no further call is made.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ENOENT, ENOTSOCK, EPERM
from typing import Final

from ovpn.dataplane.v1 import event_pb2
from structlog.typing import FilteringBoundLogger

from controlplane_shim.adoption import InterfaceRefusedError, adopt_socket, inode, make_device
from controlplane_shim.dataplane_client import DEADLINE_SECONDS, DataPlaneError
from controlplane_shim.event_feed import Arrived, Ended
from controlplane_shim.operations import (
    DeletionNotice,
    DelKey,
    DelPeer,
    DelReason,
    Done,
    DumpPeers,
    Failed,
    Family,
    GetFamily,
    GetPeer,
    NewKey,
    NewLink,
    NewPeer,
    Operation,
    Outcome,
    PeerFound,
    PeersFound,
    SetPeer,
    SwapKeys,
)
from controlplane_shim.peers import Device, Peer
from controlplane_shim.selftest import Link
from controlplane_shim.supervisor.handler import Caller
from controlplane_shim.translate import rpc
from controlplane_shim.udp_split import UnsuitableSocketError, udp_socket

CLOSE_SECONDS: Final = 2.0
"""How long the deletion of a device may take when the program has ended."""


class RefusedError(Exception):
    """The operation makes no sense here. errno: for OpenVPN, never ENODEV or ENOMEM, which end it."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class Offload:
    """The devices, sockets and peers of one session. For one thread."""

    def __init__(self, link: Link, ring: Callable[[], None], log: FilteringBoundLogger) -> None:
        """ring: called when take_deletions() has something to give, or `fatal` was set."""
        self._link = link
        self._dataplane = link.dataplane
        self._ring = ring
        self._log = log
        self._devices: dict[int, Device] = {}
        self._deletions: list[DeletionNotice] = []
        self.fatal = ""
        """Why OpenVPN cannot be served any more; empty while it can."""

    def perform(self, operation: Operation, family: Family, caller: Caller) -> Outcome:
        """Does what OpenVPN asks for; what cannot be done becomes Failed. GetFamily is the session's."""
        if self.fatal:
            return _after_the_end(operation)
        try:
            return self._dispatch(operation, family, caller)
        except (RefusedError, UnsuitableSocketError, InterfaceRefusedError) as refusal:
            return Failed(refusal.errno, str(refusal))
        except DataPlaneError as error:
            if error.gone:
                self._give_up(f"the data plane is gone ({error})")
                return _after_the_end(operation)
            return rpc.failure(operation, error.code, error.reason, error.message)

    def take_deletions(self) -> list[DeletionNotice]:
        """The peers that OpenVPN must be told of, in order. Acts on the events that came in."""
        for item in self._link.feed.take():
            try:
                self._on_event(item)
            except DataPlaneError as error:
                self._give_up(f"the data plane is gone ({error})")
        deletions, self._deletions = self._deletions, []
        # A peer_id that was given away again is somebody else; the notice would kill the newcomer.
        return [notice for notice in deletions if not self._has_peer(notice.ifindex, notice.peer_id)]

    def close(self) -> None:
        """Deletes the devices with all they have, and closes the link. Takes a few seconds at most."""
        self.take_deletions()
        for device in self._devices.values():
            if device.deleted:
                continue
            try:
                self._dataplane.delete_device(device.name, CLOSE_SECONDS)
            except DataPlaneError as error:
                self._log.warning("device not deleted", device=device.name, error=str(error))
                if error.gone:
                    break
        self._link.close()

    def _dispatch(self, operation: Operation, family: Family, caller: Caller) -> Outcome:
        match operation:
            case NewLink():
                return self._new_link(operation, family)
            case NewPeer():
                return self._new_peer(operation, caller)
            case SetPeer():
                return self._set_peer(operation)
            case DelPeer():
                return self._del_peer(operation)
            case NewKey():
                return self._new_key(operation, family)
            case SwapKeys():
                device, _ = self._find(operation.ifindex, operation.peer_id)
                self._dataplane.swap_keys(rpc.swap_keys(operation, device.name))
                return Done()
            case DelKey():
                device, _ = self._find(operation.ifindex, operation.peer_id)
                self._dataplane.delete_key(rpc.delete_key(operation, device.name))
                return Done()
            case GetPeer():
                device, peer = self._find(operation.ifindex, operation.peer_id)
                found = self._dataplane.get_peer(rpc.get_peer(operation, device.name))
                return PeerFound(rpc.peer_info(found, peer.socket.local_port))
            case DumpPeers():
                return self._dump_peers(operation)
            case GetFamily():
                return Done()

    # Operations

    def _new_link(self, operation: NewLink, family: Family) -> Outcome:
        device = make_device(self._link, operation, family)
        for old in [old for old in self._devices.values() if old.name == device.name]:
            self._link.feed.unfollow(old.stream)
            del self._devices[old.ifindex]
        self._devices[device.ifindex] = device
        self._log.info("device created", device=device.name, multipeer=device.multipeer)
        return Done()

    def _new_peer(self, operation: NewPeer, caller: Caller) -> Outcome:
        device = self._device(operation.ifindex)
        if device.deleted:
            # The kernel driver's answer would be ENODEV, which ends OpenVPN; so does this, in order.
            self._give_up(f"device {device.name} was deleted by somebody else")
            return _after_the_end(operation)
        if operation.remote is None:
            raise RefusedError(EINVAL, "a UDP peer without a remote address")
        try:
            fd = caller.fetch_fd(operation.socket_fd)
        except OSError as error:
            text = f"descriptor {operation.socket_fd} of OpenVPN: {error.strerror}"
            raise RefusedError(ENOTSOCK, text) from error
        with udp_socket(fd) as openvpn:
            number = inode(openvpn)
            if number not in device.sockets:
                device.sockets[number] = adopt_socket(self._link, device.name, openvpn)
        twin = device.sockets[number]
        try:
            request = rpc.create_peer(operation, device.name, twin.name, multipeer=device.multipeer)
            created = self._dataplane.create_peer(request)
        except DataPlaneError as error:
            if not error.gone:
                self._release_sockets(device)
            raise
        for displaced in device.add(Peer(operation.peer_id, twin, created.create_revision)):
            self._tell(device, displaced.peer_id, DelReason.TEARDOWN)
        self._release_sockets(device)
        return Done()

    def _set_peer(self, operation: SetPeer) -> Outcome:
        device, _ = self._find(operation.ifindex, operation.peer_id)
        if operation.keepalive_interval is None and operation.keepalive_timeout is None:
            return Done()
        self._dataplane.update_peer(rpc.update_peer(operation, device.name))
        device.expires = bool(operation.keepalive_timeout)
        return Done()

    def _del_peer(self, operation: DelPeer) -> Outcome:
        device, _ = self._find(operation.ifindex, operation.peer_id)
        device.remove(operation.peer_id)
        # The kernel driver sends a notice even to the one who asked.
        self._tell(device, operation.peer_id, DelReason.USERSPACE)
        self._delete_peer(device, operation.peer_id)
        self._release_sockets(device)
        return Done()

    def _new_key(self, operation: NewKey, family: Family) -> Outcome:
        try:
            device, peer = self._find(operation.ifindex, operation.peer_id)
        except RefusedError:
            # OpenVPN has not read the notice of its deletion, or lost it among answers. It may have it again.
            self._deletions.append(
                DeletionNotice(family, operation.ifindex, operation.peer_id, DelReason.TRANSPORT_ERROR)
            )
            self._ring()
            return Done()
        try:
            self._dataplane.install_key(rpc.install_key(operation, device.name))
        except DataPlaneError as error:
            if error.gone:
                raise
            self._log.warning("key refused, peer given up", device=device.name, peer_id=peer.peer_id, error=str(error))
            self._delete_peer(device, peer.peer_id)
            self._lose(device, peer, DelReason.TRANSPORT_ERROR)
        return Done()

    def _dump_peers(self, operation: DumpPeers) -> Outcome:
        device = self._device(operation.ifindex)
        if not device.multipeer:
            return PeersFound(())
        found = self._dataplane.list_peers(device.name)
        ports = {peer.peer_id: peer.socket.local_port for peer in device.peers.values()}
        return PeersFound(tuple(rpc.peer_info(peer, ports[peer.peer_id]) for peer in found if peer.peer_id in ports))

    # Events

    def _on_event(self, item: Arrived | Ended) -> None:
        device = next((device for device in self._devices.values() if device.stream == item.stream), None)
        if isinstance(item, Ended):
            self._on_stream_ended(device, item.error)
        elif device is not None:
            self._on_change(device, item.event)

    def _on_change(self, device: Device, event: event_pb2.WatchResponse) -> None:
        match event.WhichOneof("event"):
            case "peer_deleted":
                deleted = event.peer_deleted
                peer = device.peers.get(deleted.peer_id)
                if peer is not None and peer.create_revision == deleted.create_revision:
                    self._lose(device, peer, rpc.del_reason(deleted.reason))
            case "device_deleted":
                self._log.info("device deleted", device=device.name)
                device.deleted = True
                device.sockets.clear()
                self._link.feed.unfollow(device.stream)
            case "worker_restarted":
                self._log.warning("worker restarted, peers lost", device=device.name)
            case "key_swap_needed":
                # This family has no notice for it; OpenVPN renegotiates by its own clock.
                self._log.warning("key used up", device=device.name, peer_id=event.key_swap_needed.peer_id)
            case _:
                pass

    def _on_stream_ended(self, device: Device | None, error: DataPlaneError) -> None:
        if device is None or error.code != "RESOURCE_EXHAUSTED":
            self._give_up(f"the data plane is gone ({error})")
            return
        # WATCH_TOO_SLOW: events of ours were thrown away. A new snapshot tells which peers are left.
        followed = self._link.feed.follow(device.name, DEADLINE_SECONDS)
        device.stream = followed.stream
        for peer in device.missing_from(followed.peers):
            self._lose(device, peer, DelReason.TRANSPORT_ERROR)

    # What both share

    def _device(self, ifindex: int) -> Device:
        device = self._devices.get(ifindex)
        if device is None:
            raise RefusedError(EINVAL, f"interface {ifindex} is no device of this session")
        return device

    def _find(self, ifindex: int, peer_id: int) -> tuple[Device, Peer]:
        device = self._device(ifindex)
        peer = device.peers.get(peer_id)
        if peer is None:
            raise RefusedError(ENOENT, f"no peer {peer_id}")
        return device, peer

    def _has_peer(self, ifindex: int, peer_id: int) -> bool:
        device = self._devices.get(ifindex)
        return device is not None and peer_id in device.peers

    def _delete_peer(self, device: Device, peer_id: int) -> None:
        try:
            self._dataplane.delete_peer(rpc.delete_peer(DelPeer(device.ifindex, peer_id), device.name))
        except DataPlaneError as error:
            if error.gone:
                raise
            if error.reason != "PEER_NOT_FOUND":
                self._log.warning("peer not deleted", device=device.name, peer_id=peer_id, error=str(error))

    def _release_sockets(self, device: Device) -> None:
        for twin in device.take_unused_sockets():
            try:
                self._dataplane.delete_socket(device.name, twin.name)
            except DataPlaneError as error:
                if error.gone:
                    raise
                self._log.warning("socket not deleted", device=device.name, socket=twin.name, error=str(error))

    def _lose(self, device: Device, peer: Peer, reason: DelReason) -> None:
        """A peer is gone, and not because OpenVPN asked for it."""
        device.remove(peer.peer_id)
        self._tell(device, peer.peer_id, _heeded_reason(device, reason))
        self._release_sockets(device)
        if not device.multipeer and device.expires is False:
            self._give_up(f"its only peer is gone ({reason.name}), which OpenVPN notices by --keepalive only")

    def _tell(self, device: Device, peer_id: int, reason: DelReason) -> None:
        self._deletions.append(DeletionNotice(device.family, device.ifindex, peer_id, reason))
        self._ring()

    def _give_up(self, why: str) -> None:
        if self.fatal:
            return
        self.fatal = why
        self._log.error("OpenVPN cannot be served any more", reason=why)
        for device in self._devices.values():
            for peer_id in device.peers:
                self._tell(device, peer_id, DelReason.TRANSPORT_ERROR)
            device.peers.clear()
        self._ring()


def _heeded_reason(device: Device, reason: DelReason) -> DelReason:
    """The nearest reason that OpenVPN 2.6 and 2.7 do not ignore (process_incoming_dco, process_incoming_del_peer)."""
    if device.multipeer:
        # A server takes USERSPACE for the echo of its own request.
        return DelReason.TRANSPORT_ERROR if reason is DelReason.USERSPACE else reason
    # With one peer only EXPIRED matters: it does what --ping-restart or --ping-exit say, and one of them must be set.
    return DelReason.EXPIRED if device.expires else reason


def _after_the_end(operation: Operation) -> Outcome:
    """What lets OpenVPN, which is about to be ended, clean up without a word."""
    match operation:
        case NewLink():
            return Failed(EPERM, "the data plane is gone")
        case NewPeer():
            return Failed(EINVAL, "the data plane is gone")
        case GetPeer():
            return Failed(ENOENT, "the data plane is gone")
        case DumpPeers():
            return PeersFound(())
        case _:
            return Done()
