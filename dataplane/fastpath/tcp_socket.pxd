# The TCP sockets of a packet path, each with its control stream and what waits for either.

cimport cython
from libc.stdint cimport uint8_t, uint32_t

from dataplane.fastpath.byte_queue cimport ByteQueue
from dataplane.fastpath.hash_map cimport HashMap
from dataplane.fastpath.span cimport Span
from dataplane.fastpath.tcp_framing cimport FrameQueue

cdef struct TcpSocket:
    uint32_t socket_id
    int fd
    int control_fd
    FrameQueue queue      # for the socket
    ByteQueue to_control  # frames for the control plane
    ByteQueue incoming    # the begin of a frame, of which the rest has not come: from the socket
    ByteQueue commands    # and from the control plane
    bint is_full          # the socket takes nothing at present
    bint control_reads    # the control plane may still say something
    bint control_writes   # and listens
    int send_failure      # vocabulary.DelReason for which nothing more can be sent; 0: none
    int closed            # vocabulary.DelReason for which the stream ended; 0: it has not
    int last_mark         # of a control packet that kept its place behind the data; 0: there was none
    bint told             # that it ended
    uint32_t watched          # what epoll reports of the socket
    uint32_t control_watched  # and of the control stream
    bint touched
    TcpSocket* next_touched
    TcpSocket* next

cdef enum:
    READ_SIZE = 128 << 10  # taken from a socket before others get their turn


@cython.final
cdef class TcpSockets:
    cdef HashMap by_id
    cdef size_t count
    cdef TcpSocket* first
    cdef TcpSocket* first_touched
    # The descriptors stay the caller's.
    cdef TcpSocket* add(self, uint32_t socket_id, int fd, int control_fd) except NULL
    # The socket of this number; NULL: there is none.
    cdef TcpSocket* find(self, uint32_t socket_id) noexcept nogil
    # Forgets it.
    cdef void remove(self, uint32_t socket_id) noexcept nogil
    # Notes a socket of which something may have changed that epoll or the daemon is to know.
    cdef void touch(self, TcpSocket* tcp) noexcept nogil
    # Takes one that was noted; NULL: there is none.
    cdef TcpSocket* take_touched(self) noexcept nogil


@cython.final
cdef class TcpReader:
    cdef uint8_t* buffer
    # Takes what waits; all that there is now of the stream, which stays until the next call. Size 0: nothing came, or
    # the control plane is behind. Then keep() is owed.
    cdef Span receive(self, TcpSocket* tcp, bint* is_full) noexcept nogil
    # Keeps the begin of a frame. is_broken: it is none.
    cdef void keep(self, TcpSocket* tcp, Span rest, bint is_broken) noexcept nogil
    # Takes packets of the control plane, unless earlier ones wait.
    cdef void relay_control(self, TcpSocket* tcp) noexcept nogil
    # private
    cdef ssize_t _read(self, int fd, ByteQueue* rest, Span* stream) noexcept nogil

# Adds a packet, which stands behind its prefix, to what waits for the control plane. False: it has closed its end.
cdef bint hand_over(TcpSocket* tcp, Span packet) noexcept nogil
# Gives the control plane what waits for it, as far as it takes it.
cdef void flush_control(TcpSocket* tcp) noexcept nogil
# Whether a data packet of `size` bytes may be added to the queue.
cdef bint tcp_admits(const TcpSocket* tcp, size_t size) noexcept nogil
# Sends what waits, as far as the socket takes it.
cdef void flush(TcpSocket* tcp) noexcept nogil
# Nothing can be sent any more; receive() is to be called until it says `closed` or is held up.
cdef bint is_ending(const TcpSocket* tcp) noexcept nogil
# The epoll events to wait for; 0: the descriptor is not to be watched at all.
cdef uint32_t stream_events(const TcpSocket* tcp) noexcept nogil
cdef uint32_t control_events(const TcpSocket* tcp) noexcept nogil
# No memory, and so a gap in the stream.
cdef void break_stream(TcpSocket* tcp) noexcept nogil
