# The data channel of one device: peers, keys, look-ups, checks and counters; twin of dataplane/datachannel/channel.py.
#
# The parts that see every packet are C structs and functions without the GIL; what a command or timer does is Python.

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from dataplane.fastpath.early_packets cimport EarlyPackets
from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress
from dataplane.fastpath.events cimport Events
from dataplane.fastpath.peer cimport Peer, PeerState, packets_delivered, packets_dropped
from dataplane.fastpath.peer_table cimport PeerTable
from dataplane.fastpath.receive cimport RECEIVED_NOTHING, RECEIVED_PACKET, Received, Receiver
from dataplane.fastpath.row cimport Row
from dataplane.fastpath.span cimport Span
from dataplane.fastpath.transmit cimport Transmitter


@cython.final
cdef class DataChannel:
    cdef PeerTable peers
    cdef EarlyPackets early
    cdef Events events
    cdef Receiver receiver
    cdef Transmitter transmitter
    cdef Row device
    cdef object deadlines
    # Takes one OpenVPN packet that came on a socket, and changes its bytes. On RECEIVED_PACKET `packet` is the IP
    # packet, inside `datagram`, and `peer` whose it is; then packets_delivered() or packets_dropped() is owed.
    cdef Received receive(self, uint32_t socket_id, Span datagram, const Endpoint* source, const LocalAddress* local,
                          uint64_t now_ns, Span* packet, PeerState** peer) noexcept nogil
    # The peer that an IP packet of the TUN goes to; NULL: dropped and counted (TX_NOT_IP, TX_NO_PEER).
    cdef PeerState* route(self, Span packet) noexcept nogil
    # Seals the IP packet that stands from byte OVERHEAD of `room` on, with SPARE bytes behind it, and counts it. The
    # datagram begins where the room begins; its size, 0: dropped and counted.
    cdef size_t seal_packet(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil
    # Counts a packet that was dropped before a peer was known. reason: vocabulary.DropReason.
    cpdef void drop_on_device(self, int reason) noexcept nogil
    # Whether take_events() has something to give.
    cdef bint has_events(self) noexcept nogil
    # The part of next_deadline_ns() that packets bring about: when the oldest early packet is to be dropped;
    # UINT64_MAX: there is none.
    cdef uint64_t early_deadline_ns(self) noexcept nogil
