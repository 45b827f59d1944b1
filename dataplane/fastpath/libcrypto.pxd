# The AEAD ciphers of libcrypto (3.0 and later), called as its EVP layer calls them: provider-cipher(7).
#
# EVP_CipherInit_ex2() asks the cipher for the length of its nonce at each packet, by name; with libcrypto 3.0 that and
# the layer's own checks take a fifth of what sealing 1,400 bytes takes. What is below it is public and documented.

from libc.stdint cimport uint8_t

cdef extern from "<openssl/params.h>" nogil:
    ctypedef struct OSSL_PARAM:
        void* data

# OSSL_FUNC_cipher_..._fn of <openssl/core_dispatch.h>: 1 is success.
ctypedef void* (*newctx_fn)(void* provider_context) noexcept nogil
ctypedef void (*freectx_fn)(void* context) noexcept nogil
# Without a key, or without a nonce, those of before stay.
ctypedef int (*init_fn)(
    void* context, const uint8_t* key, size_t key_size, const uint8_t* nonce, size_t nonce_size, const OSSL_PARAM* more
) noexcept nogil
# Without `to`, the bytes are associated data.
ctypedef int (*update_fn)(
    void* context, uint8_t* to, size_t* written, size_t room, const uint8_t* source, size_t size
) noexcept nogil
ctypedef int (*final_fn)(void* context, uint8_t* to, size_t* written, size_t room) noexcept nogil
ctypedef int (*get_ctx_params_fn)(void* context, OSSL_PARAM* params) noexcept nogil
ctypedef int (*set_ctx_params_fn)(void* context, const OSSL_PARAM* params) noexcept nogil

cdef struct CipherCalls:
    void* provider_context
    newctx_fn newctx
    freectx_fn freectx
    init_fn encrypt_init
    init_fn decrypt_init
    update_fn update
    final_fn final
    get_ctx_params_fn get_ctx_params
    set_ctx_params_fn set_ctx_params

# The functions of a cipher, which stay for ever. Raises RuntimeError if libcrypto, as it is configured, has none.
cdef const CipherCalls* cipher_calls(bytes name) except NULL
