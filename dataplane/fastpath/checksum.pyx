# distutils: extra_compile_args = -ftree-vectorize -fvect-cost-model=dynamic -funroll-loops
"""The Internet checksum (RFC 1071) of packets and their pseudo headers (RFC 793, RFC 768, RFC 8200 section 8.1).

Knows how to sum bytes and where IP addresses stand. Must not know where a checksum is kept, nor how 0 is written.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from dataplane.fastpath.span cimport Span, behind, checked, get8, get16, part, put, span_of

cdef extern from "<endian.h>" nogil:
    uint16_t be16toh(uint16_t word)


cdef uint64_t add_bytes(uint64_t total, Span data) noexcept nogil:
    # Words with their bytes swapped have a sum with its bytes swapped, and wider words only put their carries off
    # (RFC 1071, 2): so words of 32 bits are summed as the machine reads them, and 64 bits hold all carries of a packet.
    # Checked once for all, the loops are ones that the compiler makes vector instructions of, twice as fast and more.
    cdef size_t whole = data.size // 4 * 4
    cdef const uint8_t* words = checked(data, 0, whole)
    cdef uint32_t word
    cdef uint64_t carried = 0
    cdef size_t at
    for at in range(0, whole, 4):
        memcpy(&word, words + at, 4)
        carried += word
    return add_rest(total + be16toh(folded(carried)), behind(data, whole))


cdef uint64_t copy_bytes(uint64_t total, Span to, Span source) noexcept nogil:
    # In one pass over memory; otherwise as above.
    cdef size_t whole = source.size // 4 * 4
    cdef const uint8_t* words = checked(source, 0, whole)
    cdef uint8_t* copies = checked(to, 0, source.size)
    cdef uint32_t word
    cdef uint64_t carried = 0
    cdef size_t at
    for at in range(0, whole, 4):
        memcpy(&word, words + at, 4)
        memcpy(copies + at, &word, 4)
        carried += word
    put(to, whole, behind(source, whole))
    return add_rest(total + be16toh(folded(carried)), behind(source, whole))


cdef inline uint64_t add_rest(uint64_t total, Span data) noexcept nogil:
    """The same for less than four bytes."""
    if data.size >= 2:
        total += get16(data, 0)
    if data.size % 2:
        total += get8(data, data.size - 1) << 8
    return total


cdef uint16_t folded(uint64_t total) noexcept nogil:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>total


cdef uint64_t pseudo_header(Span packet, uint16_t protocol, size_t length) noexcept nogil:
    cdef Span addresses
    if get8(packet, 0) >> 4 == 4:
        addresses = part(packet, 12, 8)
    else:
        addresses = part(packet, 8, 32)
    return add_bytes(protocol + length, addresses)


def sum_of(list pieces):
    """For tests: folded sum of pieces (bytes) that follow each other; all but the last have an even size."""
    cdef uint64_t total = 0
    cdef bytes piece
    for piece in pieces:
        total = add_bytes(total, span_of(<uint8_t*><char*>piece, len(piece)))
    return folded(total)


def pseudo_header_sum(bytes packet not None, uint16_t protocol, size_t length):
    """For tests: folded sum of the pseudo header of an IP packet of at least 20 (IPv4) or 40 bytes."""
    return folded(pseudo_header(span_of(<uint8_t*><char*>packet, len(packet)), protocol, length))
