"""Trains: datagrams to one peer that leave in one call (UDP_SEGMENT).

Knows what the kernel takes as one: equal sizes, of which the last may be shorter, up to a number and a sum, and one
TOS. Must not know sockets, nor what is in a datagram. Each peer's datagrams keep their order; those of different peers
do not, so that interleaved peers make long trains too.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from posix.uio cimport iovec

from dataplane.fastpath.span cimport span_of

cdef enum:
    ROOM = 256 << 10
    # Most that one call may send: 65,535 with the outer headers.
    LARGEST_IPV4 = 65_535 - 20 - 8
    LARGEST_IPV6 = 65_535 - 40 - 8
    SOCKADDR_IN = 16  # size of


cdef class Trains:
    """The trains of a batch, and the bytes in them."""

    def __cinit__(self):
        self.buffer = <uint8_t*>malloc(ROOM)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    cdef bint has_room(self, size_t size) noexcept nogil:
        return self.count < TRAINS and size <= ROOM - self.used

    cdef Span room(self) noexcept nogil:
        return span_of(self.buffer + self.used, ROOM - self.used)

    cdef void add(self, PeerState* peer, size_t size, uint8_t tos=0) noexcept nogil:
        cdef Train* train = self._open_train(peer, size, tos)
        if train == NULL:
            train = &self.trains[self.count]
            self.count += 1
            train.peer = peer
            train.segment_size = size
            train.size = 0
            train.tos = tos
            train.count = 0
            train.piece_count = 0
        append(train, self.buffer + self.used, size)
        self.used += size

    cdef Train* _open_train(self, PeerState* peer, size_t size, uint8_t tos) noexcept nogil:
        # The last train of a peer is the only one that may grow; looked for backwards, it is most often the first seen.
        cdef Train* train
        cdef int index = self.count
        while index > 0:
            index -= 1
            train = &self.trains[index]
            if train.peer == peer:
                return train if train.tos == tos and can_join(train, size) else NULL
        return NULL

    cdef void clear(self) noexcept nogil:
        self.count = 0
        self.used = 0


cdef void append(Train* train, uint8_t* datagram, size_t size) noexcept nogil:
    cdef iovec* last = &train.pieces[max(train.piece_count, 1) - 1]
    if train.piece_count > 0 and <uint8_t*>last.iov_base + last.iov_len == datagram:
        last.iov_len += size
    else:
        train.pieces[train.piece_count] = iovec(datagram, size)
        train.piece_count += 1
    train.datagrams[train.count] = iovec(datagram, size)
    train.count += 1
    train.size += size


cdef bint can_join(Train* train, size_t size) noexcept nogil:
    cdef size_t largest = LARGEST_IPV4 if train.peer.remote.size == SOCKADDR_IN else LARGEST_IPV6
    return (
        train.count < TRAIN_DATAGRAMS
        and size <= train.segment_size
        and train.size + size <= largest
        # A short one ends a train.
        and train.size == train.segment_size * train.count
    )


def trains_of(datagrams):
    """For tests: the trains, as (peer, sizes), that datagrams (peer, size) make; peers are (number, is_ipv6).

    A datagram may be (peer, size, tos).
    """
    cdef Trains trains = Trains()
    cdef PeerState peers[8]
    for number, is_ipv6 in {peer for peer, *_ in datagrams}:
        peers[number].remote.size = 28 if is_ipv6 else 16
    for (number, _), size, *tos in datagrams:
        assert trains.has_room(size)
        trains.add(&peers[number], size, sum(tos))
    return [
        (trains.trains[i].peer - peers, [trains.trains[i].datagrams[j].iov_len for j in range(trains.trains[i].count)])
        for i in range(trains.count)
    ]
