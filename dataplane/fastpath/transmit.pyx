"""Device to link: finds the peer of each IP packet and seals it with the peer's primary key.

Knows the order of the checks, which is the kernel's (drivers/net/ovpn/io.c), and who is charged for a drop: the peer
once it is known, else the device. Must not know sockets, the TUN or the clock. The steps are those of
dataplane/datachannel/transmit.py. A packet is encrypted where it stands.
"""

from libc.stdint cimport uint8_t, uint64_t

from dataplane.fastpath.aead cimport OVERHEAD, SPARE, KeyState, end_of, seal, take_warning
from dataplane.fastpath.events cimport Events, exhaustion_of, nearness_of
from dataplane.fastpath.ip_header cimport IpAddress, destination_of
from dataplane.fastpath.key_slots cimport remove_exhausted
from dataplane.fastpath.mss cimport clamp_mss
from dataplane.fastpath.peer cimport Peer, PeerState, packets_dropped
from dataplane.fastpath.peer_table cimport PeerTable
from dataplane.fastpath.row cimport (
    LAST_TX_NS, LINK_TX_BYTES, SENT_PRIMARY, VPN_TX_BYTES, Row, count_drops, count_traffic
)
from dataplane.fastpath.span cimport Span, part, span_of

from dataplane.datachannel.wire import KEEPALIVE
from dataplane.vocabulary import DropReason

cdef int NOT_IP = DropReason.TX_NOT_IP
cdef int NO_PEER = DropReason.TX_NO_PEER
cdef int NO_KEY = DropReason.TX_NO_KEY
cdef int QUEUE_FULL = DropReason.TX_QUEUE_FULL


cdef class Transmitter:
    """The sending half of a device's data channel."""

    def __cinit__(self, PeerTable peers not None, Row device not None, Events events not None):
        self.peers = peers
        self.device = device
        self.events = events

    cdef PeerState* route(self, Span packet) noexcept nogil:
        cdef IpAddress destination = destination_of(packet)
        cdef PeerState* peer
        if not destination.size:
            count_drops(self.device.words, NOT_IP, 1)
            return NULL
        peer = self.peers.behind(destination)
        if peer == NULL or peer == &self.peers.host or self.peers.first == NULL:
            count_drops(self.device.words, NO_PEER, 1)
            return NULL
        return peer

    cdef PeerState* relay_target(self, Span packet) noexcept nogil:
        cdef PeerState* target = self.peers.behind(destination_of(packet))
        return NULL if target == &self.peers.host else target

    cdef size_t seal_packet(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil:
        cdef Span packet = part(room, OVERHEAD, room.size - OVERHEAD - SPARE)
        count_traffic(peer.row, VPN_TX_BYTES, 1, packet.size)
        clamp_mss(packet, peer.mss)
        return self._seal(peer, room, now_ns)

    cdef void refuse_packet(self, PeerState* peer, size_t size) noexcept nogil:
        count_traffic(peer.row, VPN_TX_BYTES, 1, size)
        packets_dropped(peer, NO_KEY if peer.keys.primary == NULL else QUEUE_FULL, 1)

    cdef bytes seal_keepalive(self, Peer peer, uint64_t now_ns, object admits):
        cdef bytearray room = bytearray(OVERHEAD) + KEEPALIVE + bytes(SPARE)
        if peer.state.keys.primary == NULL or (admits is not None and not admits(peer, OVERHEAD + len(KEEPALIVE))):
            return None
        size = self._seal(&peer.state, span_of(<uint8_t*><char*>room, len(room)), now_ns)
        return bytes(room[:size]) if size else None

    cdef size_t _seal(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil:
        cdef KeyState* key = peer.keys.primary
        cdef size_t size
        cdef uint8_t limit
        if key == NULL:
            packets_dropped(peer, NO_KEY, 1)
            return 0
        size = seal(key, peer.tx_id, room)
        if size == 0:
            remove_exhausted(peer.keys)
            packets_dropped(peer, end_of(key), 1)
            self.events.note(peer, exhaustion_of(key.key_id))
            return 0
        limit = take_warning(key)
        if limit:
            self.events.note(peer, nearness_of(key.key_id, limit))
        count_traffic(peer.row, LINK_TX_BYTES, 1, size)
        peer.row[LAST_TX_NS] = now_ns
        peer.row[SENT_PRIMARY] = key.sent
        return size
