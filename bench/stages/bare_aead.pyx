"""The bare AEAD: what sealing and opening cost when nothing but libcrypto is called, the cheapest way known.

Knows libcrypto. Must not know the data plane, of which it is no part: the stage benchmarks compile it to have something
to compare with. A batch is datagrams of one size that fill a buffer: 8 bytes of which the last 4 begin the nonce, tag,
payload.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef extern from "<openssl/core_names.h>" nogil:
    const char* OSSL_CIPHER_PARAM_AEAD_TAG

cdef extern from "<openssl/params.h>" nogil:
    ctypedef struct OSSL_PARAM:
        void* data
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char* name, void* data, size_t size)
    OSSL_PARAM OSSL_PARAM_construct_end()

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_CIPHER
    ctypedef struct EVP_CIPHER_CTX
    const EVP_CIPHER* EVP_aes_256_gcm()
    const EVP_CIPHER* EVP_chacha20_poly1305()
    EVP_CIPHER_CTX* EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX* context)
    int EVP_CIPHER_CTX_get_params(EVP_CIPHER_CTX* context, OSSL_PARAM* params)
    int EVP_CIPHER_CTX_set_params(EVP_CIPHER_CTX* context, const OSSL_PARAM* params)
    int EVP_EncryptInit_ex2(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, const uint8_t* key, const uint8_t* nonce,
                            const OSSL_PARAM* params)
    int EVP_EncryptUpdate(EVP_CIPHER_CTX* context, uint8_t* to, int* written, const uint8_t* source, int size)
    int EVP_EncryptFinal_ex(EVP_CIPHER_CTX* context, uint8_t* to, int* written)
    int EVP_DecryptInit_ex2(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, const uint8_t* key, const uint8_t* nonce,
                            const OSSL_PARAM* params)
    int EVP_DecryptUpdate(EVP_CIPHER_CTX* context, uint8_t* to, int* written, const uint8_t* source, int size)
    int EVP_DecryptFinal_ex(EVP_CIPHER_CTX* context, uint8_t* to, int* written)


cdef class BareAead:
    """A key of 32 bytes with the 8 bytes that end its nonces; ChaCha20-Poly1305 or AES-256-GCM."""

    cdef EVP_CIPHER_CTX* encrypt
    cdef EVP_CIPHER_CTX* decrypt
    cdef uint8_t nonce[12]
    cdef OSSL_PARAM tag[2]

    def __cinit__(self, bint chacha20, bytes key not None, bytes nonce_tail not None):
        cdef const EVP_CIPHER* cipher = EVP_chacha20_poly1305() if chacha20 else EVP_aes_256_gcm()
        if len(key) != 32 or len(nonce_tail) != 8:
            raise ValueError("a key of 32 bytes and a nonce tail of 8")
        memcpy(&self.nonce[4], <char*>nonce_tail, 8)
        self.tag[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, 16)
        self.tag[1] = OSSL_PARAM_construct_end()
        self.encrypt = EVP_CIPHER_CTX_new()
        self.decrypt = EVP_CIPHER_CTX_new()
        if self.encrypt == NULL or self.decrypt == NULL:
            raise MemoryError
        EVP_EncryptInit_ex2(self.encrypt, cipher, <uint8_t*><char*>key, NULL, NULL)
        EVP_DecryptInit_ex2(self.decrypt, cipher, <uint8_t*><char*>key, NULL, NULL)

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.encrypt)
        EVP_CIPHER_CTX_free(self.decrypt)

    def seal_many(self, bytearray datagrams not None, size_t size):
        """Seals the datagrams of `size` bytes (24 at least) that fill a buffer."""
        cdef uint8_t* at = <uint8_t*><char*>datagrams
        cdef uint8_t* end = at + len(datagrams) // size * size
        cdef int payload = <int>size - 24
        cdef int written
        with nogil:
            while at < end:
                memcpy(self.nonce, at + 4, 4)
                self.tag[0].data = at + 8
                EVP_EncryptInit_ex2(self.encrypt, NULL, NULL, self.nonce, NULL)
                EVP_EncryptUpdate(self.encrypt, NULL, &written, at, 8)
                EVP_EncryptUpdate(self.encrypt, at + 24, &written, at + 24, payload)
                EVP_EncryptFinal_ex(self.encrypt, at + 24, &written)
                EVP_CIPHER_CTX_get_params(self.encrypt, self.tag)
                at += size

    def open_many(self, bytearray datagrams not None, size_t size):
        """Opens the datagrams of `size` bytes (24 at least) that fill a buffer; how many are authentic."""
        cdef uint8_t* at = <uint8_t*><char*>datagrams
        cdef uint8_t* end = at + len(datagrams) // size * size
        cdef int payload = <int>size - 24
        cdef int written
        cdef int authentic = 0
        with nogil:
            while at < end:
                memcpy(self.nonce, at + 4, 4)
                self.tag[0].data = at + 8
                EVP_DecryptInit_ex2(self.decrypt, NULL, NULL, self.nonce, NULL)
                EVP_CIPHER_CTX_set_params(self.decrypt, self.tag)
                EVP_DecryptUpdate(self.decrypt, NULL, &written, at, 8)
                EVP_DecryptUpdate(self.decrypt, at + 24, &written, at + 24, payload)
                authentic += EVP_DecryptFinal_ex(self.decrypt, at + 24, &written) == 1
                at += size
        return authentic
