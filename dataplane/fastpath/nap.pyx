"""The nap: under load the loop sleeps for a moment before it looks again, so that a wake-up finds several packets.

A peer that sends datagram by datagram would otherwise cost a wake-up a packet. Knows the times and yields of rounds.
Must not know what a packet is, nor where it comes from. A lone packet never waits: only after several quick rounds in a
row does the loop nap, and it stops when the naps gather nothing.
"""

from libc.stdint cimport uint64_t
from posix.time cimport nanosleep, timespec

cdef enum:
    NAP_NS = 60_000
    QUICK_ROUNDS = 3
    IDLE_ROUNDS = 2
    WORTH_A_NAP = 2  # packets


cdef bint nap_is_due(Nap* nap, uint64_t now_ns, unsigned int packets, bint more_waits) noexcept nogil:
    if nap.napping:
        nap.idle = 0 if packets >= WORTH_A_NAP else nap.idle + 1
        if nap.idle == IDLE_ROUNDS:
            nap.napping = False
            nap.quick = 0
    else:
        nap.quick = nap.quick + 1 if now_ns - nap.last_ns < NAP_NS else 0
        if nap.quick == QUICK_ROUNDS:
            nap.napping = True
            nap.idle = 0
    nap.last_ns = now_ns
    return nap.napping and not more_waits


cdef void take_nap() noexcept nogil:
    cdef timespec duration = timespec(tv_sec=0, tv_nsec=NAP_NS)
    nanosleep(&duration, NULL)


def naps_after(rounds):
    """For tests: what nap_is_due() says after each (now_ns, packets, more_waits) of a fresh Nap."""
    cdef Nap nap = Nap(0, 0, 0, False)
    return [bool(nap_is_due(&nap, now_ns, packets, more_waits)) for now_ns, packets, more_waits in rounds]
