# The data channel of one device: peers, keys, look-ups, checks and counters; twin of dataplane/datachannel/channel.py.
#
# The parts that see every packet are C structs and functions without the GIL; what a command or timer does is Python.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from dataplane.fastpath.aead cimport KeyState
from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress
from dataplane.fastpath.span cimport Span

cdef struct PeerState:
    uint32_t peer_id
    uint32_t socket_id
    Endpoint remote
    LocalAddress local
    KeyState* primary
    KeyState* secondary
    KeyState* latest
    uint64_t* row
    void* peer  # the Peer object that this is part of; its tables hold the reference

cdef struct ChannelState  # private to channel.pyx

cdef enum Received:
    RECEIVED_NOTHING  # consumed, kept or dropped, and counted
    RECEIVED_PACKET   # an IP packet for the TUN

cdef class Peer:
    cdef PeerState state

cdef class DataChannel:
    cdef ChannelState* state
    # Takes one OpenVPN packet that came on a socket. On RECEIVED_PACKET `packet` is the IP packet, inside `datagram`, and
    # `peer` whose it is; then packet_delivered() or drop() is owed.
    cdef Received receive(self, uint32_t socket_id, Span datagram, const Endpoint* source, const LocalAddress* local,
                          uint64_t now_ns, Span* packet, PeerState** peer) noexcept nogil
    # The peer that an IP packet of the TUN goes to; NULL: dropped and counted (TX_NOT_IP, TX_NO_PEER).
    cdef PeerState* route(self, Span packet) noexcept nogil
    # Seals the IP packet that stands from byte OVERHEAD of `datagram` on, and counts it. False: dropped and counted.
    cdef bint seal_packet(self, PeerState* peer, Span datagram, uint64_t now_ns) noexcept nogil
    # Counts against the device.
    cdef void drop_on_device(self, int reason) noexcept nogil
    # Whether take_events() has something to give.
    cdef bint has_events(self) noexcept nogil

cdef void packets_delivered(PeerState* peer, uint64_t packets, uint64_t size) noexcept nogil
cdef void packets_dropped(PeerState* peer, int reason, uint64_t packets) noexcept nogil
