"""The UDP sockets of a packet path: which descriptor a socket_id is, and what the socket can do.

Knows descriptors and what the kernel says about them. Must not know what is sent or received. A device has few
sockets, so they stand in a list.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from dataplane.fastpath.linux cimport (
    IPPROTO_UDP,
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    SO_ERROR,
    SOL_SOCKET,
    UDP_SEGMENT,
    getsockopt,
    msghdr,
    recvmsg,
    socklen_t,
)


cdef class UdpSockets:
    """A list of sockets."""

    def __dealloc__(self):
        while self.first != NULL:
            self.remove(self.first.socket_id)

    cdef UdpSocket* add(self, uint32_t socket_id, int fd, int control_fd, bint copy_dscp) except NULL:
        cdef UdpSocket* udp = <UdpSocket*>calloc(1, sizeof(UdpSocket))
        cdef int segment_size
        cdef socklen_t size = sizeof(segment_size)
        if udp == NULL:
            raise MemoryError
        udp.socket_id = socket_id
        udp.fd = fd
        udp.control_fd = control_fd
        udp.copy_dscp = copy_dscp
        self.copying += copy_dscp
        udp.has_segmentation = getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment_size, &size) == 0
        udp.next = self.first
        self.first = udp
        return udp

    def insert(self, socket_id, fd, control_fd=-1, copy_dscp=False):
        """For tests: adds a socket."""
        self.add(socket_id, fd, control_fd, copy_dscp)

    def drop(self, socket_id):
        """For tests: forgets a socket."""
        self.remove(socket_id)

    cdef UdpSocket* find(self, uint32_t socket_id) noexcept nogil:
        cdef UdpSocket* udp = self.first
        while udp != NULL and udp.socket_id != socket_id:
            udp = udp.next
        return udp

    cdef void remove(self, uint32_t socket_id) noexcept nogil:
        cdef UdpSocket** link = &self.first
        cdef UdpSocket* gone
        while link[0] != NULL and link[0].socket_id != socket_id:
            link = &link[0].next
        gone = link[0]
        if gone != NULL:
            link[0] = gone.next
            self.copying -= gone.copy_dscp
            free(gone)


cdef void clear_errors(int fd, int limit) noexcept nogil:
    cdef int error
    cdef socklen_t size = sizeof(error)
    cdef msghdr nothing
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size)
    # The owner of an adopted socket may have set IP_RECVERR, which queues errors.
    for _ in range(limit):
        nothing = msghdr(NULL, 0, NULL, 0, NULL, 0, 0)
        if recvmsg(fd, &nothing, MSG_ERRQUEUE | MSG_DONTWAIT) < 0:
            return


def clear_errors_of(fd, limit):
    """For tests: clear_errors()."""
    clear_errors(fd, limit)
