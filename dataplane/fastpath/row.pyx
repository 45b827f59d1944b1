"""A row of the statistics page: where the packet path counts.

Knows that a row is ROW_WORDS aligned words of 64 bits that somebody else owns. Must not know what is counted.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t


cdef class Row:
    """The words of a writable buffer of 512 bytes (array("Q"), memoryview, …).

    Raises ValueError for a buffer of another size, TypeError for what is no buffer, BufferError for one not writable.
    """

    def __cinit__(self, buffer):
        PyObject_GetBuffer(buffer, &self.buffer, PyBUF_WRITABLE)
        if self.buffer.len != ROW_WORDS * sizeof(uint64_t) or <size_t>self.buffer.buf % sizeof(uint64_t):
            raise ValueError(f"no row: {self.buffer.len} bytes")
        self.words = <uint64_t*>self.buffer.buf

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)


# For tests.

def columns():
    """The columns as this package knows them, by name."""
    return {
        "VPN_RX_BYTES": VPN_RX_BYTES,
        "VPN_RX_PACKETS": VPN_RX_PACKETS,
        "VPN_TX_BYTES": VPN_TX_BYTES,
        "VPN_TX_PACKETS": VPN_TX_PACKETS,
        "LINK_RX_BYTES": LINK_RX_BYTES,
        "LINK_RX_PACKETS": LINK_RX_PACKETS,
        "LINK_TX_BYTES": LINK_TX_BYTES,
        "LINK_TX_PACKETS": LINK_TX_PACKETS,
        "LAST_RX_NS": LAST_RX_NS,
        "LAST_TX_NS": LAST_TX_NS,
        "SENT_PRIMARY": SENT_PRIMARY,
        "SENT_SECONDARY": SENT_SECONDARY,
        "DROPS": DROPS,
    }
