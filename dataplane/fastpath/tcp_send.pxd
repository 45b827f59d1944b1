# IP packets to peers over TCP.

cimport cython
from libc.stdint cimport uint64_t

from dataplane.fastpath.channel cimport DataChannel, PeerState
from dataplane.fastpath.span cimport Span
from dataplane.fastpath.tcp_socket cimport TcpSocket, TcpSockets


@cython.final
cdef class TcpSender:
    cdef DataChannel channel
    cdef TcpSockets streams
    # The stream of a peer; NULL: its packets are datagrams.
    cdef TcpSocket* stream_of(self, PeerState* peer) noexcept nogil
    # Whether a stream takes a packet of `size` bytes, sealed.
    cdef bint is_admitted(self, TcpSocket* tcp, size_t size) noexcept nogil
    # Seals an IP packet into the queue of its peer's stream, or counts it as refused.
    cdef void send_packet(self, TcpSocket* tcp, PeerState* peer, Span packet, uint64_t now_ns) noexcept nogil
    # Queues a packet that was admitted and sealed already.
    cdef void send_sealed(self, TcpSocket* tcp, Span datagram) noexcept nogil
