# Data keys with epochs, OpenVPN 2.7's format; twin of dataplane/datachannel/epoch.py. The key has KeyState.epochs.

from libc.stdint cimport uint32_t, uint64_t

from dataplane.fastpath.key_state cimport KeyState
from dataplane.fastpath.span cimport Span

cdef enum:
    EPOCH_HEAD_SIZE = 12
    EPOCH_OVERHEAD = 28
    SPARE = EPOCH_OVERHEAD - 24  # more than DATA_V2 has

# Begins both directions, with two EpochSecrets that were checked. Raises RuntimeError, MemoryError.
cdef int begin_epochs(KeyState* key, cipher, encrypt_dir, decrypt_dir) except -1
cdef void end_epochs(KeyState* key) noexcept
# Makes a packet of the payload that stands from byte 24 of `room` on, with SPARE bytes behind it; it begins where the
# room begins. Its size; 0: the key is used up.
cdef size_t seal_in_epoch(KeyState* key, uint32_t peer_id, Span room) noexcept nogil
# Why this packet of 24 bytes at least need not be opened: a DropReason, or ACCEPTED.
cdef int epoch_refusal(const KeyState* key, Span datagram) noexcept nogil
# Decrypts in place what epoch_refusal() accepted, and tells where the payload is. False: not authentic.
cdef bint open_in_epoch(KeyState* key, Span datagram, Span* payload) noexcept nogil
# Takes the packet-id of a packet that was opened, and goes on to its epoch: a DropReason, or ACCEPTED.
cdef int accept_in_epoch(KeyState* key, uint64_t packet_id, uint64_t now_ns) noexcept nogil
