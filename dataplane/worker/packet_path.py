"""The packet path of one device: which bytes go from where to where.

    link to device: UDP receive -> open -> TUN write
    device to link: TUN read -> seal -> UDP send
    timers:         keepalives -> UDP send; expired peers -> the daemon

Knows the TUN, the sockets and the data channel, and what epoll may report of them. Must not know commands, nor what a
packet means: that is the data channel's. Batches are bounded, so that no source can starve another.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from itertools import groupby
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLRDHUP, epoll
from typing import Final

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.channel import DataChannel, Event, Floated, Peer
from dataplane.messages import DeviceClosed, Endpoint, FromWorker, KeyExhausted, PeerExpired, PeerFloated
from dataplane.transport.sockaddr import SockAddr, from_sockaddr
from dataplane.transport.udp import UdpTransport
from dataplane.tun.device import DeviceGone, TunDevice
from dataplane.vocabulary import DropReason, KeySlot

BATCH: Final = 64
"""Most packets taken from one source before the others get their turn."""


class PacketPath:
    """Moves packets when told that a descriptor is ready. Registers its descriptors with `poller` itself."""

    def __init__(self, channel: DataChannel, tun: TunDevice, poller: epoll) -> None:
        self.channel = channel
        self._tun: TunDevice | None = tun
        self._poller = poller
        self._transports: dict[int, UdpTransport] = {}
        self._watched: dict[int, UdpTransport] = {}  # by descriptor
        self._messages: list[FromWorker] = []
        poller.register(tun.fd, EPOLLIN)

    # Sockets

    def transport(self, socket_id: int) -> UdpTransport | None:
        """The socket of this number."""
        return self._transports.get(socket_id)

    def add_transport(self, transport: UdpTransport) -> None:
        """Serves a socket, under a number that is free."""
        self._transports[transport.socket_id] = transport
        if self._tun is not None:
            self._poller.register(transport.fd, EPOLLIN | EPOLLRDHUP)
            self._watched[transport.fd] = transport

    def remove_transport(self, transport: UdpTransport) -> None:
        """Closes a socket. Packets to peers that still use it are dropped (TX_SEND_FAILED)."""
        del self._transports[transport.socket_id]
        self._unwatch(transport)
        transport.close()

    def _unwatch(self, transport: UdpTransport) -> None:
        # Closing is not enough: epoll watches the open file, which other processes hold as well.
        if self._watched.pop(transport.fd, None) is not None:
            self._poller.unregister(transport.fd)

    # Packets

    def install_key(self, peer_id: int, slot: KeySlot, key: DataKey) -> None:
        """Puts a key into a slot, and moves the packets that came before it. Raises UnknownPeer."""
        opened = self.channel.install_key(peer_id, slot, key, time.monotonic_ns())
        if self._tun is not None:
            self._deliver(opened, self._tun)

    def serve(self, fd: int, mask: int) -> None:
        """Handles what epoll reported of a descriptor."""
        if self._tun is not None and fd == self._tun.fd:
            self._serve_device(self._tun, mask)
        elif fd in self._watched:
            self._serve_link(self._watched[fd], mask)

    def _serve_device(self, tun: TunDevice, mask: int) -> None:
        if mask & EPOLLERR:
            self._device_gone(tun, errno.EBADFD)
        else:
            self._device_to_link(tun)

    def _serve_link(self, transport: UdpTransport, mask: int) -> None:
        if mask & EPOLLERR:
            transport.clear_errors(BATCH)
        if mask & (EPOLLHUP | EPOLLRDHUP):
            # Shut down by somebody who shares it; epoll would report that for ever.
            self._unwatch(transport)
        if self._tun is not None:
            self._link_to_device(transport, self._tun)

    def _link_to_device(self, transport: UdpTransport, tun: TunDevice) -> None:
        datagrams = transport.receive_batch(BATCH)
        self._deliver(self.channel.open_batch(transport.socket_id, datagrams, time.monotonic_ns()), tun)

    def _deliver(self, opened: Sequence[tuple[Peer, bytes]], tun: TunDevice) -> None:
        if not opened:
            return
        taken = tun.write_batch([packet for _, packet in opened])
        for (peer, packet), was_taken in zip(opened, taken, strict=True):
            if was_taken:
                self.channel.delivered(peer, len(packet))
            else:
                peer.drop(DropReason.RX_TUN_WRITE_FAILED)
        # The answer to what was written (a TCP ACK, an echo reply) is often there already: no wake-up for it.
        self._device_to_link(tun)

    def _device_to_link(self, tun: TunDevice) -> None:
        try:
            packets = tun.read_batch(BATCH)
        except DeviceGone as gone:
            self._device_gone(tun, gone.errno)
        else:
            self._send(self.channel.seal_batch(packets, time.monotonic_ns()))

    def _send(self, sealed: Sequence[tuple[Peer, bytes]]) -> None:
        for socket_id, packets in groupby(sealed, key=_socket_id):
            transport = self._transports.get(socket_id)
            if transport is not None:
                transport.send_batch(packets)
            else:
                for peer, _ in packets:
                    peer.drop(DropReason.TX_SEND_FAILED)

    def _device_gone(self, tun: TunDevice, number: int) -> None:
        # Nothing is served any more, or the sockets would be reported for ever.
        for transport in list(self._watched.values()):
            self._unwatch(transport)
        self._poller.unregister(tun.fd)
        tun.close()
        self._tun = None
        self._messages.append(DeviceClosed(errno=number))

    # Time and events

    def next_deadline_ns(self) -> int | None:
        """When run_timers() is due (CLOCK_MONOTONIC), None for never; may be early, is never late."""
        return None if self._tun is None else self.channel.next_deadline_ns()

    def run_timers(self) -> None:
        """Sends the keepalives that are due and reports the peers that expired."""
        deadline_ns = self.next_deadline_ns()
        now_ns = time.monotonic_ns()
        if deadline_ns is None or deadline_ns > now_ns:
            return
        due = self.channel.run_timers(now_ns)
        self._send(due.keepalives)
        self._messages += [PeerExpired(peer.peer_id, peer.uid) for peer in due.expired]

    def take_messages(self) -> list[FromWorker]:
        """What the daemon is to be told, in order."""
        messages = [*map(_message, self.channel.take_events()), *self._messages]
        self._messages.clear()
        return messages


def _socket_id(sealed: tuple[Peer, bytes]) -> int:
    return sealed[0].socket_id


def _message(event: Event) -> FromWorker:
    peer = event.peer
    if isinstance(event, Floated):
        return PeerFloated(peer.peer_id, peer.uid, _endpoint(peer.remote), peer.socket_id)
    return KeyExhausted(peer.peer_id, peer.uid, event.key_id)


def _endpoint(sockaddr: SockAddr) -> Endpoint:
    return Endpoint(*from_sockaddr(sockaddr))
