"""Copies of IP packets to peers: for packets that several get, or that stand where they cannot be sealed.

Knows who "everyone" is, and that sealing happens in the sender's room. Must not know where a packet came from, nor why
it goes to whom it goes.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from dataplane.fastpath.aead cimport OVERHEAD, SPARE
from dataplane.fastpath.channel cimport DataChannel
from dataplane.fastpath.ip_header cimport dscp_of
from dataplane.fastpath.peer cimport PeerState
from dataplane.fastpath.span cimport Span, part, put, span_of
from dataplane.fastpath.tcp_socket cimport TcpSocket
from dataplane.fastpath.udp_socket cimport copies_dscp

cdef enum:
    SCRATCH = 65536  # longer than any packet of a TUN


cdef class Copies:
    """Adds to the trains of a sender, or to streams, which somebody else sends."""

    def __cinit__(self, DataChannel channel not None, UdpSender sender not None, TcpSender streams not None):
        self.channel = channel
        self.sender = sender
        self.streams = streams
        self.everyone = channel.everyone()
        self.scratch = <uint8_t*>malloc(SCRATCH)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.scratch)

    cdef void add(self, PeerState* target, PeerState* but, Span packet, UdpSockets sockets,
                  uint64_t now_ns) noexcept nogil:
        cdef PeerState* peer
        if target != self.everyone:
            self._add_one(target, packet, sockets, now_ns)
            return
        peer = self.channel.first_peer()
        while peer != NULL:
            if peer != but:
                self._add_one(peer, packet, sockets, now_ns)
            peer = peer.next

    cdef void add_from_room(self, PeerState* target, Span packet, UdpSockets sockets, uint64_t now_ns) noexcept nogil:
        cdef Span copy = part(span_of(self.scratch, SCRATCH), 0, packet.size)
        put(copy, 0, packet)
        self.add(target, NULL, copy, sockets, now_ns)

    cdef void _add_one(self, PeerState* peer, Span packet, UdpSockets sockets, uint64_t now_ns) noexcept nogil:
        cdef size_t size = OVERHEAD + packet.size + SPARE
        cdef Span room
        cdef TcpSocket* tcp = self.streams.stream_of(peer)
        if tcp != NULL:
            self.streams.send_packet(tcp, peer, packet, now_ns)
            return
        if not self.sender.trains.has_room(size):
            self.sender.send(sockets, now_ns)
        room = part(self.sender.trains.room(), 0, size)
        put(room, OVERHEAD, packet)
        size = self.channel.seal_packet(peer, room, now_ns)
        if size > 0:
            self.sender.trains.add(peer, size, dscp_of(packet) if copies_dscp(sockets, peer.socket_id) else 0)
