# The UDP sockets of a packet path: by number, and what each can do.

cimport cython
from libc.stdint cimport uint32_t

cdef struct UdpSocket:
    uint32_t socket_id
    int fd
    int control_fd  # outlet for what is not DATA_V2; -1: none
    bint has_segmentation  # UDP_SEGMENT is there
    bint copy_dscp  # of what a packet carries
    bint watched  # by epoll
    UdpSocket* next


@cython.final
cdef class UdpSockets:
    cdef UdpSocket* first
    cdef unsigned int copying  # sockets that copy the DSCP
    # The descriptors stay the caller's.
    cdef UdpSocket* add(self, uint32_t socket_id, int fd, int control_fd, bint copy_dscp) except NULL
    # The socket of this number; NULL: there is none.
    cdef UdpSocket* find(self, uint32_t socket_id) noexcept nogil
    # Forgets it.
    cdef void remove(self, uint32_t socket_id) noexcept nogil


# Whether packets on this socket, which may be none of these, get the DSCP of what they carry.
cdef inline bint copies_dscp(UdpSockets sockets, uint32_t socket_id) noexcept nogil:
    cdef UdpSocket* udp
    if sockets.copying == 0:
        return False
    udp = sockets.find(socket_id)
    return udp != NULL and udp.copy_dscp


# Takes pending errors off a socket, which otherwise make epoll report EPOLLERR for ever; `limit` queued ones at most.
cdef void clear_errors(int fd, int limit) noexcept nogil
