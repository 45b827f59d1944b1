"""Carries out in the data plane what OpenVPN asks for.

Knows what each operation means there and what OpenVPN makes of each answer. Must not know netlink bytes, port ids
or groups (session.py), nor events (holdings.py).

NewKey never fails, for any error to it ends the whole OpenVPN: it is answered Done, and the peer is lost instead.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from errno import EINVAL, EIO, ENOENT, ENOTSOCK, EPERM
from typing import Final

from structlog.typing import FilteringBoundLogger

from controlplane_shim.adoption import InterfaceRefusedError, adopt_socket, adopt_stream, inode, make_device
from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.event_feed import Bell
from controlplane_shim.holdings import Holdings, RefusedError
from controlplane_shim.link_socket import Transport, UnsuitableSocketError, link_socket
from controlplane_shim.operations import (
    DeletionNotice,
    DelKey,
    DelPeer,
    DelReason,
    Done,
    DumpPeers,
    Failed,
    Family,
    GetKey,
    GetPeer,
    KeyFound,
    NewKey,
    NewLink,
    NewPeer,
    Outcome,
    PeerFound,
    PeerNotice,
    PeerOperation,
    PeersFound,
    SetPeer,
    SwapKeys,
    WakeNotice,
)
from controlplane_shim.peer_timers import PeerTimers
from controlplane_shim.peers import Device, Peer, Socket
from controlplane_shim.selftest import Link
from controlplane_shim.supervisor.handler import Caller
from controlplane_shim.translate import rpc
from controlplane_shim.tuning import Tuning
from controlplane_shim.unswapped_keys import UnswappedKeys

SWAP_DELAY_SECONDS: Final = 0.1
"""How long the old key seals after a client's swap.

At a rekey OpenVPN's client swaps the keys first and sends the last packet of the handshake after that, within a
millisecond or so if it gets the CPU. A data packet sealed with the new key and sent in between overtakes the handshake,
and its server must drop it; the old key it takes for long enough.
"""

AHEAD_SECONDS: Final = 1.0
"""How long the old key of a server's peer over TCP seals after a new one was installed.

OpenVPN asks for the swap when the next handshake begins and the client gives the old key up: too late for what is
sealed with it and waits for the connection. Its server installs a key when the client has acknowledged all that
makes it, so the client has the key; what the server acknowledged itself is in the stream before any data packet that
is sealed now. Over UDP an acknowledgement may be lost, and little waits. A client must not do likewise, for its server
may still be asking whether to trust it.
"""

SECONDARY: Final = 1
"""Slot of a key that does not seal."""


class Offload:
    """The data channel of one OpenVPN. For one thread."""

    def __init__(self, link: Link, bell: Bell, log: FilteringBoundLogger, tuning: Tuning) -> None:
        """bell: rung when take_notices() has something to give or to do, or `fatal` has changed."""
        self._link = link
        self._dataplane = link.dataplane
        self._holdings = Holdings(link, bell, log)
        self._bell = bell
        self._swaps = PeerTimers(bell.ring, SWAP_DELAY_SECONDS)
        self._unswapped = UnswappedKeys(bell.ring)
        self._not_asked = PeerTimers(bell.ring, AHEAD_SECONDS)
        self._tuning = tuning
        self._log = log

    @property
    def fatal(self) -> str:
        """Why OpenVPN cannot be served any more; empty while it can."""
        return self._holdings.fatal

    def modes(self, family: Family) -> dict[int, bool]:
        """Whether a device is MP, by ifindex, for the devices of a family."""
        return self._holdings.modes(family)

    def perform(self, operation: NewLink | PeerOperation, family: Family, caller: Caller) -> Outcome:
        """Does what OpenVPN asks for; what cannot be done becomes Failed."""
        if self.fatal:
            return _after_the_end(operation)
        try:
            return self._dispatch(operation, family, caller)
        except (RefusedError, UnsuitableSocketError, InterfaceRefusedError) as refusal:
            return Failed(refusal.errno, str(refusal))
        except DataPlaneError as error:
            if error.gone:
                self._holdings.give_up(f"the data plane is gone ({error})")
                return _after_the_end(operation)
            return rpc.failure(operation, error.code, error.reason, error.message)

    def take_told(self) -> list[PeerNotice]:
        """What OpenVPN must be told because of what it asked for, or was to be told before; looks at no events."""
        return self._holdings.take_told()

    def take_notices(self) -> list[PeerNotice]:
        """What OpenVPN must be told, in order. Carries out the swaps that are due."""
        for device, peer in self._not_asked.take_due():
            peer.is_ahead = True
            self._swap_at_last(device, peer)
        for device, peer in self._swaps.take_due():
            self._swap_at_last(device, peer)
        wakes = [WakeNotice(device.family) for device in self._unswapped.take_due()]
        return self._holdings.take_notices() + wakes

    def close(self) -> None:
        """Gives everything back. Takes a few seconds at most."""
        self._holdings.close()
        self._link.close()

    def _dispatch(self, operation: NewLink | PeerOperation, family: Family, caller: Caller) -> Outcome:
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
                return self._swap_keys(operation)
            case DelKey():
                device, peer = self._holdings.peer(operation.ifindex, operation.peer_id)
                self._settle(device, peer)
                self._dataplane.delete_key(rpc.delete_key(operation, device.name))
                return Done()
            case GetKey():
                return self._get_key(operation)
            case GetPeer():
                device, peer = self._holdings.peer(operation.ifindex, operation.peer_id)
                found = self._dataplane.get_peer(rpc.get_peer(operation, device.name))
                return PeerFound(rpc.peer_info(found, peer.socket.local_port))
            case DumpPeers():
                return self._dump_peers(operation)

    def _new_link(self, operation: NewLink, family: Family) -> Outcome:
        device = make_device(self._link, operation, family, self._tuning.mss)
        self._holdings.add(device)
        self._log.info("device created", device=device.name, multipeer=device.multipeer)
        return Done()

    def _new_peer(self, operation: NewPeer, caller: Caller) -> Outcome:
        device = self._holdings.device(operation.ifindex)
        if device.deleted:
            # The kernel driver's answer would be ENODEV, which ends OpenVPN; so does this, in order.
            self._holdings.give_up(f"device {device.name} was deleted by somebody else")
            return _after_the_end(operation)
        twin = self._twin(device, operation, caller)
        if twin.stream is not None:
            # A connection has its addresses; those that a client names beside it mean nothing to the kernel either.
            operation = replace(operation, remote=None, local=None)
        try:
            request = rpc.create_peer(operation, device.name, twin.name, multipeer=device.multipeer)
            created = self._dataplane.create_peer(request)
        except DataPlaneError as error:
            if not error.gone:
                self._holdings.release_sockets(device)
            raise
        for displaced in device.add(Peer(operation.peer_id, twin, created.create_revision)):
            self._tell(device, displaced.peer_id, DelReason.TEARDOWN)
        if operation.keepalive_timeout is not None:
            device.expires = bool(operation.keepalive_timeout)
        self._holdings.release_sockets(device)
        return Done()

    def _twin(self, device: Device, operation: NewPeer, caller: Caller) -> Socket:
        """The data plane's socket beside the one that OpenVPN names by its descriptor; made if there is none."""
        try:
            fd = caller.fetch_fd(operation.socket_fd)
        except OSError as error:
            raise RefusedError(ENOTSOCK, f"descriptor {operation.socket_fd} of OpenVPN: {error.strerror}") from error
        openvpn, transport = link_socket(fd)
        with openvpn:
            known = device.sockets.get(inode(openvpn))
            match transport:
                case Transport.UDP:
                    if operation.remote is None:
                        raise RefusedError(EINVAL, "missing remote IP address for UDP socket")
                    self._holdings.check_unused_elsewhere(device, inode(openvpn))
                    twin = known or adopt_socket(
                        self._link, device.name, openvpn, self._log, copy_dscp=self._tuning.copy_dscp
                    )
                case Transport.TCP:
                    twin = self._take_stream(device, openvpn, operation.socket_fd, caller)
                case Transport.SWITCHED:
                    twin = _unused_stream(device, known)
        device.sockets[twin.inode] = twin
        return twin

    def _take_stream(self, device: Device, openvpn: socket.socket, number: int, caller: Caller) -> Socket:
        try:
            twin = adopt_stream(self._link, device.name, openvpn, caller, number)
        except OSError as error:
            raise RefusedError(EIO, f"TCP socket {number} of OpenVPN: {error.strerror}") from error
        if twin.stream is not None:
            self._bell.ring_at_hang_up(twin.stream.outlet.fileno())
        return twin

    def _set_peer(self, operation: SetPeer) -> Outcome:
        device, peer = self._holdings.peer(operation.ifindex, operation.peer_id)
        if operation.remote is not None and peer.socket.stream is not None:
            raise RefusedError(EINVAL, "unexpected remote IP address with TCP socket")
        request = rpc.update_peer(operation, device.name)
        if request.update_mask.paths:
            self._dataplane.update_peer(request)
        if operation.keepalive_timeout is not None:
            device.expires = bool(operation.keepalive_timeout)
        return Done()

    def _del_peer(self, operation: DelPeer) -> Outcome:
        device, _ = self._holdings.peer(operation.ifindex, operation.peer_id)
        device.remove(operation.peer_id)
        # The kernel driver sends a notice even to the one who asked.
        self._tell(device, operation.peer_id, DelReason.USERSPACE)
        self._holdings.delete_peer(device, operation.peer_id)
        self._holdings.release_sockets(device)
        return Done()

    def _new_key(self, operation: NewKey, family: Family) -> Outcome:
        try:
            device, peer = self._holdings.peer(operation.ifindex, operation.peer_id)
            self._settle(device, peer)
        except RefusedError:
            # OpenVPN has not read the notice of its deletion, or lost it among answers. It may have it again.
            lost = DeletionNotice(family, operation.ifindex, operation.peer_id, DelReason.TRANSPORT_ERROR)
            self._holdings.tell(lost)
            return Done()
        try:
            self._dataplane.install_key(rpc.install_key(operation, device.name))
        except DataPlaneError as error:
            if error.gone:
                raise
            self._give_peer_up("key refused", device, peer, error)
        else:
            if operation.slot == SECONDARY:
                self._hasten(device, peer)
        return Done()

    def _swap_keys(self, operation: SwapKeys) -> Outcome:
        device, peer = self._holdings.peer(operation.ifindex, operation.peer_id)
        if peer.is_ahead:
            peer.is_ahead = False
            return Done()
        self._settle(device, peer)
        if device.multipeer:
            self._dataplane.swap_keys(rpc.swap_keys(operation, device.name))
        else:
            self._unswapped.remove(peer)
            self._swaps.add(device, peer)
        return Done()

    def _get_key(self, operation: GetKey) -> Outcome:
        device, peer = self._holdings.peer(operation.ifindex, operation.peer_id)
        self._settle(device, peer)
        found = self._dataplane.get_key(rpc.get_key(operation, device.name))
        return KeyFound(rpc.key_info(operation, found))

    def _hasten(self, device: Device, peer: Peer) -> None:
        """Sees to it that a key in the secondary slot is used before the other end gives the primary one up."""
        if not device.multipeer:
            self._unswapped.add(device, peer)
        elif peer.socket.stream is not None:
            self._not_asked.add(device, peer)

    def _settle(self, device: Device, peer: Peer) -> None:
        """Has the slots as OpenVPN believes them to be, before anything else is done to them. Raises as _swap()."""
        self._not_asked.take(peer)
        if self._swaps.take(peer) or peer.is_ahead:
            peer.is_ahead = False
            self._swap(device, peer)

    def _swap(self, device: Device, peer: Peer) -> None:
        """Exchanges the slots. Raises RefusedError if that failed and the peer was given up."""
        try:
            self._dataplane.swap_keys(rpc.swap_keys(SwapKeys(device.ifindex, peer.peer_id), device.name))
        except DataPlaneError as error:
            if error.gone:
                raise
            self._give_peer_up("keys not swapped", device, peer, error)
            raise RefusedError(ENOENT, f"peer {peer.peer_id} was given up") from error

    def _swap_at_last(self, device: Device, peer: Peer) -> None:
        try:
            self._swap(device, peer)
        except RefusedError:
            pass  # the peer was given up, which is among the notices
        except DataPlaneError as error:
            self._holdings.give_up(f"the data plane is gone ({error})")

    def _give_peer_up(self, event: str, device: Device, peer: Peer, error: DataPlaneError) -> None:
        self._log.warning(event, device=device.name, peer_id=peer.peer_id, error=str(error))
        self._holdings.delete_peer(device, peer.peer_id)
        self._holdings.lose(device, peer, DelReason.TRANSPORT_ERROR)

    def _dump_peers(self, operation: DumpPeers) -> Outcome:
        device = self._holdings.device(operation.ifindex)
        if not device.multipeer and device.family is Family.OVPN_DCO_V2:
            # That driver looks into the table of an MP device only.
            return PeersFound(())
        found = self._dataplane.list_peers(device.name)
        ports = {peer.peer_id: peer.socket.local_port for peer in device.peers.values()}
        return PeersFound(tuple(rpc.peer_info(peer, ports[peer.peer_id]) for peer in found if peer.peer_id in ports))

    def _tell(self, device: Device, peer_id: int, reason: DelReason) -> None:
        self._holdings.tell(DeletionNotice(device.family, device.ifindex, peer_id, reason))


def _unused_stream(device: Device, known: Socket | None) -> Socket:
    """The control stream of an earlier peer that OpenVPN has not closed, for another one. Raises RefusedError."""
    if known is None:
        raise RefusedError(ENOTSOCK, "the socket is neither UDP nor TCP")
    if known.peers and device.multipeer:
        raise RefusedError(ENOTSOCK, "the TCP socket has a peer already")
    return known


def _after_the_end(operation: NewLink | PeerOperation) -> Outcome:
    """What lets OpenVPN, which is about to be ended, clean up without a word."""
    match operation:
        case NewLink():
            return Failed(EPERM, "the data plane is gone")
        case NewPeer():
            return Failed(EINVAL, "the data plane is gone")
        case GetPeer() | GetKey():
            return Failed(ENOENT, "the data plane is gone")
        case DumpPeers():
            return PeersFound(())
        case _:
            return Done()
