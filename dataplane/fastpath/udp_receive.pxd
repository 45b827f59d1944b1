# Datagrams from a UDP socket, many a call, with where they came from and to.

cimport cython
from libc.stdint cimport uint8_t, uint64_t
from posix.uio cimport iovec

from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress
from dataplane.fastpath.linux cimport mmsghdr
from dataplane.fastpath.span cimport Span

cdef enum:
    RECEIVE_BATCH = 64
    ANCILLARY_WORDS = 32  # packet info, UDP_GRO, and whatever else the owner of an adopted socket asked for

cdef struct Datagram:
    # What the kernel gave as one: a datagram, or a train of them that it joined (UDP_GRO).
    Span payload
    size_t segment_size  # of every segment but the last, which may be shorter; 0 only if the payload is empty
    Endpoint source
    LocalAddress local


@cython.final
cdef class UdpReceiver:
    cdef uint8_t* slots
    cdef int used
    cdef mmsghdr messages[RECEIVE_BATCH]
    cdef iovec payloads[RECEIVE_BATCH]
    cdef Endpoint sources[RECEIVE_BATCH]
    cdef uint64_t ancillary[RECEIVE_BATCH][ANCILLARY_WORDS]
    # Takes what waits on a socket, RECEIVE_BATCH datagrams at most: how many. Their bytes stay until the next call.
    cdef int receive(self, int fd) noexcept nogil
    # One of them.
    cdef void datagram_at(self, int index, Datagram* datagram) noexcept nogil
    # private
    cdef void _make_ready(self, int index) noexcept nogil
