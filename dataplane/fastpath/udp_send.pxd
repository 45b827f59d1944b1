# Trains to the sockets of their peers.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from posix.uio cimport iovec

from dataplane.fastpath.channel cimport PeerState
from dataplane.fastpath.linux cimport mmsghdr
from dataplane.fastpath.trains cimport TRAIN_DATAGRAMS, Train, Trains
from dataplane.fastpath.udp_socket cimport UdpSocket, UdpSockets

cdef enum:
    REFUSALS = 64
    ANCILLARY_WORDS = 11  # packet info, UDP_SEGMENT and TOS

cdef struct Refusal:
    # To this peer, trains of segments of this size or longer were refused, and are not tried before then.
    PeerState* peer
    size_t segment_size
    uint64_t forgotten_ns

cdef struct Payload:
    # What one message carries; segment_size: of a train, 0 for a datagram of its own; tos: 0 leaves it to the socket.
    iovec* pieces
    size_t piece_count
    uint16_t segment_size
    uint8_t tos


@cython.final
cdef class UdpSender:
    cdef Trains trains
    cdef mmsghdr messages[TRAIN_DATAGRAMS]
    cdef uint64_t ancillary[TRAIN_DATAGRAMS][ANCILLARY_WORDS]
    cdef Refusal refusals[REFUSALS]
    # Sends what was added to `trains`. Datagrams that could not be sent are counted: TX_QUEUE_FULL or TX_SEND_FAILED.
    cdef void send(self, UdpSockets sockets, uint64_t now_ns) noexcept nogil
    # private
    cdef int _send_run(self, UdpSocket* udp, Train* trains, int count, uint64_t now_ns) noexcept nogil
    cdef void _train_failed(self, UdpSocket* udp, Train* train, int error, uint64_t now_ns) noexcept nogil
    cdef int _send_one_by_one(self, UdpSocket* udp, Train* train) noexcept nogil
    cdef int _without_local(self, int index, UdpSocket* udp, PeerState* peer, Payload payload, int error) noexcept nogil
    cdef void _prepare(self, int index, PeerState* peer, Payload payload, bint with_local) noexcept nogil
    cdef bint _goes_whole(self, UdpSocket* udp, Train* train, uint64_t now_ns) noexcept nogil
    cdef void _remember(self, Train* train, uint64_t now_ns) noexcept nogil
    cdef Refusal* _refusal(self, PeerState* peer) noexcept nogil
