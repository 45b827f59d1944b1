# Packets that came before their key: kept for a moment, opened when the key is there; twin of
# dataplane/datachannel/early_packets.py, which has the limits.

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress
from dataplane.fastpath.peer cimport PeerState
from dataplane.fastpath.span cimport Span

cdef struct EarlyPacket:
    EarlyPacket* next
    uint64_t deadline_ns
    PeerState* peer
    uint32_t socket_id
    Endpoint source
    LocalAddress local
    Span datagram  # stands behind this struct


@cython.final
cdef class EarlyPackets:
    cdef EarlyPacket* oldest
    cdef EarlyPacket* newest
    cdef size_t cost
    # Keeps a copy of a packet for a key that the peer does not have; counts it at once if there is no room.
    cdef void keep(self, PeerState* peer, uint32_t socket_id, Span datagram, const Endpoint* source,
                   const LocalAddress* local, uint64_t now_ns) noexcept nogil
    # Gives out the packets of a peer for a key, in order, as a list that ends with NULL; each is to be freed by free().
    cdef EarlyPacket* take(self, PeerState* peer, uint8_t key_id) noexcept nogil
    # The peer is gone.
    cdef void forget(self, PeerState* peer) noexcept nogil
    # Counts the packets whose key did not come in time.
    cdef void drop_due(self, uint64_t now_ns) noexcept nogil
    # When drop_due() is due; UINT64_MAX if nothing is kept.
    cdef uint64_t earliest_ns(self) noexcept nogil
    # private
    cdef void _uncount(self, EarlyPacket* early) noexcept nogil

cdef enum:
    ANY_KEY = 0xFF
