"""Link to device: authenticates DATA_V2 packets and gives out the IP packets inside.

Knows the order of the checks, which is the kernel's (drivers/net/ovpn/io.c), and who is charged for a drop: the peer
once it is known, else the device. Must not know sockets, the TUN or the clock. A packet goes through:

    1. length and opcode           -> RX_TRUNCATED, RX_NOT_DATA, RX_OVERSIZED
    2. peer, by peer_id or source  -> RX_UNKNOWN_PEER; from here on link_rx counts it
    3. key, by key_id              -> RX_UNKNOWN_KEY_ID
    4. AEAD                        -> RX_DECRYPT_FAILED
    5. replay window               -> RX_PACKET_ID_ZERO, RX_REPLAYED, RX_TOO_OLD
    6. last-received time, endpoint
    7. keepalive                   -> consumed
    8. inner header                -> RX_NOT_IP
    9. inner source                -> RX_SOURCE_CHECK
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Final

from dataplane.datachannel.ip_header import source_of
from dataplane.datachannel.peer import Event, Floated, Peer, SockAddr
from dataplane.datachannel.peer_table import PeerTable
from dataplane.datachannel.wire import DATAGRAM_MAX, HEAD_SIZE, KEEPALIVE, KEY_ID_MAX, OPCODE_DATA_V2, OVERHEAD
from dataplane.vocabulary import PEER_ID_UNDEF, Column, DropReason

Datagram = tuple[bytes, SockAddr, bytes | None]
"""OpenVPN packet, source, and the packed local address it came to or None."""

# Plain ints, since looking up a member of an enum costs as much as counting.
_LINK_RX_BYTES: Final = int(Column.LINK_RX_BYTES)
_LINK_RX_PACKETS: Final = int(Column.LINK_RX_PACKETS)
_LAST_RX_NS: Final = int(Column.LAST_RX_NS)
_DROPS: Final = int(Column.DROPS)


class Receiver:
    """The receiving half of a device's data channel."""

    __slots__ = ("_device_row", "_events", "_peers")

    def __init__(self, peers: PeerTable, device_row: MutableSequence[int], events: list[Event]) -> None:
        self._peers = peers
        self._device_row = device_row
        self._events = events

    def open_batch(self, socket_id: int, datagrams: Sequence[Datagram], now_ns: int) -> list[tuple[Peer, bytes]]:
        """The IP packets in these datagrams, in order; see DataChannel.open_batch."""
        opened = []
        lookup = self._peers.routes.lookup
        for datagram, source, local in datagrams:
            peer = self._find_peer(datagram, socket_id, source)
            if peer is None:
                continue
            row = peer.row
            row[_LINK_RX_BYTES] += len(datagram)
            row[_LINK_RX_PACKETS] += 1

            key = peer.keys.find(datagram[0] & KEY_ID_MAX)
            if key is None:
                peer.drop(DropReason.RX_UNKNOWN_KEY_ID)
                continue
            payload = key.open(datagram)
            if payload is None:
                peer.drop(DropReason.RX_DECRYPT_FAILED)
                continue
            packet_id = int.from_bytes(datagram[4:HEAD_SIZE], "big")
            refusal = key.replay_window.accept(packet_id, now_ns)
            if refusal is not None:
                peer.drop(refusal)
                continue

            row[_LAST_RX_NS] = now_ns
            if source != peer.remote or socket_id != peer.socket_id:
                if peer.keys.is_newest(key, packet_id):
                    self._float(peer, socket_id, source, local)
            elif local is not None:
                peer.local = local

            if payload == KEEPALIVE:
                continue
            inner_source = source_of(payload)
            if inner_source is None:
                peer.drop(DropReason.RX_NOT_IP)
            elif lookup(inner_source) is not peer:
                peer.drop(DropReason.RX_SOURCE_CHECK)
            else:
                opened.append((peer, payload))
        return opened

    def _find_peer(self, datagram: bytes, socket_id: int, source: SockAddr) -> Peer | None:
        if len(datagram) < OVERHEAD:
            reason = DropReason.RX_TRUNCATED
        elif datagram[0] >> 3 != OPCODE_DATA_V2:
            reason = DropReason.RX_NOT_DATA
        elif len(datagram) > DATAGRAM_MAX:
            reason = DropReason.RX_OVERSIZED
        else:
            peer_id = int.from_bytes(datagram[1:4], "big")
            if peer_id == PEER_ID_UNDEF:
                peer = self._peers.by_endpoint.get((socket_id, source))
            else:
                peer = self._peers.by_id.get(peer_id)
            if peer is not None:
                return peer
            reason = DropReason.RX_UNKNOWN_PEER
        self._device_row[_DROPS + reason] += 1
        return None

    def _float(self, peer: Peer, socket_id: int, source: SockAddr, local: bytes | None) -> None:
        self._peers.move(peer, socket_id, source)
        if local is not None:
            peer.local = local
        self._events.append(Floated(peer))
