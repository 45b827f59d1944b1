# A peer of a device: who it is, where it is, its keys and its counters; twin of dataplane/datachannel/peer.py.

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress
from dataplane.fastpath.key_slots cimport KeySlots, Slots
from dataplane.fastpath.mss cimport MssLimits
from dataplane.fastpath.row cimport VPN_RX_BYTES, Row, count_drops, count_traffic

cdef struct PeerState:
    uint32_t peer_id
    uint32_t tx_id  # the peer-id on packets to it
    uint32_t socket_id
    MssLimits mss  # that hold for it
    Endpoint remote
    LocalAddress local
    Slots* keys
    uint64_t* row
    uint32_t early_packets  # kept for this peer (early_packets.pyx)
    uint64_t events  # those that wait to be taken, a bit each (events.pyx)
    void* peer  # the Peer object that this is part of; its tables hold the reference
    PeerState* next  # of all peers of the device, in the order in which they came (peer_table.pyx)
    PeerState* previous
    Endpoint asked_remote  # to which it last asked to float
    uint32_t asked_socket_id
    uint64_t asks_again_ns  # from when on it may ask again


@cython.final
cdef class Peer:
    cdef PeerState state
    cdef readonly object uid
    cdef readonly object row
    cdef readonly object vpn_ipv4
    cdef readonly object vpn_ipv6
    cdef readonly object keepalive
    cdef readonly object own_mss
    cdef readonly KeySlots keys
    cdef Row words


# Counts opened packets that the device took, of this many bytes together.
cdef inline void packets_delivered(PeerState* peer, uint64_t packets, uint64_t size) noexcept nogil:
    count_traffic(peer.row, VPN_RX_BYTES, packets, size)


# Counts dropped packets. reason: vocabulary.DropReason.
cdef inline void packets_dropped(PeerState* peer, int reason, uint64_t packets) noexcept nogil:
    count_drops(peer.row, reason, packets)
