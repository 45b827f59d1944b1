# Copies of IP packets to peers: for packets that several get, or that stand where they cannot be sealed.

cimport cython
from libc.stdint cimport uint8_t, uint64_t

from dataplane.fastpath.channel cimport DataChannel
from dataplane.fastpath.peer cimport PeerState
from dataplane.fastpath.span cimport Span
from dataplane.fastpath.tcp_send cimport TcpSender
from dataplane.fastpath.udp_send cimport UdpSender
from dataplane.fastpath.udp_socket cimport UdpSockets


@cython.final
cdef class Copies:
    cdef DataChannel channel
    cdef UdpSender sender
    cdef TcpSender streams
    cdef PeerState* everyone  # DataChannel.everyone()
    cdef uint8_t* scratch
    # Seals a copy for a target of DataChannel.route or relay_target, not NULL: a peer, or everyone but one peer (NULL:
    # everyone). It is sent by the sender's next send().
    cdef void add(self, PeerState* target, PeerState* but, Span packet, UdpSockets sockets,
                  uint64_t now_ns) noexcept nogil
    # The same for a packet that stands in the sender's room, and is overwritten.
    cdef void add_from_room(self, PeerState* target, Span packet, UdpSockets sockets, uint64_t now_ns) noexcept nogil
    # private
    cdef void _add_one(self, PeerState* peer, Span packet, UdpSockets sockets, uint64_t now_ns) noexcept nogil
