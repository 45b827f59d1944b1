# IP packets into frames for the TUN: in-order segments of a flow become one frame; twin of dataplane/tun/merge.py.

from libc.stdint cimport uint16_t, uint64_t
from posix.uio cimport iovec

from dataplane.fastpath.span cimport Span

cdef enum:
    MERGE_PACKETS = 1024  # packets that a Merger holds

cdef struct Merger  # private to merge.pyx

cdef struct Frame:
    # What to write: the virtio header (if the TUN has one) and pieces of packets, for writev.
    iovec* pieces
    int piece_count
    # Whose packets these are, how many, and the sum of their sizes (as they came, one by one).
    void* owner
    uint16_t packets
    uint64_t size

# tcp, udp: what may be merged. virtio_header: whether frames begin with one; without, nothing is merged. Raises
# MemoryError.
cdef Merger* new_merger(bint tcp, bint udp, bint virtio_header) except NULL
cdef void free_merger(Merger* merger) noexcept nogil
# Adds a packet, whose bytes must stay until the frames were written, and may be changed. False: the Merger is full, and
# the packet was not taken. Packets of a flow have one owner.
cdef bint merge(Merger* merger, Span packet, void* owner) noexcept nogil
# Number of frames; completes their headers. Call once, then take frames 0..n-1, then clear.
cdef int finish_frames(Merger* merger) noexcept nogil
cdef Frame* frame_at(Merger* merger, int index) noexcept nogil
cdef void clear_frames(Merger* merger) noexcept nogil
