# What the packet path has to know of control packets; twin of that part of dataplane/datachannel/wire.py.

from dataplane.fastpath.span cimport Span, get8

cdef enum:
    OPCODE_SOFT_RESET = 3


# Which soft reset a packet of one byte or more is, the same for its repetitions; 0: none.
cdef inline int reset_mark(Span packet) noexcept nogil:
    return get8(packet, 0) if get8(packet, 0) >> 3 == OPCODE_SOFT_RESET else 0
