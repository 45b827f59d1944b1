# A data key: seals and opens DATA_V2 packets in place; twin of dataplane/datachannel/aead.py. One context a direction.

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t

from dataplane.fastpath.libcrypto cimport OSSL_PARAM, CipherCalls
from dataplane.fastpath.replay_window cimport WindowState
from dataplane.fastpath.span cimport Span

cdef enum:
    HEAD_SIZE = 8
    OVERHEAD = 24
    # vocabulary.KeyLimit; none: 0
    PACKET_IDS = 1
    AEAD_USAGE = 2
    FORGERIES = 3

cdef struct Direction:
    const CipherCalls* calls
    void* context  # of libcrypto; key set up once, a packet renews the nonce only
    uint8_t nonce[12]  # packet_id, nonce tail
    OSSL_PARAM tag[2]  # where the tag stands, as libcrypto wants to be told, and the end of the list

cdef struct KeyState:
    uint32_t sent
    uint32_t first_word
    uint8_t key_id
    uint64_t usage  # packets and blocks sealed so far
    uint64_t usage_max
    uint64_t forged  # packets that did not open so far
    uint64_t packet_id_warning  # from where on a warning is due; UINT64_MAX once it was given
    uint64_t usage_warning
    uint64_t forgery_warning
    Direction encrypt
    Direction decrypt
    WindowState window

# Takes the next packet-id and makes a DATA_V2 packet to peer_id of the payload that stands from byte OVERHEAD of
# `datagram` on. False: the key is used up, and the bytes must not be sent; should libcrypto ever refuse, no packet-id is
# left from then on.
cdef bint seal(KeyState* key, uint32_t peer_id, Span datagram) noexcept nogil
# Why seal() refused: a DropReason.
cdef int end_of(const KeyState* key) noexcept nogil
# Why this packet need not be opened: a DropReason, or ACCEPTED.
cdef int refusal_of(const KeyState* key, Span datagram) noexcept nogil
# Decrypts a DATA_V2 packet (OVERHEAD bytes at least) in place, payload from byte OVERHEAD on. False: not authentic; the
# payload bytes are garbage then, and must not be used. Leaves the replay window alone.
cdef bint open_packet(KeyState* key, Span datagram) noexcept nogil

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
