"""The packet path of one device, in readable Python: which bytes go from where to where.

    link to device: UDP receive -> open -> TUN write; what is not DATA_V2 -> the control plane
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
from dataplane.datachannel.channel import DataChannel
from dataplane.datachannel.datagram import Datagram
from dataplane.datachannel.ip_header import dscp_of
from dataplane.datachannel.peer import Peer
from dataplane.datachannel.wire import OPCODE_DATA_V2
from dataplane.messages import DeviceClosed, FromWorker
from dataplane.reports import event_report, expiry_report
from dataplane.transport.control_outlet import ControlOutlet
from dataplane.transport.udp import UdpTransport
from dataplane.tun.device import DeviceGone, TunDevice
from dataplane.vocabulary import DropReason, KeySlot

BATCH: Final = 64
"""Packets taken from one source before the others get their turn; a few more if many came as one."""

_NS_PER_S: Final = 1_000_000_000
_FOR_EVER: Final = -1


class PacketPath:
    """Moves the packets of a device. wake_fd: becomes readable when serve() is to return.

    Works on a duplicate of the TUN's descriptor.
    """

    def __init__(self, channel: DataChannel, tun_fd: int, wake_fd: int) -> None:
        self.channel = channel
        tun = TunDevice(tun_fd)
        self._tun: TunDevice | None = tun
        self._wake_fd = wake_fd
        self._transports: dict[int, UdpTransport] = {}
        self._watched: dict[int, UdpTransport] = {}  # by descriptor
        self._messages: list[FromWorker] = []
        self._poller = epoll()
        self._poller.register(wake_fd, EPOLLIN)
        self._poller.register(tun.fd, EPOLLIN)

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
        now_ns = time.monotonic_ns()
        opened = self.channel.install_key(peer_id, slot, key, now_ns)
        if self._tun is not None:
            self._deliver(opened, self._tun, now_ns)

    def serve(self) -> bool:
        """Waits until something is ready or a deadline of the channel has come, and moves a batch from each source.

        Returns whether wake_fd is readable.
        """
        is_woken = False
        for fd, mask in self._poller.poll(self._timeout_s()):
            if fd == self._wake_fd:
                is_woken = True
            elif self._tun is not None and fd == self._tun.fd:
                self._serve_device(self._tun, mask)
            elif fd in self._watched:
                self._serve_link(self._watched[fd], mask)
        return is_woken

    def _timeout_s(self) -> float:
        deadline_ns = self._next_deadline_ns()
        if deadline_ns is None:
            return _FOR_EVER
        # epoll counts in ms and Python rounds up, so a deadline has always come when it wakes us.
        return max(0, deadline_ns - time.monotonic_ns()) / _NS_PER_S

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
        if transport.control is not None:
            datagrams = self._data_of(datagrams, transport.control)
        now_ns = time.monotonic_ns()
        self._deliver(self.channel.open_batch(transport.socket_id, datagrams, now_ns), tun, now_ns)

    def _data_of(self, datagrams: list[Datagram], control: ControlOutlet) -> list[Datagram]:
        """The datagrams but for control packets, which go where they belong."""
        data = []
        for datagram in datagrams:
            packet, source, local = datagram
            if not packet or packet[0] >> 3 == OPCODE_DATA_V2:
                data.append(datagram)
            elif not control.send(packet, source, local):
                self.channel.drop_on_device(DropReason.RX_CONTROL_QUEUE_FULL)
        return data

    def _deliver(self, opened: Sequence[tuple[Peer, bytes]], tun: TunDevice, now_ns: int) -> None:
        if not opened:
            return
        if self.channel.client_to_client:
            opened, sealed = self.channel.relay(opened, now_ns)
            self._send(sealed)
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
            packets, malformed = tun.read_batch(BATCH)
        except DeviceGone as gone:
            self._device_gone(tun, gone.errno)
            return
        for _ in range(malformed):
            self.channel.drop_on_device(DropReason.TX_BAD_VIRTIO_HEADER)
        now_ns = time.monotonic_ns()
        if not any(transport.copy_dscp for transport in self._transports.values()):
            self._send(self.channel.seal_batch(packets, now_ns))
            return
        for dscp, run in groupby(packets, key=dscp_of):
            self._send(self.channel.seal_batch(list(run), now_ns), dscp)

    def _send(self, sealed: Sequence[tuple[Peer, bytes]], tos: int = 0) -> None:
        for socket_id, packets in groupby(sealed, key=_socket_id):
            transport = self._transports.get(socket_id)
            if transport is not None:
                transport.send_batch(packets, tos)
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

    def _next_deadline_ns(self) -> int | None:
        return None if self._tun is None else self.channel.next_deadline_ns()

    def run_timers(self) -> None:
        """Sends the keepalives that are due and reports the peers that expired."""
        deadline_ns = self._next_deadline_ns()
        now_ns = time.monotonic_ns()
        if deadline_ns is None or deadline_ns > now_ns:
            return
        due = self.channel.run_timers(now_ns)
        self._send(due.keepalives)
        self._messages += map(expiry_report, due.expired)

    def take_messages(self) -> list[FromWorker]:
        """What the daemon is to be told, in order."""
        messages = [*map(event_report, self.channel.take_events()), *self._messages]
        self._messages.clear()
        return messages


def _socket_id(sealed: tuple[Peer, bytes]) -> int:
    return sealed[0].socket_id
