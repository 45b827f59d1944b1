# Device to link: finds the peer of each IP packet and seals it with the peer's primary key; twin of
# dataplane/datachannel/transmit.py.

cimport cython
from libc.stdint cimport uint64_t

from dataplane.fastpath.events cimport Events
from dataplane.fastpath.peer cimport Peer, PeerState
from dataplane.fastpath.peer_table cimport PeerTable
from dataplane.fastpath.row cimport Row
from dataplane.fastpath.span cimport Span


@cython.final
cdef class Transmitter:
    cdef PeerTable peers
    cdef Events events
    cdef Row device
    # The peer that an IP packet goes to; see DataChannel.route.
    cdef PeerState* route(self, Span packet) noexcept nogil
    # Where a packet of a peer goes without seeing the device; see DataChannel.relay_target.
    cdef PeerState* relay_target(self, Span packet) noexcept nogil
    # Seals an IP packet in place; see DataChannel.seal_packet.
    cdef size_t seal_packet(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil
    # Counts an IP packet of `size` bytes that is not sealed since no more is admitted; see DataChannel.refuse_packet.
    cdef void refuse_packet(self, PeerState* peer, size_t size) noexcept nogil
    # A keepalive to this peer, which vpn_tx does not count; None if it cannot be sealed or is not admitted: no drop.
    cdef bytes seal_keepalive(self, Peer peer, uint64_t now_ns, object admits)
    # private
    cdef size_t _seal(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil
