# One direction of a data key: a context of libcrypto with the cipher key, and what a packet renews of it.

from libc.stdint cimport uint8_t

from dataplane.fastpath.libcrypto cimport OSSL_PARAM, CipherCalls
from dataplane.fastpath.span cimport Span

cdef enum:
    NONCE_SIZE = 12
    TAG_SIZE = 16
    LONGEST_KEY = 32

cdef struct Direction:
    const CipherCalls* calls
    void* context  # of libcrypto; key set up once, a packet renews the nonce only
    uint8_t nonce[NONCE_SIZE]
    OSSL_PARAM tag[2]  # where the tag stands, as libcrypto wants to be told, and the end of the list

# Makes the context, without a key. cipher: a vocabulary.Cipher. Raises RuntimeError if libcrypto has no such cipher
# with keys of this size, MemoryError.
cdef int set_up(Direction* direction, cipher, size_t key_size) except -1
# Gives it a key, which is copied to the context only. False: libcrypto refuses.
cdef bint set_key(Direction* direction, const uint8_t* key, size_t key_size, bint is_encrypting) noexcept nogil
# Frees the context, which cleanses the key. It need not have been set up.
cdef void tear_down(Direction* direction) noexcept nogil


# With the nonce that stands there: encrypts the payload in place and puts the tag. False: libcrypto refuses, and what
# stands there may be plaintext still.
cdef inline bint encrypt(Direction* direction, Span head, Span payload, uint8_t* tag) noexcept nogil:
    direction.tag[0].data = tag
    return (
        direction.calls.encrypt_init(direction.context, NULL, 0, direction.nonce, NONCE_SIZE, NULL) == 1
        and run(direction, head, payload)
        and direction.calls.get_ctx_params(direction.context, direction.tag) == 1
    )


# With the nonce that stands there: decrypts the payload in place. False: not authentic, and the payload is garbage.
cdef inline bint decrypt(Direction* direction, Span head, Span payload, uint8_t* tag) noexcept nogil:
    direction.tag[0].data = tag
    return (
        direction.calls.decrypt_init(direction.context, NULL, 0, direction.nonce, NONCE_SIZE, NULL) == 1
        and direction.calls.set_ctx_params(direction.context, direction.tag) == 1
        and run(direction, head, payload)
    )


cdef inline bint run(Direction* direction, Span head, Span payload) noexcept nogil:
    cdef const CipherCalls* calls = direction.calls
    cdef size_t written
    return (
        calls.update(direction.context, NULL, &written, head.size, head.at, head.size) == 1
        and calls.update(direction.context, payload.at, &written, payload.size, payload.at, payload.size) == 1
        and calls.final(direction.context, payload.at, &written, payload.size) == 1
    )
