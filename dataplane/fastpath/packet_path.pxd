# The packet path of one device; twin of dataplane/worker/packet_path.py.

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from dataplane.fastpath.channel cimport DataChannel
from dataplane.fastpath.device_to_link cimport DeviceToLink
from dataplane.fastpath.link_to_device cimport LinkToDevice
from dataplane.fastpath.linux cimport epoll_event
from dataplane.fastpath.nap cimport Nap
from dataplane.fastpath.tcp_socket cimport TcpSocket, TcpSockets
from dataplane.fastpath.udp_socket cimport UdpSocket, UdpSockets

cdef enum:
    EVENTS = 64


@cython.final
cdef class PacketPath:
    cdef readonly DataChannel channel
    cdef LinkToDevice inward
    cdef DeviceToLink outward
    cdef UdpSockets sockets
    cdef TcpSockets streams
    cdef dict transports
    cdef list messages
    cdef int epoll_fd
    cdef int tun_fd  # -1: the device is gone
    cdef bint has_ended  # a stream, of which the daemon is to be told
    cdef int gone_errno  # why, until it was told; else 0
    cdef epoll_event[EVENTS] ready
    cdef bint more_waits  # than the round took
    cdef bint naps  # before the next round
    cdef Nap nap
    cdef int _watch(self, int fd, uint32_t events, uint64_t what) except -1
    cdef void _unwatch(self, UdpSocket* udp) noexcept nogil
    cdef bint _serve(self, uint64_t deadline_ns) noexcept nogil
    cdef bint _serve_ready(self, int count, uint64_t now_ns) noexcept nogil
    cdef unsigned int _serve_link(self, UdpSocket* udp, uint32_t events, uint64_t now_ns) noexcept nogil
    cdef unsigned int _serve_stream(self, TcpSocket* tcp, uint32_t events, uint64_t now_ns) noexcept nogil
    cdef void _serve_control(self, TcpSocket* tcp, uint32_t events) noexcept nogil
    cdef unsigned int _move_stream(self, TcpSocket* tcp, uint64_t now_ns) noexcept nogil
    cdef void _settle(self, uint64_t now_ns) noexcept nogil
    cdef void _watch_stream(self, TcpSocket* tcp) noexcept nogil
    cdef bint _rewatch(self, int fd, uint64_t what, uint32_t* watched, uint32_t events) noexcept nogil
    cdef unsigned int _serve_device(self, uint64_t now_ns) noexcept nogil
    cdef void _device_gone(self, int number) noexcept nogil
