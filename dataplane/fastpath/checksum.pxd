# The Internet checksum (RFC 1071), as sums of 16-bit words in network order that are folded at the end.

from libc.stdint cimport uint16_t, uint64_t

from dataplane.fastpath.span cimport Span

# Adds the bytes, which begin at an even place of what is summed, to a sum: at most 0xffff more. An odd last byte counts
# as the high half of a word. A sum is a plain number: words may be added to it as get16() reads them.
cdef uint64_t add_bytes(uint64_t total, Span data) noexcept nogil
# The same, and copies them to the start of `to`; the two must not overlap.
cdef uint64_t copy_bytes(uint64_t total, Span to, Span source) noexcept nogil
# 16 bits of a sum, not complemented, in host order (put16 writes it as the wire has it).
cdef uint16_t folded(uint64_t total) noexcept nogil
# Sum of the pseudo header of an IPv4 or IPv6 packet (by its version) for this protocol and transport length.
cdef uint64_t pseudo_header(Span packet, uint16_t protocol, size_t length) noexcept nogil
