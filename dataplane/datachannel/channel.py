"""The data channel of one device: all its peers, both directions, and its timers.

Knows how the parts work together; it is the front that a worker talks to. Must not know sockets, the TUN or the clock:
packets and times (CLOCK_MONOTONIC, ns) come in, packets and events go out. Receiving is in receive.py, sending in
transmit.py, what goes from one peer to another in relay.py.

Nothing raises on packet data. What is wrong with a packet becomes a drop counter, in the row of the peer once
that is known, else in the device's.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Final

from dataplane.datachannel.datagram import Datagram, SockAddr
from dataplane.datachannel.deadlines import Deadlines
from dataplane.datachannel.early_packets import EarlyPackets
from dataplane.datachannel.key_slots import AnyKey
from dataplane.datachannel.mss import MssLimits, OwnLimits, limits_of
from dataplane.datachannel.outcomes import Event, Floated, KeyExhausted, KeyLimitNear, PeerExists, Timers, UnknownPeer
from dataplane.datachannel.peer import Peer
from dataplane.datachannel.peer_table import PeerTable
from dataplane.datachannel.receive import Receiver
from dataplane.datachannel.relay import Relay
from dataplane.datachannel.routing import Prefix
from dataplane.datachannel.transmit import Admits, Transmitter, everything
from dataplane.vocabulary import Column, DropReason, FloatPolicy, KeySlot, Mode

__all__ = [
    "DataChannel",
    "Datagram",
    "Event",
    "Floated",
    "KeyExhausted",
    "KeyLimitNear",
    "Peer",
    "PeerExists",
    "SockAddr",
    "Timers",
    "UnknownPeer",
]

_VPN_RX_BYTES: Final = int(Column.VPN_RX_BYTES)
_VPN_RX_PACKETS: Final = int(Column.VPN_RX_PACKETS)
_DROPS: Final = int(Column.DROPS)


class DataChannel:
    """All peers of a device. device_row counts what is dropped before a peer is known."""

    __slots__ = (
        "_deadlines",
        "_device_row",
        "_early",
        "_events",
        "_mss",
        "_peers",
        "_receiver",
        "_relay",
        "_transmitter",
        "client_to_client",
    )

    def __init__(self, mode: Mode, device_row: MutableSequence[int]) -> None:
        self._peers = PeerTable(mode)
        self._deadlines = Deadlines()
        self._device_row = device_row
        self._events: dict[Event, None] = {}  # each at most once, in order
        self._early = EarlyPackets()
        self._mss = MssLimits()
        self._receiver = Receiver(self._peers, self._early, device_row, self._events)
        self._transmitter = Transmitter(self._peers, device_row, self._events)
        self._relay = Relay(self._peers, self._transmitter)
        self.client_to_client = False
        """Whether what open_batch() and install_key() give out is to go through relay()."""

    # Configuration

    def set_switches(self, *, skip_source_check: bool, client_to_client: bool) -> None:
        """Whether inner sources are not checked, and packets between peers stay inside; at first neither."""
        self._receiver.skip_source_check = skip_source_check
        self.client_to_client = client_to_client

    def set_float_policy(self, policy: FloatPolicy) -> None:
        """Sets what happens to peers that send from another endpoint than their own; at first ALLOW."""
        self._receiver.float_policy = policy

    def set_route(self, prefix: Prefix, target: int) -> None:
        """Has a prefix lead to the peer with this peer_id or to a RouteTarget; see PeerTable. Raises ValueError."""
        self._peers.set_route(prefix, target)

    def peer(self, peer_id: int) -> Peer:
        """The peer with this peer_id. Raises UnknownPeer."""
        return self._peers.get(peer_id)

    def add_peer(self, peer: Peer, now_ns: int) -> None:
        """Adds a peer and starts its keepalive.

        Raises PeerExists: in MP mode if its peer_id or a VPN address of it is in use, in P2P mode if there is any peer.
        """
        self._peers.add(peer)
        peer.mss = limits_of(peer.own_mss, self._mss)
        peer.keepalive.restart(now_ns)
        self._arm(peer)

    def remove_peer(self, peer_id: int) -> Peer:
        """Removes a peer; its row changes no more. Raises UnknownPeer."""
        peer = self._peers.remove(peer_id)
        self._deadlines.disarm(peer_id)
        self._early.forget(peer)
        return peer

    def set_keepalive(self, peer_id: int, interval_s: int, timeout_s: int, now_ns: int) -> None:
        """Sets the keepalive in seconds, 0 for none, and restarts both clocks. Raises UnknownPeer."""
        peer = self._peers.get(peer_id)
        peer.keepalive.interval_s = interval_s
        peer.keepalive.timeout_s = timeout_s
        peer.keepalive.restart(now_ns)
        self._arm(peer)

    def set_remote(
        self, peer_id: int, remote: SockAddr | None, local: bytes | None, socket_id: int | None = None
    ) -> None:
        """Sets where packets to a peer go, from which local address (None: any) and by which socket (None: as before).

        Raises UnknownPeer.
        """
        peer = self._peers.get(peer_id)
        self._peers.move(peer, peer.socket_id if socket_id is None else socket_id, remote)
        peer.local = local

    def peer_of_stream(self, socket_id: int) -> Peer | None:
        """The peer whose packets travel in this socket's stream, if there is one."""
        return self._peers.by_endpoint.get((socket_id, None))

    def set_vpn_addresses(self, peer_id: int, vpn_ipv4: bytes | None, vpn_ipv6: bytes | None) -> None:
        """Sets the packed VPN addresses of a peer. Raises UnknownPeer, or PeerExists if another peer has one."""
        self._peers.set_vpn_addresses(self._peers.get(peer_id), vpn_ipv4, vpn_ipv6)

    def set_tx_id(self, peer_id: int, tx_id: int | None) -> None:
        """Sets the peer-id on packets to a peer, 0..0xFFFFFE; None: its own. Raises UnknownPeer."""
        self._peers.get(peer_id).tx_id = tx_id

    def set_device_mss(self, limits: MssLimits) -> None:
        """Sets the limits of the MSS option that hold for peers without their own."""
        self._mss = limits
        for peer in self._peers.by_id.values():
            peer.mss = limits_of(peer.own_mss, limits)

    def set_mss(self, peer_id: int, own: OwnLimits) -> None:
        """Sets the limits of the MSS option that a peer has of its own. Raises UnknownPeer."""
        peer = self._peers.get(peer_id)
        peer.own_mss = own
        peer.mss = limits_of(own, self._mss)

    def install_key(self, peer_id: int, slot: KeySlot, key: AnyKey, now_ns: int) -> list[tuple[Peer, bytes]]:
        """Puts a key into a slot, in place of the one there. Raises UnknownPeer.

        Gives out the IP packets that came before their key, as open_batch() does.
        """
        peer = self._peers.get(peer_id)
        peer.keys.install(slot, key)
        return self._receiver.open_early(peer, key, now_ns)

    def swap_keys(self, peer_id: int) -> None:
        """Exchanges the slots of a peer, empty ones too. Raises UnknownPeer."""
        self._peers.get(peer_id).keys.swap()

    def delete_key(self, peer_id: int, slot: KeySlot) -> None:
        """Empties a slot, which may be empty already. Raises UnknownPeer."""
        self._peers.get(peer_id).keys.delete(slot)

    def let_key_linger(self, peer_id: int, until_ns: int) -> None:
        """Empties the secondary slot; its key opens until then what is on its way. See KeySlots. Raises UnknownPeer."""
        peer = self._peers.get(peer_id)
        peer.keys.let_linger(until_ns)
        self._arm(peer)

    # Packets

    def open_batch(self, socket_id: int, datagrams: Sequence[Datagram], now_ns: int) -> list[tuple[Peer, bytes]]:
        """Takes what came on a socket; the IP packets to write to the device, in order, with the peers they are from.

        For each of them the caller owes delivered(), or peer.drop(RX_TUN_WRITE_FAILED).
        """
        return self._receiver.open_batch(socket_id, datagrams, now_ns)

    def relay(
        self, opened: Sequence[tuple[Peer, bytes]], now_ns: int, admits: Admits = everything
    ) -> tuple[list[tuple[Peer, bytes]], list[tuple[Peer, bytes]]]:
        """Takes what was opened; what of it is for the device, and the DATA_V2 packets to other peers, both in order.

        A packet that goes to a peer alone is counted as delivered. The rest as for open_batch() and seal_batch().
        """
        return self._relay.relay_batch(opened, now_ns, admits)

    def delivered(self, peer: Peer, length: int) -> None:
        """Counts an opened packet of `length` bytes that the device took."""
        row = peer.row
        row[_VPN_RX_BYTES] += length
        row[_VPN_RX_PACKETS] += 1

    def drop_on_device(self, reason: DropReason) -> None:
        """Counts a packet that was dropped before a peer was known."""
        self._device_row[_DROPS + reason] += 1

    def seal_batch(
        self, packets: Sequence[bytes], now_ns: int, admits: Admits = everything
    ) -> list[tuple[Peer, bytes]]:
        """Takes IP packets of the device; the DATA_V2 packets to send, in order, each to its peer's socket and remote.

        admits: see transmit.py. What is given out is counted as sent: if a socket refuses one, the caller owes
        peer.drop(TX_QUEUE_FULL or TX_SEND_FAILED).
        """
        return self._transmitter.seal_batch(packets, now_ns, admits)

    # Time and events

    def run_timers(self, now_ns: int, admits: Admits = everything) -> Timers:
        """Does what is due by now. A keepalive that is not admitted is left out: there is enough on the way."""
        due = Timers(keepalives=[], expired=[])
        self._early.drop_due(now_ns)
        for peer_id in self._deadlines.pop_due(now_ns):
            peer = self._peers.get(peer_id)
            expire_at_ns = peer.expire_at_ns()
            if expire_at_ns is not None and expire_at_ns <= now_ns:
                due.expired.append(self.remove_peer(peer_id))
                continue
            peer.keys.end_linger(now_ns)
            send_at_ns = peer.send_at_ns()
            if send_at_ns is not None and send_at_ns <= now_ns:
                peer.keepalive.restart_sending(now_ns)
                keepalive = self._transmitter.seal_keepalive(peer, now_ns, admits)
                if keepalive is not None:
                    due.keepalives.append((peer, keepalive))
            self._arm(peer)
        return due

    def next_deadline_ns(self) -> int | None:
        """When to call run_timers next; may be early, is never late. None: not before something else happens."""
        deadlines = (self._deadlines.earliest_ns(), self._early.earliest_ns())
        return min((deadline_ns for deadline_ns in deadlines if deadline_ns is not None), default=None)

    def take_events(self) -> list[Event]:
        """What happened since the last call, in order. What happened to a peer again is told once."""
        taken = list(self._events)
        self._events.clear()
        return taken

    def _arm(self, peer: Peer) -> None:
        for deadline_ns in (peer.send_at_ns(), peer.expire_at_ns(), peer.keys.linger_end_ns()):
            if deadline_ns is not None:
                self._deadlines.arm(peer.peer_id, deadline_ns)
