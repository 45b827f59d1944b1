# A data key: seals and opens DATA_V2 packets in place; twin of dataplane/datachannel/aead.py. One context a direction.

from libc.stdint cimport uint8_t, uint32_t

from dataplane.fastpath.libcrypto cimport OSSL_PARAM, CipherCalls
from dataplane.fastpath.replay_window cimport WindowState
from dataplane.fastpath.span cimport Span

cdef enum:
    HEAD_SIZE = 8
    OVERHEAD = 24

cdef struct Direction:
    const CipherCalls* calls
    void* context  # of libcrypto; key set up once, a packet renews the nonce only
    uint8_t nonce[12]  # packet_id, nonce tail
    OSSL_PARAM tag[2]  # where the tag stands, as libcrypto wants to be told, and the end of the list

cdef struct KeyState:
    uint32_t sent
    uint32_t first_word
    uint8_t key_id
    Direction encrypt
    Direction decrypt
    WindowState window

# Takes the next packet-id and makes a DATA_V2 packet to peer_id of the payload that stands from byte OVERHEAD of
# `datagram` on. False: no packet-id is left, and the bytes must not be sent; should libcrypto ever refuse, none is left
# from then on.
cdef bint seal(KeyState* key, uint32_t peer_id, Span datagram) noexcept nogil
# Decrypts a DATA_V2 packet (OVERHEAD bytes at least) in place, payload from byte OVERHEAD on. False: not authentic; the
# payload bytes are garbage then, and must not be used. Leaves the replay window alone.
cdef bint open_packet(KeyState* key, Span datagram) noexcept nogil

cdef class DataKey:
    cdef KeyState state
    cdef readonly object cipher
