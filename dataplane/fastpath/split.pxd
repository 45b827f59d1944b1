# A frame of the TUN (virtio_net_hdr and packet) into the IP packets it stands for; twin of dataplane/tun/split.py.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from dataplane.fastpath.span cimport Span

cdef struct Split:
    # Size of the packet that next_segment() writes next; 0 when there is none left.
    size_t next_size
    Span packet
    # the rest is private to split.pyx
    uint8_t kind
    size_t transport
    size_t header
    size_t offset
    uint32_t segment_size
    uint32_t index
    uint16_t checksum_at
    uint64_t pseudo_sum

# Begins with a frame, whose bytes must stay while it is split. False: the virtio header does not fit the packet
# (DropReason.TX_BAD_VIRTIO_HEADER).
cdef bint begin_split(Split* split, Span frame) noexcept nogil
# Writes the next packet to the start of `room`, which has at least next_size bytes.
cdef void next_segment(Split* split, Span room) noexcept nogil
