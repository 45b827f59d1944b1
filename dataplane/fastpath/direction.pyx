"""One direction of a data key: makes a context of libcrypto, gives it a key, and frees it.

Knows how libcrypto calls the ciphers. Must not know layouts, nonces or packet-ids. What is called of libcrypto,
provider-cipher(7) and OSSL_PARAM(3) describe.
"""

from libc.stdint cimport uint8_t

from dataplane.fastpath.libcrypto cimport OSSL_PARAM, cipher_calls

from dataplane.vocabulary import Cipher

cdef extern from "<openssl/core_names.h>" nogil:
    const char* OSSL_CIPHER_PARAM_AEAD_TAG

cdef extern from "<openssl/params.h>" nogil:
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char* name, void* data, size_t size)
    OSSL_PARAM OSSL_PARAM_construct_end()


cdef int set_up(Direction* direction, cipher, size_t key_size) except -1:
    direction.tag[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, TAG_SIZE)
    direction.tag[1] = OSSL_PARAM_construct_end()
    direction.calls = cipher_calls(cipher_name(cipher, key_size))
    direction.context = direction.calls.newctx(direction.calls.provider_context)
    if direction.context == NULL:
        raise MemoryError
    return 0


cdef bint set_key(Direction* direction, const uint8_t* key, size_t key_size, bint is_encrypting) noexcept nogil:
    init = direction.calls.encrypt_init if is_encrypting else direction.calls.decrypt_init
    return init(direction.context, key, key_size, NULL, 0, NULL) == 1


cdef void tear_down(Direction* direction) noexcept nogil:
    if direction.context != NULL:
        direction.calls.freectx(direction.context)
        direction.context = NULL


cdef bytes cipher_name(cipher, size_t key_size):
    """As libcrypto calls it."""
    if cipher is Cipher.CHACHA20_POLY1305:
        return b"ChaCha20-Poly1305"
    return b"AES-%d-GCM" % (key_size * 8)
