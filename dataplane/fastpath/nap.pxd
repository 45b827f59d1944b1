# When to sleep a little so that packets gather; the moderation of interrupts, in software.

from libc.stdint cimport uint64_t

cdef struct Nap:
    # All zero is a fresh one.
    uint64_t last_ns
    unsigned int quick  # rounds in a row that came soon after the one before
    unsigned int idle  # naps in a row that gathered next to nothing
    bint napping

# After a round that began at now_ns (CLOCK_MONOTONIC) and moved so many packets: whether to take a nap before the next.
# more_waits: a source had more than the round took, so that nothing needs to gather.
cdef bint nap_is_due(Nap* nap, uint64_t now_ns, unsigned int packets, bint more_waits) noexcept nogil
cdef void take_nap() noexcept nogil
