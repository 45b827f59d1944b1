# From the sockets to the TUN.

cimport cython
from libc.stdint cimport uint64_t

from dataplane.fastpath.channel cimport DataChannel, PeerState
from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress
from dataplane.fastpath.merge cimport Merger
from dataplane.fastpath.span cimport Span
from dataplane.fastpath.tcp_socket cimport TcpReader, TcpSocket
from dataplane.fastpath.udp_receive cimport Datagram, UdpReceiver
from dataplane.fastpath.udp_socket cimport UdpSocket


@cython.final
cdef class LinkToDevice:
    cdef DataChannel channel
    cdef UdpReceiver receiver
    cdef TcpReader reader
    cdef Endpoint stream_end
    cdef LocalAddress stream_local
    cdef Merger* merger
    cdef int tun_fd
    # Moves a batch of datagrams of a socket; how many OpenVPN packets came. is_full: more may be waiting.
    cdef unsigned int move(self, UdpSocket* udp, uint64_t now_ns, bint* is_full) noexcept nogil
    # The same for a stream.
    cdef unsigned int move_stream(self, TcpSocket* tcp, uint64_t now_ns, bint* is_full) noexcept nogil
    # private
    cdef unsigned int _move_segments(self, UdpSocket* udp, const Datagram* datagram, uint64_t now_ns) noexcept nogil
    cdef void _move_segment(self, UdpSocket* udp, const Datagram* datagram, Span segment,
                            uint64_t now_ns) noexcept nogil
    cdef void _move_packet(self, TcpSocket* tcp, Span segment, uint64_t now_ns) noexcept nogil
    cdef void _deliver(self, PeerState* peer, Span packet) noexcept nogil
    cdef void _write_frames(self) noexcept nogil
