# A row of the statistics page: where the packet path counts. Columns as vocabulary.Column.

cimport cython
from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint64_t

cdef enum:
    VPN_RX_BYTES = 0
    VPN_RX_PACKETS = 1
    VPN_TX_BYTES = 2
    VPN_TX_PACKETS = 3
    LINK_RX_BYTES = 4
    LINK_RX_PACKETS = 5
    LINK_TX_BYTES = 6
    LINK_TX_PACKETS = 7
    LAST_RX_NS = 8
    LAST_TX_NS = 9
    SENT_PRIMARY = 10
    SENT_SECONDARY = 11
    DROPS = 16
    ROW_WORDS = 64


@cython.final
cdef class Row:
    # The words of a writable buffer, which stays where it is while this object lives.
    cdef uint64_t* words
    cdef Py_buffer buffer


# Counts dropped packets. reason: vocabulary.DropReason.
cdef inline void count_drops(uint64_t* row, int reason, uint64_t packets) noexcept nogil:
    row[DROPS + reason] += packets


# Counts packets of this many bytes together in the column of the bytes and the next, which is that of the packets.
cdef inline void count_traffic(uint64_t* row, int column, uint64_t packets, uint64_t size) noexcept nogil:
    row[column] += size
    row[column + 1] += packets
