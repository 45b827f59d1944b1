"""Finds the functions of libcrypto's ciphers.

Knows providers (provider(7)) and their dispatch tables (<openssl/core_dispatch.h>). Must not know keys, nor what is
encrypted. EVP_CIPHER_fetch(3) decides which provider a cipher is from, so the machine's configuration (FIPS) holds.
"""

from libc.stdlib cimport calloc
from libc.string cimport strcspn, strlen
from posix.strings cimport strncasecmp

cdef extern from "<openssl/core.h>" nogil:
    ctypedef struct OSSL_DISPATCH:
        int function_id
        void (*function)() noexcept nogil

    ctypedef struct OSSL_ALGORITHM:
        const char* algorithm_names
        const OSSL_DISPATCH* implementation

cdef extern from "<openssl/core_dispatch.h>" nogil:
    int OSSL_OP_CIPHER
    int OSSL_FUNC_CIPHER_NEWCTX
    int OSSL_FUNC_CIPHER_FREECTX
    int OSSL_FUNC_CIPHER_ENCRYPT_INIT
    int OSSL_FUNC_CIPHER_DECRYPT_INIT
    int OSSL_FUNC_CIPHER_UPDATE
    int OSSL_FUNC_CIPHER_FINAL
    int OSSL_FUNC_CIPHER_GET_CTX_PARAMS
    int OSSL_FUNC_CIPHER_SET_CTX_PARAMS

cdef extern from "<openssl/provider.h>" nogil:
    ctypedef struct OSSL_PROVIDER
    const OSSL_ALGORITHM* OSSL_PROVIDER_query_operation(const OSSL_PROVIDER* provider, int operation, int* no_cache)
    void OSSL_PROVIDER_unquery_operation(
        const OSSL_PROVIDER* provider, int operation, const OSSL_ALGORITHM* algorithms
    )
    void* OSSL_PROVIDER_get0_provider_ctx(const OSSL_PROVIDER* provider)

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_CIPHER
    EVP_CIPHER* EVP_CIPHER_fetch(void* library_context, const char* algorithm, const char* properties)
    const OSSL_PROVIDER* EVP_CIPHER_get0_provider(const EVP_CIPHER* cipher)

cdef dict found = {}  # addresses of CipherCalls, by name


cdef const CipherCalls* cipher_calls(bytes name) except NULL:
    if name not in found:
        found[name] = <size_t>find(name)
    return <const CipherCalls*><size_t>found[name]


cdef CipherCalls* find(bytes name) except NULL:
    # Never freed: it keeps the provider, and so the functions.
    cdef EVP_CIPHER* cipher = EVP_CIPHER_fetch(NULL, name, NULL)
    if cipher == NULL:
        raise RuntimeError(f"libcrypto has no {name.decode()}")
    cdef CipherCalls* calls = <CipherCalls*>calloc(1, sizeof(CipherCalls))
    if calls == NULL:
        raise MemoryError
    cdef const OSSL_PROVIDER* provider = EVP_CIPHER_get0_provider(cipher)
    cdef int no_cache
    cdef const OSSL_ALGORITHM* algorithms = OSSL_PROVIDER_query_operation(provider, OSSL_OP_CIPHER, &no_cache)
    cdef const OSSL_ALGORITHM* algorithm = algorithms
    while algorithm != NULL and algorithm.algorithm_names != NULL and not is_called(algorithm, name):
        algorithm += 1
    if algorithm != NULL and algorithm.algorithm_names != NULL:
        read_dispatch(calls, algorithm.implementation)
    OSSL_PROVIDER_unquery_operation(provider, OSSL_OP_CIPHER, algorithms)
    calls.provider_context = OSSL_PROVIDER_get0_provider_ctx(provider)
    if not is_whole(calls):
        raise RuntimeError(f"libcrypto's provider of {name.decode()} lacks functions of an AEAD cipher")
    return calls


cdef bint is_called(const OSSL_ALGORITHM* algorithm, const char* name) noexcept:
    """Whether the first of its names, which colons part, is this one."""
    cdef size_t size = strcspn(algorithm.algorithm_names, ":")
    return size == strlen(name) and strncasecmp(algorithm.algorithm_names, name, size) == 0


cdef void read_dispatch(CipherCalls* calls, const OSSL_DISPATCH* entry) noexcept:
    while entry.function_id != 0:
        if entry.function_id == OSSL_FUNC_CIPHER_NEWCTX:
            calls.newctx = <newctx_fn>entry.function
        elif entry.function_id == OSSL_FUNC_CIPHER_FREECTX:
            calls.freectx = <freectx_fn>entry.function
        elif entry.function_id == OSSL_FUNC_CIPHER_ENCRYPT_INIT:
            calls.encrypt_init = <init_fn>entry.function
        elif entry.function_id == OSSL_FUNC_CIPHER_DECRYPT_INIT:
            calls.decrypt_init = <init_fn>entry.function
        elif entry.function_id == OSSL_FUNC_CIPHER_UPDATE:
            calls.update = <update_fn>entry.function
        elif entry.function_id == OSSL_FUNC_CIPHER_FINAL:
            calls.final = <final_fn>entry.function
        elif entry.function_id == OSSL_FUNC_CIPHER_GET_CTX_PARAMS:
            calls.get_ctx_params = <get_ctx_params_fn>entry.function
        elif entry.function_id == OSSL_FUNC_CIPHER_SET_CTX_PARAMS:
            calls.set_ctx_params = <set_ctx_params_fn>entry.function
        entry += 1


cdef bint is_whole(const CipherCalls* calls) noexcept:
    return (
        calls.newctx != NULL
        and calls.freectx != NULL
        and calls.encrypt_init != NULL
        and calls.decrypt_init != NULL
        and calls.update != NULL
        and calls.final != NULL
        and calls.get_ctx_params != NULL
        and calls.set_ctx_params != NULL
    )
