# From the TUN to the sockets.

cimport cython
from libc.stdint cimport uint8_t, uint64_t

from dataplane.fastpath.channel cimport DataChannel, PeerState
from dataplane.fastpath.span cimport Span
from dataplane.fastpath.split cimport Split
from dataplane.fastpath.tcp_socket cimport TcpSocket, TcpSockets
from dataplane.fastpath.udp_send cimport UdpSender
from dataplane.fastpath.udp_socket cimport UdpSockets

cdef enum:
    FRAMES = 64  # taken in one go, before others get their turn


@cython.final
cdef class DeviceToLink:
    cdef DataChannel channel
    cdef UdpSender sender
    cdef TcpSockets streams
    cdef int tun_fd
    cdef bint virtio_header
    cdef uint8_t* frame
    cdef Split split
    # Moves a batch of frames of the TUN; how many came, or the negative errno with which the TUN is gone. What goes to
    # streams waits in their queues, and they are touched.
    cdef int move(self, UdpSockets sockets, uint64_t now_ns) noexcept nogil
    cdef void _move_frame(self, Span frame, UdpSockets sockets, uint64_t now_ns) noexcept nogil
    cdef void _move_to_stream(self, TcpSocket* tcp, PeerState* peer, Span packet, uint64_t now_ns) noexcept nogil
    cdef TcpSocket* _stream_of(self, PeerState* peer) noexcept nogil
    cdef bint _is_admitted(self, TcpSocket* tcp, size_t size) noexcept nogil
