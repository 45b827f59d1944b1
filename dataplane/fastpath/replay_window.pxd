# The replay window; twin of dataplane/datachannel/replay_window.py.

from libc.stdint cimport uint64_t

cdef enum:
    ACCEPTED = -1
    RING_WORDS = 64

cdef struct WindowState:
    uint64_t highest
    uint64_t floor
    uint64_t expire_ns
    uint64_t seen[RING_WORDS]  # id n is bit n % 64 of word n / 64 % RING_WORDS

# ACCEPTED, or the DropReason. A window that is all zero is an empty one. Call it after authentication only.
cdef int accept(WindowState* window, uint64_t packet_id, uint64_t now_ns) noexcept nogil

cdef class ReplayWindow:
    # A view of the window inside a DataKey (kept alive by `owner`), or one of its own.
    cdef WindowState* state
    cdef WindowState own
    cdef object owner
