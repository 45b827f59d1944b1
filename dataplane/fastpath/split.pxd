# A frame of the TUN (virtio_net_hdr and packet) into the IP packets it stands for; twin of dataplane/tun/split.py.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from dataplane.fastpath.span cimport Span

cdef struct Split:
    # Packets that next_segment() has still to write, and the size of the next. A frame without offload may hold an
    # empty packet: then `left` is 1 and `next_size` 0.
    uint32_t left
    size_t next_size
    # What stands behind the virtio header.
    Span packet
    # the rest is private to split.pyx
    bint partial_checksum
    size_t transport
    size_t checksum_at
    uint8_t protocol
    size_t header
    uint16_t segment_size
    uint32_t index

# Begins with a frame, whose bytes must stay while it is split. False: the virtio header does not fit the packet
# (DropReason.TX_BAD_VIRTIO_HEADER), and `left` is 0.
cdef bint begin_split(Split* split, Span frame) noexcept nogil
# Writes the next packet to the start of `room`, which has at least next_size bytes. `left` must not be 0.
cdef void next_segment(Split* split, Span room) noexcept nogil
