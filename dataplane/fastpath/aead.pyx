"""A data key on libcrypto: seals and opens DATA_V2 packets in place, and counts the packet-ids of both directions.

Knows the AEAD ciphers, the nonce and its uniqueness: a packet-id is used up before it is used, and after 0xFFFFFFFF the
key seals no more. Must not know peers, slots or what a payload means. Layout: dataplane/datachannel/wire.py. Works with
libcrypto 3.0 and later, whose manual pages EVP_EncryptInit(3) and OSSL_PARAM(3) say what is called here.
"""

from libc.limits cimport INT_MAX
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from dataplane.fastpath.replay_window cimport ReplayWindow
from dataplane.fastpath.span cimport Span, behind, checked, part, put32, span_of

from dataplane.datachannel.wire import KEY_ID_MAX, first_word
from dataplane.vocabulary import Cipher

cdef extern from "<openssl/core_names.h>" nogil:
    const char* OSSL_CIPHER_PARAM_AEAD_TAG

cdef extern from "<openssl/crypto.h>" nogil:
    void OPENSSL_cleanse(void* bytes, size_t size)

cdef extern from "<openssl/params.h>" nogil:
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char* name, void* data, size_t size)
    OSSL_PARAM OSSL_PARAM_construct_end()

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_CIPHER
    const EVP_CIPHER* EVP_aes_128_gcm()
    const EVP_CIPHER* EVP_aes_192_gcm()
    const EVP_CIPHER* EVP_aes_256_gcm()
    const EVP_CIPHER* EVP_chacha20_poly1305()
    EVP_CIPHER_CTX* EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX* context)
    int EVP_CIPHER_CTX_reset(EVP_CIPHER_CTX* context)
    int EVP_CIPHER_CTX_get_params(EVP_CIPHER_CTX* context, OSSL_PARAM* params)
    int EVP_CIPHER_CTX_set_params(EVP_CIPHER_CTX* context, const OSSL_PARAM* params)
    int EVP_CipherInit_ex2(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, const uint8_t* key, const uint8_t* nonce,
                           int encrypt, const OSSL_PARAM* params)
    int EVP_CipherUpdate(EVP_CIPHER_CTX* context, uint8_t* to, int* written, const uint8_t* source, int size)
    int EVP_CipherFinal_ex(EVP_CIPHER_CTX* context, uint8_t* to, int* written)

cdef enum:
    ENCRYPT = 1
    DECRYPT = 0
    AS_BEFORE = -1
    PACKET_ID_SIZE = 4
    NONCE_TAIL_SIZE = 8
    TAG_SIZE = 16

cdef uint32_t PACKET_ID_MAX = 0xFFFFFFFF


cdef bint seal(KeyState* key, uint32_t peer_id, Span datagram) noexcept nogil:
    cdef Direction* direction = &key.encrypt
    if key.sent == PACKET_ID_MAX:
        return False
    key.sent += 1
    put32(datagram, 0, key.first_word | peer_id)
    put32(datagram, 4, key.sent)
    if begin(direction, datagram) and run(direction, datagram) and get_tag(direction):
        return True
    # What stands there may be plaintext still. A key that libcrypto refuses is used up, so that a new one is asked for.
    key.sent = PACKET_ID_MAX
    return False


cdef bint open_packet(KeyState* key, Span datagram) noexcept nogil:
    cdef Direction* direction = &key.decrypt
    return begin(direction, datagram) and set_tag(direction) and run(direction, datagram)


cdef inline bint begin(Direction* direction, Span datagram) noexcept nogil:
    """Renews the nonce, and notes where the tag stands."""
    memcpy(direction.nonce, checked(datagram, 4, PACKET_ID_SIZE), PACKET_ID_SIZE)
    direction.tag[0].data = checked(datagram, HEAD_SIZE, TAG_SIZE)
    return EVP_CipherInit_ex2(direction.context, NULL, NULL, direction.nonce, AS_BEFORE, NULL) == 1


# By parameters that were made once: EVP_CIPHER_CTX_ctrl() makes them anew and looks more of them up, which took 6 %
# (AES-256-GCM) to 13 % (ChaCha20-Poly1305) of a packet of 1,400 bytes with libcrypto 3.0.
cdef inline bint set_tag(Direction* direction) noexcept nogil:
    return EVP_CIPHER_CTX_set_params(direction.context, direction.tag) == 1


cdef inline bint get_tag(Direction* direction) noexcept nogil:
    return EVP_CIPHER_CTX_get_params(direction.context, direction.tag) == 1


cdef inline bint run(Direction* direction, Span datagram) noexcept nogil:
    """Encrypts or decrypts the payload in place; when decrypting, False if the tag is wrong."""
    cdef EVP_CIPHER_CTX* context = direction.context
    cdef uint8_t* head = checked(datagram, 0, HEAD_SIZE)
    cdef Span payload = behind(datagram, OVERHEAD)
    cdef int written
    return (
        payload.size <= INT_MAX
        and EVP_CipherUpdate(context, NULL, &written, head, HEAD_SIZE) == 1
        and EVP_CipherUpdate(context, payload.at, &written, payload.at, <int>payload.size) == 1
        and EVP_CipherFinal_ex(context, payload.at, &written) == 1
    )


cdef class DataKey:
    """One key of a peer, with an AEAD, a nonce tail and packet-ids for each direction.

    DataKey(key_id, cipher, encrypt_dir, decrypt_dir): 0..7, a Cipher and two KeyDirections. Raises ValueError for a
    key_id outside that or material of a wrong length, RuntimeError if libcrypto has no such cipher. Fresh: sealing
    begins with packet-id 1 and the replay window is empty.
    """

    def __cinit__(self, key_id, cipher, encrypt_dir, decrypt_dir):
        if not 0 <= key_id <= KEY_ID_MAX:
            raise ValueError(f"key_id {key_id} is not in 0..{KEY_ID_MAX}")
        self.cipher = cipher
        self.state.key_id = key_id
        self.state.first_word = first_word(key_id, peer_id=0)
        set_up(&self.state.encrypt, cipher, encrypt_dir, ENCRYPT)
        set_up(&self.state.decrypt, cipher, decrypt_dir, DECRYPT)

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.state.encrypt.context)
        EVP_CIPHER_CTX_free(self.state.decrypt.context)
        OPENSSL_cleanse(&self.state, sizeof(KeyState))

    def __repr__(self):
        return f"DataKey(key_id={self.key_id}, cipher={self.cipher.name}, sent={self.sent})"

    @property
    def key_id(self):
        """Which of the peer's keys it is, 0..7."""
        return self.state.key_id

    @property
    def sent(self):
        """Packet-ids used for sealing so far, which is also the last one used."""
        return self.state.sent

    @sent.setter
    def sent(self, uint32_t packet_id):
        self.state.sent = packet_id

    @property
    def replay_window(self):
        """The packet-ids received with this key."""
        cdef ReplayWindow window = ReplayWindow()
        window.state = &self.state.window
        window.owner = self
        return window

    def seal(self, uint32_t peer_id, payload):
        """The DATA_V2 packet to peer_id (0..0xFFFFFF) with this payload; None when no packet-id is left."""
        datagram = bytearray(OVERHEAD) + payload
        return bytes(datagram) if seal(&self.state, peer_id, bytes_of(datagram)) else None

    def open(self, datagram):
        """The payload of a DATA_V2 packet of at least 24 bytes; None if it is not authentic.

        Leaves the replay window alone: that is the next question about an authentic packet.
        """
        opened = bytearray(datagram)
        if len(opened) < OVERHEAD or not open_packet(&self.state, bytes_of(opened)):
            return None
        return bytes(opened[OVERHEAD:])


cdef int set_up(Direction* direction, cipher, material, int encrypt) except -1:
    """Readies one direction. The cipher key is copied to libcrypto's context only, which cleanses it in the end."""
    cdef bytes cipher_key = material.cipher_key
    cdef bytes nonce_tail = material.nonce_tail
    if len(cipher_key) not in cipher.key_lengths:
        raise ValueError(f"{cipher.name} has no key of {len(cipher_key)} bytes")
    if len(nonce_tail) != NONCE_TAIL_SIZE:
        raise ValueError(f"a nonce tail of {len(nonce_tail)} bytes instead of {NONCE_TAIL_SIZE}")
    memcpy(&direction.nonce[PACKET_ID_SIZE], <char*>nonce_tail, NONCE_TAIL_SIZE)
    direction.tag[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, TAG_SIZE)
    direction.tag[1] = OSSL_PARAM_construct_end()
    direction.context = EVP_CIPHER_CTX_new()
    if direction.context == NULL:
        raise MemoryError
    if EVP_CipherInit_ex2(
        direction.context, evp_cipher(cipher, len(cipher_key)), <uint8_t*><char*>cipher_key, NULL, encrypt, NULL
    ) != 1:
        raise RuntimeError(f"libcrypto has no {cipher.name}")
    return 0


cdef const EVP_CIPHER* evp_cipher(cipher, size_t key_size):
    if cipher is Cipher.CHACHA20_POLY1305:
        return EVP_chacha20_poly1305()
    if key_size == 16:
        return EVP_aes_128_gcm()
    if key_size == 24:
        return EVP_aes_192_gcm()
    return EVP_aes_256_gcm()


cdef Span bytes_of(bytearray buffer):
    return span_of(<uint8_t*><char*>buffer, len(buffer))


def seal_many(DataKey key not None, uint32_t peer_id, bytearray datagrams not None, size_t size):
    """For tests and benchmarks: seals the datagrams of `size` bytes (24 at least) that fill a buffer; how many."""
    cdef Span buffer = bytes_of(datagrams)
    cdef size_t done = 0
    with nogil:
        while (done + 1) * size <= buffer.size and seal(&key.state, peer_id, part(buffer, done * size, size)):
            done += 1
    return done


def open_many(DataKey key not None, bytearray datagrams not None, size_t size):
    """For tests and benchmarks: opens the datagrams of `size` bytes (24 at least) that fill a buffer; how many."""
    cdef Span buffer = bytes_of(datagrams)
    cdef size_t done = 0
    with nogil:
        while (done + 1) * size <= buffer.size and open_packet(&key.state, part(buffer, done * size, size)):
            done += 1
    return done


def lose_cipher(DataKey key not None):
    """For tests: makes libcrypto refuse whatever this key is to do."""
    EVP_CIPHER_CTX_reset(key.state.encrypt.context)
    EVP_CIPHER_CTX_reset(key.state.decrypt.context)
