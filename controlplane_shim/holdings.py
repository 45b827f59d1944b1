"""What a session holds in the data plane, how it is given back, and how it is lost.

Knows devices, sockets and peers, the events that concern them, and which deletion notices OpenVPN heeds. Must not
know what OpenVPN asks for (offload.py).

The twin of a UDP socket is deleted before OpenVPN hears that its last peer is gone, for it may bind the port anew.
When the data plane does not answer, all peers are lost at once and OpenVPN is to be ended (`fatal`).
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, ENOTSOCK
from typing import Final

from ovpn.dataplane.v1 import event_pb2
from structlog.typing import FilteringBoundLogger

from controlplane_shim.dataplane_client import DEADLINE_SECONDS, DataPlaneError
from controlplane_shim.event_feed import Arrived, Bell, Ended
from controlplane_shim.operations import (
    DeletionNotice,
    DelPeer,
    DelReason,
    Family,
    FloatNotice,
    KeySwapNotice,
    PeerNotice,
)
from controlplane_shim.peers import Device, Peer, Socket
from controlplane_shim.selftest import Link
from controlplane_shim.tcp_switch import ControlStream
from controlplane_shim.translate import rpc

CLOSE_SECONDS: Final = 2.0
"""How long the deletion of a device may take when the program has ended."""


class RefusedError(Exception):
    """The operation makes no sense here. errno: for OpenVPN, never ENODEV or ENOMEM, which end it."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class Holdings:
    """The devices of one session and all they have. For one thread; methods may raise DataPlaneError if it is gone."""

    def __init__(self, link: Link, bell: Bell, log: FilteringBoundLogger) -> None:
        """bell: rung when take_notices() has something to give or to do, or `fatal` was set."""
        self._link = link
        self._ring = bell.ring
        self._log = log
        self._devices: dict[int, Device] = {}
        self._told: list[PeerNotice] = []
        self._ending: list[ControlStream] = []
        self.fatal = ""
        """Why OpenVPN cannot be served any more; empty while it can."""

    def add(self, device: Device) -> None:
        """Takes a new device; an earlier one of its name is gone."""
        for earlier in [earlier for earlier in self._devices.values() if earlier.name == device.name]:
            self._link.feed.unfollow(earlier.stream)
            _forget_sockets(earlier)
            del self._devices[earlier.ifindex]
        self._devices[device.ifindex] = device

    def modes(self, family: Family) -> dict[int, bool]:
        """Whether a device is MP, by ifindex, for the devices of a family."""
        return {ifindex: device.multipeer for ifindex, device in self._devices.items() if device.family is family}

    def device(self, ifindex: int) -> Device:
        """The device of an interface. Raises RefusedError."""
        device = self._devices.get(ifindex)
        if device is None:
            raise RefusedError(EINVAL, f"interface {ifindex} is no device of this session")
        return device

    def peer(self, ifindex: int, peer_id: int) -> tuple[Device, Peer]:
        """A peer and its device. Raises RefusedError."""
        device = self.device(ifindex)
        peer = device.peers.get(peer_id)
        if peer is None:
            raise RefusedError(ENOENT, f"cannot find peer with id {peer_id}")
        return device, peer

    def check_unused_elsewhere(self, device: Device, inode: int) -> None:
        """A socket carries the peers of one device. Raises RefusedError if another has this one."""
        for other in self._devices.values():
            if other is not device and inode in other.sockets:
                raise RefusedError(ENOTSOCK, f"the socket is used by device {other.name}")

    def tell(self, notice: PeerNotice) -> None:
        """Queues a notice for OpenVPN."""
        self._told.append(notice)
        self._ring()

    def take_told(self) -> list[PeerNotice]:
        """What OpenVPN must be told so far, in order; without a look at the events that came in."""
        told, self._told = self._told, []
        # A peer_id that was given away again is somebody else; the notice would kill the newcomer.
        return [
            notice
            for notice in told
            if not (isinstance(notice, DeletionNotice) and self._has_peer(notice.ifindex, notice.peer_id))
        ]

    def take_notices(self) -> list[PeerNotice]:
        """What OpenVPN must be told, in order. Acts on the events that came in.

        What OpenVPN is given here it has to hear before the streams of those peers end, which is done the next time.
        """
        self._end_streams()
        for item in self._link.feed.take():
            try:
                self._on_item(item)
            except DataPlaneError as error:
                self.give_up(f"the data plane is gone ({error})")
        self._release_abandoned_streams()
        return self.take_told()

    def delete_peer(self, device: Device, peer_id: int) -> None:
        """Deletes a peer in the data plane, where it may have gone by itself."""
        try:
            self._link.dataplane.delete_peer(rpc.delete_peer(DelPeer(device.ifindex, peer_id), device.name))
        except DataPlaneError as error:
            if error.gone:
                raise
            if error.reason != "PEER_NOT_FOUND":
                self._log.warning("peer not deleted", device=device.name, peer_id=peer_id, error=str(error))

    def release_sockets(self, device: Device) -> None:
        """Deletes the sockets that no peer uses. Afterwards nobody but OpenVPN holds their ports."""
        for twin in device.unused_sockets():
            if twin.gathering is not None:
                twin.gathering.end()
            try:
                self._link.dataplane.delete_socket(device.name, twin.name)
            except DataPlaneError as error:
                if error.gone:
                    raise
                self._log.warning("socket not deleted", device=device.name, socket=twin.name, error=str(error))
            else:
                _forget_socket(device, twin)

    def _release_abandoned_streams(self) -> None:
        """Those that OpenVPN has closed after their peers were gone."""
        try:
            for device in self._devices.values():
                if any(twin.stream is not None and twin.is_unused for twin in device.sockets.values()):
                    self.release_sockets(device)
        except DataPlaneError as error:
            self.give_up(f"the data plane is gone ({error})")

    def _end_streams(self) -> None:
        """OpenVPN closes each connection whose end it reads, and its client connects again."""
        while self._ending:
            self._ending.pop().hang_up()

    def lose(self, device: Device, peer: Peer, reason: DelReason) -> None:
        """A peer is gone, and not because OpenVPN asked for it."""
        self._log.info("peer lost", device=device.name, peer_id=peer.peer_id, reason=reason.name)
        device.remove(peer.peer_id)
        stream = peer.socket.stream
        ends = stream is not None and reason is not DelReason.EXPIRED
        if stream is not None and ends:
            self._ending.append(stream)
        heeded = _heeded_reason(device, reason, ends=ends)
        device.expired_peer_id = peer.peer_id if heeded is DelReason.EXPIRED else None
        self.tell(DeletionNotice(device.family, device.ifindex, peer.peer_id, heeded))
        self.release_sockets(device)
        if stream is None and not device.multipeer and device.expires is False:
            self.give_up(f"its only peer is gone ({reason.name}), which OpenVPN notices by --keepalive only")

    def give_up(self, why: str) -> None:
        """Everything is lost; OpenVPN is to be ended."""
        if self.fatal:
            return
        self.fatal = why
        self._log.error("OpenVPN cannot be served any more", reason=why)
        for device in self._devices.values():
            for peer_id in device.peers:
                self.tell(DeletionNotice(device.family, device.ifindex, peer_id, DelReason.TRANSPORT_ERROR))
            device.peers.clear()
            _forget_sockets(device)
        self._ring()

    def close(self) -> None:
        """Deletes the devices with all they have. Takes a few seconds at most."""
        self.take_notices()
        for device in self._devices.values():
            if device.deleted:
                continue
            try:
                self._link.dataplane.delete_device(device.name, CLOSE_SECONDS)
            except DataPlaneError as error:
                if error.gone:
                    # Then the device is gone as well, or ends with the hand-off connection.
                    return
                self._log.warning("device not deleted", device=device.name, error=str(error))
            _forget_sockets(device)

    def _has_peer(self, ifindex: int, peer_id: int) -> bool:
        device = self._devices.get(ifindex)
        return device is not None and peer_id in device.peers

    def _on_item(self, item: Arrived | Ended) -> None:
        device = next((device for device in self._devices.values() if device.stream == item.stream), None)
        if isinstance(item, Ended):
            self._on_stream_ended(device, item.error)
        elif device is not None:
            self._on_event(device, item.event)

    def _on_event(self, device: Device, event: event_pb2.WatchResponse) -> None:
        match event.WhichOneof("event"):
            case "peer_deleted":
                deleted = event.peer_deleted
                peer = device.peers.get(deleted.peer_id)
                if peer is not None and peer.create_revision == deleted.create_revision:
                    self.lose(device, peer, rpc.del_reason(deleted.reason))
            case "device_deleted":
                self._log.info("device deleted", device=device.name)
                device.deleted = True
                _forget_sockets(device)
                self._link.feed.unfollow(device.stream)
            case "socket_closed":
                self._on_socket_closed(device, event.socket_closed.socket)
            case "worker_restarted":
                self._log.warning("worker restarted", device=device.name)
            case "peer_floated":
                self._on_floated(device, event.peer_floated)
            case "key_swap_needed":
                self._on_key_used_up(device, event.key_swap_needed)
            case "key_limit_near":
                # In time, so that OpenVPN has a new key before this one ends.
                near = event.key_limit_near
                self.tell(KeySwapNotice(device.family, device.ifindex, near.peer_id, near.key_id))
            case _:
                pass

    def _on_key_used_up(self, device: Device, used_up: event_pb2.KeySwapNeeded) -> None:
        self._log.warning("key used up", device=device.name, peer_id=used_up.peer_id, key_id=used_up.key_id)
        peer = device.peers.get(used_up.peer_id)
        if device.family is Family.OVPN_DCO_V2 and peer is not None:
            # The family has no notice by which OpenVPN would renegotiate; without one nothing passes for up to an hour.
            self.delete_peer(device, peer.peer_id)
            self.lose(device, peer, DelReason.TRANSPORT_ERROR)
            return
        self.tell(KeySwapNotice(device.family, device.ifindex, used_up.peer_id, used_up.key_id))

    def _on_floated(self, device: Device, floated: event_pb2.PeerFloated) -> None:
        if floated.peer_id in device.peers:
            remote = rpc.remote(floated.remote)
            self.tell(FloatNotice(device.family, device.ifindex, floated.peer_id, remote))

    def _on_socket_closed(self, device: Device, name: str) -> None:
        """A stream that has no peer would never end otherwise; that of a lost peer is about to."""
        for twin in device.sockets.values():
            if twin.name == name and twin.stream is not None:
                self._ending.append(twin.stream)
                self._ring()

    def _on_stream_ended(self, device: Device | None, error: DataPlaneError) -> None:
        if device is None or error.code != "RESOURCE_EXHAUSTED":
            self.give_up(f"the data plane is gone ({error})")
            return
        # WATCH_TOO_SLOW: events of ours were thrown away. A new snapshot tells which peers are left.
        followed = self._link.feed.follow(device.name, DEADLINE_SECONDS)
        device.stream = followed.stream
        for peer in device.missing_from(followed.peers):
            self.lose(device, peer, DelReason.TRANSPORT_ERROR)


def _forget_sockets(device: Device) -> None:
    for twin in list(device.sockets.values()):
        _forget_socket(device, twin)


def _forget_socket(device: Device, twin: Socket) -> None:
    """The data plane has closed it."""
    twin.close()
    del device.sockets[twin.inode]


def _heeded_reason(device: Device, reason: DelReason, *, ends: bool) -> DelReason:
    """The nearest reason that OpenVPN 2.6 and 2.7 do not ignore (process_incoming_dco, process_incoming_del_peer).

    ends: the stream of the peer is about to end, by which a client notices the loss and restarts.
    """
    if device.multipeer:
        # A server takes USERSPACE for the echo of its own request.
        return DelReason.TRANSPORT_ERROR if reason is DelReason.USERSPACE else reason
    # With one peer only EXPIRED matters: it does what --ping-restart or --ping-exit say, and one of them must be set.
    return DelReason.EXPIRED if device.expires and not ends else reason
