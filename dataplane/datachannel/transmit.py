"""Device to link: finds the peer of each IP packet and seals it with the peer's primary key.

Knows the order of the checks, which is the kernel's (drivers/net/ovpn/io.c), and who is charged for a drop: the peer
once it is known, else the device. Must not know sockets, the TUN or the clock. A packet goes through:

    1. inner header           -> TX_NOT_IP
    2. peer, by destination   -> TX_NO_PEER; from here on vpn_tx counts it
    3. primary key            -> TX_NO_KEY
    4. room in the stream     -> TX_QUEUE_FULL
    5. packet-id              -> TX_PACKET_ID_EXHAUSTED, and the key is removed
    6. AEAD; link_tx counts it, last-sent time
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence, Sequence
from typing import Final

from dataplane.datachannel.ip_header import destination_of
from dataplane.datachannel.outcomes import Event, KeyExhausted
from dataplane.datachannel.peer import Peer
from dataplane.datachannel.peer_table import PeerTable
from dataplane.datachannel.wire import KEEPALIVE, OVERHEAD
from dataplane.vocabulary import Column, DropReason, KeySlot

# Plain ints, since looking up a member of an enum costs as much as counting.
_VPN_TX_BYTES: Final = int(Column.VPN_TX_BYTES)
_VPN_TX_PACKETS: Final = int(Column.VPN_TX_PACKETS)
_LINK_TX_BYTES: Final = int(Column.LINK_TX_BYTES)
_LINK_TX_PACKETS: Final = int(Column.LINK_TX_PACKETS)
_LAST_TX_NS: Final = int(Column.LAST_TX_NS)
_SENT_PRIMARY: Final = int(Column.SENT_PRIMARY)
_DROPS: Final = int(Column.DROPS)


Admits = Callable[[Peer, int], bool]
"""Whether what carries the packets of a peer takes one more of so many bytes, sealed.

Asked before a packet-id is spent: over TCP they must have no gaps, or OpenVPN's own data channel ends the connection
(packet_id.c, packet_id_test).
"""


def everything(_peer: Peer, _size: int) -> bool:
    """Admits all, as UDP does: what a socket then refuses was lost on the way."""
    return True


class Transmitter:
    """The sending half of a device's data channel."""

    __slots__ = ("_device_row", "_events", "_peers")

    def __init__(self, peers: PeerTable, device_row: MutableSequence[int], events: dict[Event, None]) -> None:
        self._peers = peers
        self._device_row = device_row
        self._events = events

    def seal_batch(self, packets: Sequence[bytes], now_ns: int, admits: Admits) -> list[tuple[Peer, bytes]]:
        """The DATA_V2 packets of these IP packets, in order; see DataChannel.seal_batch."""
        sealed = []
        lookup = self._peers.routes.lookup
        for packet in packets:
            destination = destination_of(packet)
            if destination is None:
                self._device_row[_DROPS + DropReason.TX_NOT_IP] += 1
                continue
            peer = lookup(destination)
            if peer is None:
                self._device_row[_DROPS + DropReason.TX_NO_PEER] += 1
                continue
            row = peer.row
            row[_VPN_TX_BYTES] += len(packet)
            row[_VPN_TX_PACKETS] += 1
            datagram = self._seal(peer, packet, now_ns, admits)
            if datagram is not None:
                sealed.append((peer, datagram))
        return sealed

    def seal_keepalive(self, peer: Peer, now_ns: int, admits: Admits) -> bytes | None:
        """A keepalive to this peer, which vpn_tx does not count; None if it cannot be or is not admitted: no drop."""
        if peer.keys.primary is None or not admits(peer, OVERHEAD + len(KEEPALIVE)):
            return None
        return self._seal(peer, KEEPALIVE, now_ns, everything)

    def _seal(self, peer: Peer, payload: bytes, now_ns: int, admits: Admits) -> bytes | None:
        key = peer.keys.primary
        if key is None:
            peer.drop(DropReason.TX_NO_KEY)
            return None
        if not admits(peer, OVERHEAD + len(payload)):
            peer.drop(DropReason.TX_QUEUE_FULL)
            return None
        datagram = key.seal(peer.peer_id, payload)
        if datagram is None:
            peer.keys.delete(KeySlot.PRIMARY)
            peer.drop(DropReason.TX_PACKET_ID_EXHAUSTED)
            self._events[KeyExhausted(peer, key.key_id)] = None
            return None
        row = peer.row
        row[_LINK_TX_BYTES] += len(datagram)
        row[_LINK_TX_PACKETS] += 1
        row[_LAST_TX_NS] = now_ns
        row[_SENT_PRIMARY] = key.sent
        return datagram
