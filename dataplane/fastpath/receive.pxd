# Link to device: authenticates DATA_V2 packets and gives out the IP packets inside; twin of
# dataplane/datachannel/receive.py.

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from dataplane.fastpath.aead cimport KeyState
from dataplane.fastpath.early_packets cimport EarlyPackets
from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress
from dataplane.fastpath.events cimport Events
from dataplane.fastpath.peer cimport PeerState
from dataplane.fastpath.peer_table cimport PeerTable
from dataplane.fastpath.row cimport Row
from dataplane.fastpath.span cimport Span

cdef enum Received:
    RECEIVED_NOTHING  # consumed, kept or dropped, and counted
    RECEIVED_PACKET   # an IP packet for the TUN


@cython.final
cdef class Receiver:
    cdef PeerTable peers
    cdef EarlyPackets early
    cdef Events events
    cdef Row device
    cdef bint skip_source_check
    cdef int float_policy  # vocabulary.FloatPolicy
    # Takes one OpenVPN packet; see DataChannel.receive.
    cdef Received receive(self, uint32_t socket_id, Span datagram, const Endpoint* source, const LocalAddress* local,
                          uint64_t now_ns, Span* packet, PeerState** peer) noexcept nogil
    # Steps 4 to 9, with the key: RECEIVED_PACKET if `packet` is the IP packet, inside `datagram`.
    cdef Received open(self, PeerState* peer, KeyState* key, uint32_t socket_id, Span datagram, const Endpoint* source,
                       const LocalAddress* local, uint64_t now_ns, Span* packet) noexcept nogil
    # private
    cdef PeerState* _find_peer(self, uint32_t socket_id, Span datagram, const Endpoint* source) noexcept nogil
    cdef bint _learn_endpoint(self, PeerState* peer, KeyState* key, uint64_t packet_id, uint32_t socket_id,
                              const Endpoint* source, const LocalAddress* local, uint64_t now_ns) noexcept nogil
    cdef bint _admits_from_elsewhere(self, PeerState* peer, bint newest, uint32_t socket_id, const Endpoint* source,
                                     const LocalAddress* local, uint64_t now_ns) noexcept nogil
    cdef bint _check_inner(self, PeerState* peer, Span payload) noexcept nogil
