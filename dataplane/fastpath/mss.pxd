# The MSS option of TCP, lowered in the packets that open a connection; twin of dataplane/datachannel/mss.py.

from libc.stdint cimport uint16_t

from dataplane.fastpath.span cimport Span

cdef struct MssLimits:
    # The most that the option may say, in bytes; 0: anything.
    uint16_t ipv4
    uint16_t ipv6

# Limits from Python. Raises OverflowError, TypeError.
cdef MssLimits pack_limits(object limits) except *
# private
cdef void clamp(Span packet, MssLimits limits) noexcept nogil


# Lowers the option if it says more; the checksum stays as right or wrong as it was.
cdef inline void clamp_mss(Span packet, MssLimits limits) noexcept nogil:
    if limits.ipv4 != 0 or limits.ipv6 != 0:
        clamp(packet, limits)
