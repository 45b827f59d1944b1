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
    # Seals an IP packet in place; see DataChannel.seal_packet.
    cdef size_t seal_packet(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil
    # A keepalive to this peer, which vpn_tx does not count; None if no key can seal it, which is no drop.
    cdef bytes seal_keepalive(self, Peer peer, uint64_t now_ns)
    # private
    cdef size_t _seal(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil
