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
    # Whether packets between peers stay inside: what receive() gives is to go through relay_target().
    cdef readonly bint client_to_client
    cdef object mss
    # Takes one OpenVPN packet that came on a socket, and changes its bytes. On RECEIVED_PACKET `packet` is the IP
    # packet, inside `datagram`, and `peer` whose it is; then packets_delivered() or packets_dropped() is owed.
    cdef Received receive(self, uint32_t socket_id, Span datagram, const Endpoint* source, const LocalAddress* local,
                          uint64_t now_ns, Span* packet, PeerState** peer) noexcept nogil
    # The peer that an IP packet of the TUN goes to, or everyone(); NULL: dropped and counted (TX_NOT_IP, TX_NO_PEER).
    cdef PeerState* route(self, Span packet) noexcept nogil
    # The peer that an IP packet of a peer goes to without seeing the device, or everyone(): then it is for the device,
    # too; NULL: it is for the device.
    cdef PeerState* relay_target(self, Span packet) noexcept nogil
    # What stands for all peers; and the first of them, from which PeerState.next leads to all.
    cdef PeerState* everyone(self) noexcept nogil
    cdef PeerState* first_peer(self) noexcept nogil
    # Seals the IP packet that stands from byte OVERHEAD of `room` on, with SPARE bytes behind it, and counts it. The
    # datagram begins where the room begins; its size, 0: dropped and counted.
    cdef size_t seal_packet(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil
    # Counts an IP packet of `size` bytes that is not to be sealed: no room (TX_QUEUE_FULL), or no key (TX_NO_KEY).
    cdef void refuse_packet(self, PeerState* peer, size_t size) noexcept nogil
    # Counts a packet that was dropped before a peer was known. reason: vocabulary.DropReason.
    cpdef void drop_on_device(self, int reason) noexcept nogil
    # Whether take_events() has something to give.
    cdef bint has_events(self) noexcept nogil
    # The part of next_deadline_ns() that packets bring about: when the oldest early packet is to be dropped;
    # UINT64_MAX: there is none.
    cdef uint64_t early_deadline_ns(self) noexcept nogil
    # private
    cdef int _seal_for(self, PeerState* target, PeerState* sender, bytes packet, uint64_t now_ns,
                       list sealed, object admits) except -1
    cdef int _seal_to(self, PeerState* peer, bytes packet, uint64_t now_ns, list sealed, object admits) except -1
