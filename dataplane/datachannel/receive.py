"""Link to device: authenticates DATA_V2 packets and gives out the IP packets inside.

Knows the order of the checks, which is the kernel's (drivers/net/ovpn/io.c), and who is charged for a drop: the peer
once it is known, else the device. Must not know sockets, the TUN or the clock. A packet goes through:

    1. length and opcode           -> RX_TRUNCATED, RX_NOT_DATA, RX_OVERSIZED
    2. peer, by peer_id or source, in a stream by the stream
                                   -> RX_UNKNOWN_PEER; from here on link_rx counts it
    3. key, by key_id, one that lingers last
                                   -> kept for a moment (early_packets.py), then RX_UNKNOWN_KEY_ID
    4. epoch, if the key has any   -> RX_TRUNCATED, RX_EPOCH_REJECTED
       AEAD                        -> RX_FORGERY_LIMIT, RX_DECRYPT_FAILED
    5. replay window               -> RX_PACKET_ID_ZERO, RX_REPLAYED, RX_TOO_OLD
    6. last-received time, endpoint (never of a peer in a stream)
                                   -> RX_FLOAT_REFUSED, by the device's FloatPolicy or for another peer's sake
    7. keepalive                   -> consumed
    8. inner header                -> RX_NOT_IP
    9. inner source                -> RX_SOURCE_CHECK, unless the device skips that; then the MSS of TCP is lowered
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Final

from dataplane.datachannel.datagram import Datagram, SockAddr
from dataplane.datachannel.early_packets import EarlyPackets
from dataplane.datachannel.ip_header import source_of
from dataplane.datachannel.key_slots import AnyKey
from dataplane.datachannel.mss import clamped
from dataplane.datachannel.outcomes import ASK_INTERVAL_NS, Event, FloatAsked, Floated, KeyLimitNear
from dataplane.datachannel.peer import Peer
from dataplane.datachannel.peer_table import PeerTable
from dataplane.datachannel.wire import DATAGRAM_MAX, KEEPALIVE, KEY_ID_MAX, OPCODE_DATA_V2, OVERHEAD
from dataplane.vocabulary import PEER_ID_UNDEF, Column, DropReason, FloatPolicy

# Plain ints, since looking up a member of an enum costs as much as counting.
_LINK_RX_BYTES: Final = int(Column.LINK_RX_BYTES)
_LINK_RX_PACKETS: Final = int(Column.LINK_RX_PACKETS)
_LAST_RX_NS: Final = int(Column.LAST_RX_NS)
_DROPS: Final = int(Column.DROPS)


class Receiver:
    """The receiving half of a device's data channel."""

    __slots__ = ("_device_row", "_early", "_events", "_peers", "float_policy", "skip_source_check")

    def __init__(
        self, peers: PeerTable, early: EarlyPackets, device_row: MutableSequence[int], events: dict[Event, None]
    ) -> None:
        self._peers = peers
        self._early = early
        self._device_row = device_row
        self._events = events
        self.skip_source_check = False
        self.float_policy = FloatPolicy.ALLOW

    def open_batch(self, socket_id: int, datagrams: Sequence[Datagram], now_ns: int) -> list[tuple[Peer, bytes]]:
        """The IP packets in these datagrams, in order; see DataChannel.open_batch."""
        opened = []
        for datagram in datagrams:
            packet, source, _ = datagram
            peer = self._find_peer(packet, socket_id, source)
            if peer is None:
                continue
            row = peer.row
            row[_LINK_RX_BYTES] += len(packet)
            row[_LINK_RX_PACKETS] += 1
            key = peer.keys.find(packet[0] & KEY_ID_MAX)
            if key is None:
                self._early.keep(peer, socket_id, datagram, now_ns)
                continue
            payload = self._open(peer, key, socket_id, datagram, now_ns)
            if payload is not None:
                opened.append((peer, payload))
        return opened

    def open_early(self, peer: Peer, key: AnyKey, now_ns: int) -> list[tuple[Peer, bytes]]:
        """The IP packets in what came for this key before it was there."""
        early = self._early.take(peer, key.key_id)
        payloads = [self._open(peer, key, socket_id, datagram, now_ns) for socket_id, datagram in early]
        return [(peer, payload) for payload in payloads if payload is not None]

    def _open(self, peer: Peer, key: AnyKey, socket_id: int, datagram: Datagram, now_ns: int) -> bytes | None:
        """Steps 4 to 9: the IP packet in this one; None if there is none, which is then counted."""
        packet, source, local = datagram
        refusal = key.refusal(packet)
        if refusal is not None:
            peer.drop(refusal)
            return None
        payload = key.open(packet)
        if payload is None:
            peer.drop(DropReason.RX_DECRYPT_FAILED)
            limit = key.take_warning()
            if limit is not None:
                self._events[KeyLimitNear(peer, key.key_id, limit)] = None
            return None
        packet_id = key.packet_id_of(packet)
        refusal = key.accept(packet_id, now_ns)
        if refusal is not None:
            peer.drop(refusal)
            return None

        peer.row[_LAST_RX_NS] = now_ns
        if source != peer.remote or socket_id != peer.socket_id:
            is_newest = peer.keys.is_newest(key, packet_id)
            if not self._admits_from_elsewhere(peer, socket_id, datagram, now_ns, is_newest=is_newest):
                peer.drop(DropReason.RX_FLOAT_REFUSED)
                return None
        elif local is not None:
            peer.local = local

        if payload == KEEPALIVE:
            return None
        inner_source = source_of(payload)
        if inner_source is None:
            peer.drop(DropReason.RX_NOT_IP)
            return None
        if self._peers.routes.lookup(inner_source) is not peer and not self.skip_source_check:
            peer.drop(DropReason.RX_SOURCE_CHECK)
            return None
        return clamped(payload, peer.mss)

    def _find_peer(self, datagram: bytes, socket_id: int, source: SockAddr | None) -> Peer | None:
        if len(datagram) < OVERHEAD:
            reason = DropReason.RX_TRUNCATED
        elif datagram[0] >> 3 != OPCODE_DATA_V2:
            reason = DropReason.RX_NOT_DATA
        elif len(datagram) > DATAGRAM_MAX:
            reason = DropReason.RX_OVERSIZED
        else:
            peer_id = int.from_bytes(datagram[1:4], "big")
            if peer_id == PEER_ID_UNDEF or source is None:
                peer = self._peers.by_endpoint.get((socket_id, source))
            else:
                peer = self._peers.by_id.get(peer_id)
            if peer is not None:
                return peer
            reason = DropReason.RX_UNKNOWN_PEER
        self._device_row[_DROPS + reason] += 1
        return None

    def _admits_from_elsewhere(
        self, peer: Peer, socket_id: int, datagram: Datagram, now_ns: int, *, is_newest: bool
    ) -> bool:
        """Whether an authentic packet from there is taken. The newest takes the peer there, or asks for that."""
        _, source, local = datagram
        if source is None or peer.remote is None:
            return True
        # OpenVPN, too, gives no client the address of another.
        may_float = is_newest and self._peers.by_endpoint.get((socket_id, source), peer) is peer
        if self.float_policy is not FloatPolicy.ALLOW:
            if may_float and self.float_policy is FloatPolicy.ASK and now_ns >= peer.asks_again_ns:
                peer.asked = socket_id, source
                peer.asks_again_ns = now_ns + ASK_INTERVAL_NS
                self._events[FloatAsked(peer)] = None
            return False
        if may_float:
            self._peers.move(peer, socket_id, source)
            if local is not None:
                peer.local = local
            self._events[Floated(peer)] = None
        return may_float or not is_newest
