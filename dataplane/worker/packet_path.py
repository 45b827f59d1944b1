"""The packet path of one device, in readable Python: which bytes go from where to where.

    link to device: receive -> open -> TUN write; what is not DATA_V2 -> the control plane
    device to link: TUN read -> seal -> send
    timers:         keepalives -> send; expired peers -> the daemon
    control plane:  its packets -> the streams, of which each carries one peer

Knows the TUN, the sockets and the data channel, and what epoll may report of them. Must not know commands, nor what a
packet means: that is the data channel's. Batches are bounded, so that no source can starve another. The TUN is read
even while a stream takes nothing: its peer must not hold up the others, so packets to it are dropped once its queue is
full.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll
from typing import Final, TypeVar, cast

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.channel import DataChannel
from dataplane.datachannel.ip_header import dscp_of
from dataplane.datachannel.peer import Peer
from dataplane.datachannel.transmit import Admits, everything
from dataplane.datachannel.wire import OPCODE_DATA_V2
from dataplane.messages import DeviceClosed, FromWorker, TransportClosed
from dataplane.reports import event_report, expiry_report
from dataplane.transport import Transport
from dataplane.transport.control_outlet import ControlOutlet
from dataplane.transport.tcp import TcpTransport
from dataplane.transport.tcp_framing import PREFIX_SIZE
from dataplane.transport.udp import Datagram, Destination, UdpTransport
from dataplane.tun.device import DeviceGone, TunDevice
from dataplane.vocabulary import DropReason, KeySlot

BATCH: Final = 64
"""Packets taken from one source before the others get their turn; a few more if many came as one."""

_NS_PER_S: Final = 1_000_000_000
_FOR_EVER: Final = -1

_Item = TypeVar("_Item")


class PacketPath:
    """Moves the packets of a device. wake_fd: becomes readable when serve() is to return.

    Works on a duplicate of the TUN's descriptor.
    """

    def __init__(self, channel: DataChannel, tun_fd: int, wake_fd: int) -> None:
        self.channel = channel
        tun = TunDevice(tun_fd)
        self._tun: TunDevice | None = tun
        self._wake_fd = wake_fd
        self._transports: dict[int, Transport] = {}
        self._watched: dict[int, tuple[Transport, int]] = {}  # by descriptor, with the events waited for
        self._streams: set[TcpTransport] = set()  # that have not ended
        self._touched: set[TcpTransport] = set()  # of which something may have changed that _settle() looks at
        self._messages: list[FromWorker] = []
        self._poller = epoll()
        self._poller.register(wake_fd, EPOLLIN)
        self._poller.register(tun.fd, EPOLLIN)

    # Sockets

    def transport(self, socket_id: int) -> Transport | None:
        """The socket of this number."""
        return self._transports.get(socket_id)

    def add_transport(self, transport: Transport) -> None:
        """Serves a socket, under a number that is free."""
        self._transports[transport.socket_id] = transport
        if isinstance(transport, TcpTransport):
            self._streams.add(transport)
            self._watch_stream(transport)
        else:
            self._watch(transport.fd, transport, EPOLLIN | EPOLLRDHUP)

    def remove_transport(self, transport: Transport) -> None:
        """Closes a socket. Packets to peers that still use it are dropped (TX_SEND_FAILED)."""
        del self._transports[transport.socket_id]
        if isinstance(transport, TcpTransport):
            self._streams.discard(transport)
            self._touched.discard(transport)
            self._watch(transport.control_fd, transport, 0)
        self._watch(transport.fd, transport, 0)
        transport.close()

    def _watch(self, fd: int, transport: Transport, events: int) -> None:
        """Has epoll report these events of a descriptor; 0: not even those that it reports unasked."""
        _, watched_events = self._watched.pop(fd, (None, 0))
        if events and self._tun is not None:
            if not watched_events:
                self._poller.register(fd, events)
            elif events != watched_events:
                self._poller.modify(fd, events)
            self._watched[fd] = transport, events
        elif watched_events:
            # Closing is not enough: epoll watches the open file, which other processes hold as well.
            self._poller.unregister(fd)

    def _watch_stream(self, stream: TcpTransport) -> None:
        for fd, events in stream.interests().items():
            self._watch(fd, stream, events)

    # Packets

    def install_key(self, peer_id: int, slot: KeySlot, key: DataKey) -> None:
        """Puts a key into a slot, and moves the packets that came before it. Raises UnknownPeer."""
        now_ns = time.monotonic_ns()
        opened = self.channel.install_key(peer_id, slot, key, now_ns)
        if self._tun is not None:
            self._deliver(opened, self._tun, now_ns)
            self._settle()

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
                self._serve_link(fd, self._watched[fd][0], mask)
        self._settle()
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

    def _serve_link(self, fd: int, transport: Transport, mask: int) -> None:
        if isinstance(transport, TcpTransport):
            self._serve_stream(fd, transport, mask)
            return
        if mask & EPOLLERR:
            transport.clear_errors(BATCH)
        if mask & (EPOLLHUP | EPOLLRDHUP):
            # Shut down by somebody who shares it; epoll would report that for ever.
            self._watch(fd, transport, 0)
        if self._tun is not None:
            self._link_to_device(transport, self._tun)

    def _link_to_device(self, transport: UdpTransport, tun: TunDevice) -> None:
        datagrams = transport.receive_batch(BATCH)
        if transport.control is not None:
            datagrams = self._data_of(datagrams, transport.control)
        now_ns = time.monotonic_ns()
        self._deliver(self.channel.open_batch(transport.socket_id, datagrams, now_ns), tun, now_ns)

    def _serve_stream(self, fd: int, stream: TcpTransport, mask: int) -> None:
        can_send = mask & (EPOLLOUT | EPOLLERR | EPOLLHUP)
        if fd == stream.control_fd:
            if can_send:
                stream.flush_control()
            stream.relay_control()
            self._touched.add(stream)
            return
        if can_send:
            stream.flush()
        self._stream_to_device(stream)

    def _stream_to_device(self, stream: TcpTransport) -> None:
        self._touched.add(stream)
        packets = stream.receive()
        control = [packet for packet in packets if packet[0] >> 3 != OPCODE_DATA_V2]
        if control and not stream.hand_over(control):
            for _ in control:
                self.channel.drop_on_device(DropReason.RX_CONTROL_QUEUE_FULL)
        data = [(packet, None, None) for packet in packets if packet[0] >> 3 == OPCODE_DATA_V2]
        if self._tun is not None:
            now_ns = time.monotonic_ns()
            self._deliver(self.channel.open_batch(stream.socket_id, data, now_ns), self._tun, now_ns)

    def _settle(self) -> None:
        """Brings what epoll waits for, and what the daemon is told, in step with what became of the streams."""
        while self._touched:
            stream = self._touched.pop()
            if stream.is_ending:
                self._stream_to_device(stream)
            elif stream.closed is not None and stream in self._streams:
                self._streams.discard(stream)
                peer = self.channel.peer_of_stream(stream.socket_id)
                if peer is not None:
                    self.channel.remove_peer(peer.peer_id)
                self._messages.append(TransportClosed(stream.socket_id, stream.closed))
            self._watch_stream(stream)

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
            opened = self._relay(opened, now_ns)
        taken = tun.write_batch([packet for _, packet in opened])
        for (peer, packet), was_taken in zip(opened, taken, strict=True):
            if was_taken:
                self.channel.delivered(peer, len(packet))
            else:
                peer.drop(DropReason.RX_TUN_WRITE_FAILED)
        # The answer to what was written (a TCP ACK, an echo reply) is often there already: no wake-up for it.
        self._device_to_link(tun)

    def _relay(self, opened: Sequence[tuple[Peer, bytes]], now_ns: int) -> list[tuple[Peer, bytes]]:
        """Sends on what goes from peer to peer; what is for the device."""
        for_device: list[tuple[Peer, bytes]] = []
        for dscp, run in self._runs_of_dscp(opened, lambda sender_and_packet: sender_and_packet[1]):
            kept, sealed = self.channel.relay(run, now_ns, self._admission())
            self._send(sealed, dscp)
            for_device += kept
        return for_device

    def _device_to_link(self, tun: TunDevice) -> None:
        try:
            packets, malformed = tun.read_batch(BATCH)
        except DeviceGone as gone:
            self._device_gone(tun, gone.errno)
            return
        for _ in range(malformed):
            self.channel.drop_on_device(DropReason.TX_BAD_VIRTIO_HEADER)
        now_ns = time.monotonic_ns()
        for dscp, run in self._runs_of_dscp(packets, lambda packet: packet):
            self._send(self.channel.seal_batch(run, now_ns, self._admission()), dscp)

    def _runs_of_dscp(
        self, items: Sequence[_Item], packet_of: Callable[[_Item], bytes]
    ) -> Iterator[tuple[int, Sequence[_Item]]]:
        """In order, with the TOS to send each run with; in one run if no socket copies the DSCP."""
        if any(transport.copy_dscp for transport in self._transports.values()):
            for dscp, run in groupby(items, key=lambda item: dscp_of(packet_of(item))):
                yield dscp, list(run)
        else:
            yield 0, items

    def _send(self, sealed: Sequence[tuple[Peer, bytes]], tos: int = 0) -> None:
        for socket_id, packets in groupby(sealed, key=_socket_id):
            transport = self._transports.get(socket_id)
            if transport is not None:
                # Peers of UDP sockets have a remote.
                transport.send_batch(cast("Iterator[tuple[Destination, bytes]]", packets), tos)
                if isinstance(transport, TcpTransport):
                    self._touched.add(transport)
            else:
                for peer, _ in packets:
                    peer.drop(DropReason.TX_SEND_FAILED)

    def _admission(self) -> Admits:
        """For one batch, of which nothing is in a queue before all is sealed."""
        if not self._streams:
            return everything
        promised: Counter[int] = Counter()

        def admits(peer: Peer, size: int) -> bool:
            transport = self._transports.get(peer.socket_id)
            if not isinstance(transport, TcpTransport):
                return True
            total = promised[peer.socket_id] + PREFIX_SIZE + size
            if not transport.admits(total):
                return False
            promised[peer.socket_id] = total
            return True

        return admits

    def _device_gone(self, tun: TunDevice, number: int) -> None:
        # Nothing is served any more, or the sockets would be reported for ever.
        self._tun = None
        for fd, (transport, _) in list(self._watched.items()):
            self._watch(fd, transport, 0)
        self._poller.unregister(tun.fd)
        tun.close()
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
        due = self.channel.run_timers(now_ns, self._admission())
        self._send(due.keepalives)
        self._settle()
        self._messages += map(expiry_report, due.expired)

    def take_messages(self) -> list[FromWorker]:
        """What the daemon is to be told, in order."""
        messages = [*map(event_report, self.channel.take_events()), *self._messages]
        self._messages.clear()
        return messages


def _socket_id(sealed: tuple[Peer, bytes]) -> int:
    return sealed[0].socket_id
