"""Packets that came before their key: kept for a moment, opened when the key is there.

Knows packets, their peers and deadlines. Must not know how a packet is opened. Nothing here is authentic yet, so what
is kept is little: same limits as dataplane/datachannel/early_packets.py, which says why there is such a thing.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress
from dataplane.fastpath.peer cimport PeerState, packets_dropped
from dataplane.fastpath.span cimport Span, get8, put, span_of

from dataplane.datachannel import early_packets as limits
from dataplane.datachannel import wire
from dataplane.vocabulary import DropReason

cdef uint64_t HOLD_NS = limits.HOLD_NS
cdef size_t PACKETS_A_PEER = limits.PACKETS_A_PEER
cdef size_t BYTES_A_DEVICE = limits.BYTES_A_DEVICE
cdef size_t PACKET_COST = limits.PACKET_COST
cdef uint8_t KEY_ID_MASK = wire.KEY_ID_MAX
cdef int UNKNOWN_KEY_ID = DropReason.RX_UNKNOWN_KEY_ID


cdef class EarlyPackets:
    """The early packets of a device, oldest first. Those that leave without a key count as RX_UNKNOWN_KEY_ID."""

    def __dealloc__(self):
        cdef EarlyPacket* early
        while self.oldest != NULL:
            early = self.oldest
            self.oldest = early.next
            free(early)

    cdef void keep(self, PeerState* peer, uint32_t socket_id, Span datagram, const Endpoint* source,
                   const LocalAddress* local, uint64_t now_ns) noexcept nogil:
        cdef EarlyPacket* early = NULL
        if peer.early_packets < PACKETS_A_PEER and self.cost + cost_of(datagram) <= BYTES_A_DEVICE:
            early = <EarlyPacket*>malloc(sizeof(EarlyPacket) + datagram.size)
        if early == NULL:
            packets_dropped(peer, UNKNOWN_KEY_ID, 1)
            return
        early.next = NULL
        early.deadline_ns = now_ns + HOLD_NS
        early.peer = peer
        early.socket_id = socket_id
        early.source = source[0]
        early.local = local[0]
        early.datagram = span_of(<uint8_t*>(early + 1), datagram.size)
        put(early.datagram, 0, datagram)
        if self.newest == NULL:
            self.oldest = early
        else:
            self.newest.next = early
        self.newest = early
        peer.early_packets += 1
        self.cost += cost_of(datagram)

    cdef EarlyPacket* take(self, PeerState* peer, uint8_t key_id) noexcept nogil:
        cdef EarlyPacket* taken = NULL
        cdef EarlyPacket** last_taken = &taken
        cdef EarlyPacket** link = &self.oldest
        cdef EarlyPacket* early
        if not peer.early_packets:
            return NULL
        self.newest = NULL
        while link[0] != NULL:
            early = link[0]
            if early.peer == peer and key_id in (ANY_KEY, get8(early.datagram, 0) & KEY_ID_MASK):
                link[0] = early.next
                early.next = NULL
                last_taken[0] = early
                last_taken = &early.next
                self._uncount(early)
            else:
                self.newest = early
                link = &early.next
        return taken

    cdef void forget(self, PeerState* peer) noexcept nogil:
        cdef EarlyPacket* taken = self.take(peer, ANY_KEY)
        cdef EarlyPacket* early
        while taken != NULL:
            early = taken
            taken = early.next
            drop(early)

    cdef void drop_due(self, uint64_t now_ns) noexcept nogil:
        cdef EarlyPacket* early
        while self.oldest != NULL and self.oldest.deadline_ns <= now_ns:
            early = self.oldest
            self.oldest = early.next
            if self.oldest == NULL:
                self.newest = NULL
            self._uncount(early)
            drop(early)

    cdef uint64_t earliest_ns(self) noexcept nogil:
        return UINT64_MAX if self.oldest == NULL else self.oldest.deadline_ns

    cdef void _uncount(self, EarlyPacket* early) noexcept nogil:
        early.peer.early_packets -= 1
        self.cost -= cost_of(early.datagram)


cdef inline size_t cost_of(Span datagram) noexcept nogil:
    return datagram.size + PACKET_COST


cdef inline void drop(EarlyPacket* early) noexcept nogil:
    packets_dropped(early.peer, UNKNOWN_KEY_ID, 1)
    free(early)
