"""TCP: the packets of one peer in a stream, which the control channel shares.

Knows a connected socket and its control stream. Must not know peers, nor which packets are whose. Twin of
dataplane/transport/tcp.py, where the rules stand; what waits is kept by socket, what is read stands in one buffer.
"""

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from posix.uio cimport iovec

from dataplane.fastpath.byte_queue cimport ByteQueue, append, empty, took, waiting
from dataplane.fastpath.control_packet cimport OPCODE_SOFT_RESET, reset_mark
from dataplane.fastpath.hash_map cimport find_entry, free_map, put_entry, remove_entry, reserve_entries, set_up_map
from dataplane.fastpath.linux cimport (
    EPOLLIN, EPOLLOUT, MSG_DONTWAIT, MSG_NOSIGNAL, msghdr, recv, send, sendmsg,
)
from dataplane.fastpath.span cimport Span, behind, put, span_of
from dataplane.fastpath.tcp_framing cimport (
    CUT_BROKEN, CUT_PACKET, PREFIX_SIZE, QUEUE_PIECES, Cut, add_control, cut_packet, empty_queue, has_control,
    is_empty, queue_admits, queue_pieces, queue_took,
)

from dataplane.datachannel import wire
from dataplane.transport.tcp import READ_BYTES
from dataplane.transport.tcp_framing import PACKET_MAX as _PACKET_MAX
from dataplane.vocabulary import DelReason

cdef size_t FRAME_MAX = PREFIX_SIZE + _PACKET_MAX
cdef int TRANSPORT_ERROR = DelReason.TRANSPORT_ERROR
cdef int TRANSPORT_DISCONNECT = DelReason.TRANSPORT_DISCONNECT
assert READ_SIZE == READ_BYTES
assert OPCODE_SOFT_RESET == wire.OPCODE_SOFT_RESET


cdef class TcpSockets:
    """The sockets, by number: there may be as many as peers."""

    def __cinit__(self):
        set_up_map(&self.by_id, 1)

    def __dealloc__(self):
        while self.first != NULL:
            self.remove(self.first.socket_id)
        free_map(&self.by_id)

    cdef TcpSocket* add(self, uint32_t socket_id, int fd, int control_fd) except NULL:
        cdef uint64_t key = socket_id
        cdef TcpSocket* tcp
        reserve_entries(&self.by_id, self.count + 1)
        tcp = <TcpSocket*>calloc(1, sizeof(TcpSocket))
        if tcp == NULL:
            raise MemoryError
        tcp.socket_id = socket_id
        tcp.fd = fd
        tcp.control_fd = control_fd
        tcp.control_reads = tcp.control_writes = True
        tcp.next = self.first
        self.first = tcp
        self.count += 1
        put_entry(&self.by_id, &key, tcp)
        return tcp

    cdef TcpSocket* find(self, uint32_t socket_id) noexcept nogil:
        cdef uint64_t key = socket_id
        return <TcpSocket*>find_entry(&self.by_id, &key)

    cdef void remove(self, uint32_t socket_id) noexcept nogil:
        cdef uint64_t key = socket_id
        cdef TcpSocket* gone = self.find(socket_id)
        cdef TcpSocket** link = &self.first
        if gone == NULL:
            return
        while link[0] != gone:
            link = &link[0].next
        link[0] = gone.next
        if gone.touched:
            link = &self.first_touched
            while link[0] != gone:
                link = &link[0].next_touched
            link[0] = gone.next_touched
        remove_entry(&self.by_id, &key)
        self.count -= 1
        empty_queue(&gone.queue)
        empty(&gone.to_control)
        empty(&gone.incoming)
        empty(&gone.commands)
        free(gone)

    cdef void touch(self, TcpSocket* tcp) noexcept nogil:
        if not tcp.touched:
            tcp.touched = True
            tcp.next_touched = self.first_touched
            self.first_touched = tcp

    cdef TcpSocket* take_touched(self) noexcept nogil:
        cdef TcpSocket* tcp = self.first_touched
        if tcp != NULL:
            self.first_touched = tcp.next_touched
            tcp.touched = False
        return tcp


cdef class TcpReader:
    """Room for what one read takes, which all sockets share in turn, behind the begin of a frame."""

    def __cinit__(self):
        self.buffer = <uint8_t*>malloc(FRAME_MAX + READ_SIZE)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    cdef Span receive(self, TcpSocket* tcp, bint* is_full) noexcept nogil:
        cdef Span stream = span_of(self.buffer, 0)
        cdef ssize_t size
        if tcp.closed or waiting(&tcp.to_control).size > 0:
            return stream
        size = self._read(tcp.fd, &tcp.incoming, &stream)
        is_full[0] = size == READ_SIZE
        if size == 0:
            tcp.closed = tcp.send_failure or TRANSPORT_DISCONNECT
        elif size < 0 and (errno == EAGAIN or errno == EINTR):
            # A stream that takes nothing more is over when all was read that had come.
            tcp.closed = tcp.send_failure
        elif size < 0:
            tcp.closed = tcp.send_failure or reason_of(errno)
        return stream

    cdef ssize_t _read(self, int fd, ByteQueue* rest, Span* stream) noexcept nogil:
        """What recv(2) says. stream: `rest`, which is then empty, and what came; of size 0 if nothing came."""
        cdef Span begin = waiting(rest)
        cdef ssize_t size = recv(fd, self.buffer + begin.size, READ_SIZE, MSG_DONTWAIT)
        if size > 0:
            stream[0] = span_of(self.buffer, begin.size + size)
            put(stream[0], 0, begin)
            empty(rest)
        return size

    cdef void keep(self, TcpSocket* tcp, Span rest, bint is_broken) noexcept nogil:
        if is_broken:
            tcp.closed = TRANSPORT_ERROR
        elif not append(&tcp.incoming, rest):
            break_stream(tcp)

    cdef void relay_control(self, TcpSocket* tcp) noexcept nogil:
        cdef Span stream = span_of(self.buffer, 0)
        cdef Span packet
        cdef size_t at = 0
        cdef ssize_t size
        cdef Cut cut
        if not tcp.control_reads or tcp.closed or has_control(&tcp.queue):
            return
        size = self._read(tcp.control_fd, &tcp.commands, &stream)
        tcp.control_reads = size > 0 or (size < 0 and (errno == EAGAIN or errno == EINTR))
        cut = cut_packet(stream, &at, &packet)
        while cut == CUT_PACKET:
            if not add_control(&tcp.queue, frame_of(packet), keeps_order(tcp, packet)):
                break_stream(tcp)
            cut = cut_packet(stream, &at, &packet)
        if not append(&tcp.commands, behind(stream, at)):
            break_stream(tcp)
        if cut == CUT_BROKEN:
            tcp.closed = TRANSPORT_ERROR


cdef bint hand_over(TcpSocket* tcp, Span packet) noexcept nogil:
    if not tcp.control_writes:
        return False
    if not append(&tcp.to_control, frame_of(packet)):
        break_stream(tcp)
    return True


cdef Span frame_of(Span packet) noexcept nogil:
    """A packet that was cut, with its prefix."""
    return span_of(packet.at - PREFIX_SIZE, PREFIX_SIZE + packet.size)


cdef bint keeps_order(TcpSocket* tcp, Span packet) noexcept nogil:
    """Whether a control packet stays behind the data that wait; a repetition does not."""
    cdef int mark = reset_mark(packet)
    if mark == 0 or mark == tcp.last_mark:
        return False
    tcp.last_mark = mark
    return True


cdef void flush_control(TcpSocket* tcp) noexcept nogil:
    cdef Span frames = waiting(&tcp.to_control)
    cdef ssize_t size
    while frames.size > 0:
        size = send(tcp.control_fd, frames.at, frames.size, MSG_DONTWAIT | MSG_NOSIGNAL)
        if size < 0:
            if errno != EAGAIN and errno != EINTR:
                tcp.control_writes = False
                empty(&tcp.to_control)
            return
        took(&tcp.to_control, size)
        frames = waiting(&tcp.to_control)


cdef bint tcp_admits(const TcpSocket* tcp, size_t size) noexcept nogil:
    return not tcp.send_failure and not tcp.closed and queue_admits(&tcp.queue, PREFIX_SIZE + size)


cdef void flush(TcpSocket* tcp) noexcept nogil:
    cdef iovec pieces[QUEUE_PIECES]
    cdef msghdr message
    cdef ssize_t size
    cdef size_t offered
    cdef int count
    tcp.is_full = False
    while not (is_empty(&tcp.queue) or tcp.is_full or tcp.send_failure or tcp.closed):
        count = queue_pieces(&tcp.queue, pieces)
        offered = 0
        for index in range(count):
            offered += pieces[index].iov_len
        message = msghdr(NULL, 0, &pieces[0], count, NULL, 0, 0)
        size = sendmsg(tcp.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
        if size >= 0:
            queue_took(&tcp.queue, size)
            tcp.is_full = <size_t>size < offered
        elif errno == EAGAIN or errno == EINTR:
            tcp.is_full = True
        else:
            # What the peer sent before is still to be read.
            tcp.send_failure = reason_of(errno)
            empty_queue(&tcp.queue)


cdef bint is_ending(const TcpSocket* tcp) noexcept nogil:
    return tcp.send_failure and not tcp.closed and waiting(&tcp.to_control).size == 0


cdef uint32_t stream_events(const TcpSocket* tcp) noexcept nogil:
    if tcp.closed:
        return 0
    return (0 if waiting(&tcp.to_control).size > 0 else EPOLLIN) | (EPOLLOUT if tcp.is_full else 0)


cdef uint32_t control_events(const TcpSocket* tcp) noexcept nogil:
    cdef uint32_t events = EPOLLOUT if waiting(&tcp.to_control).size > 0 else 0
    if not tcp.closed and tcp.control_reads and not has_control(&tcp.queue):
        events |= EPOLLIN
    return events


cdef void break_stream(TcpSocket* tcp) noexcept nogil:
    tcp.closed = TRANSPORT_ERROR


cdef int reason_of(int error) noexcept nogil:
    """Why a peer goes whose stream had this error."""
    return TRANSPORT_DISCONNECT if error == ECONNRESET or error == EPIPE else TRANSPORT_ERROR
