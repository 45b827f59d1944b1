# A data key: seals and opens DATA_V2 packets in place; twin of dataplane/datachannel/aead.py. Keys with epochs come in
# here too, and are epoch.pyx's.

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t

from dataplane.fastpath.epoch cimport SPARE, accept_in_epoch, epoch_refusal
from dataplane.fastpath.key_state cimport KeyState
from dataplane.fastpath.replay_window cimport ACCEPTED, accept
from dataplane.fastpath.span cimport Span, get32, get64

cdef enum:
    HEAD_SIZE = 8
    OVERHEAD = 24
    # vocabulary.KeyLimit; none: 0
    PACKET_IDS = 1
    AEAD_USAGE = 2
    FORGERIES = 3

# Takes the next packet-id and makes a DATA_V2 packet to peer_id of the payload that stands from byte OVERHEAD of `room`
# on, with SPARE bytes behind it; the packet begins where the room begins. Its size; 0: the key is used up, and the
# bytes must not be sent; should libcrypto ever refuse, no packet-id is left from then on.
cdef size_t seal(KeyState* key, uint32_t peer_id, Span room) noexcept nogil
# Why seal() refused: a DropReason.
cdef int end_of(const KeyState* key) noexcept nogil
# Decrypts a DATA_V2 packet (OVERHEAD bytes at least, and accepted by refusal_of()) in place, and tells where the
# payload is. False: not authentic; the payload bytes are garbage then, and must not be used. Leaves the replay window
# alone.
cdef bint open_packet(KeyState* key, Span datagram, Span* payload) noexcept nogil

cdef uint64_t FORGERIES_MAX
cdef int FORGERY_LIMIT


# Why this packet need not be opened: a DropReason, or ACCEPTED.
cdef inline int refusal_of(const KeyState* key, Span datagram) noexcept nogil:
    if key.epochs != NULL:
        return epoch_refusal(key, datagram)
    return FORGERY_LIMIT if key.forged > FORGERIES_MAX else ACCEPTED


# The packet-id of a packet that refusal_of() accepted.
cdef inline uint64_t packet_id_of(const KeyState* key, Span datagram) noexcept nogil:
    return get32(datagram, 4) if key.epochs == NULL else get64(datagram, 4)


# Takes the packet-id of a packet that was opened: a DropReason, or ACCEPTED.
cdef inline int accept_packet(KeyState* key, uint64_t packet_id, uint64_t now_ns) noexcept nogil:
    if key.epochs != NULL:
        return accept_in_epoch(key, packet_id, now_ns)
    return accept(&key.window, packet_id, now_ns)


# A limit that the key has come near of, each once; 0 for none.
cdef inline uint8_t take_warning(KeyState* key) noexcept nogil:
    if key.sent >= key.packet_id_warning:
        key.packet_id_warning = UINT64_MAX
        return PACKET_IDS
    if key.usage >= key.usage_warning:
        key.usage_warning = UINT64_MAX
        return AEAD_USAGE
    if key.forged >= key.forgery_warning:
        key.forgery_warning = UINT64_MAX
        return FORGERIES
    return 0


cdef class DataKey:
    cdef KeyState state
    cdef readonly object cipher
