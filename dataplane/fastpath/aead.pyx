"""A data key on libcrypto: seals and opens DATA_V2 packets in place, and counts the packet-ids of both directions.

Knows the AEAD ciphers, the nonce and its uniqueness: a packet-id is used up before it is used, and after 0xFFFFFFFF, or
where its cipher may be used no more (dataplane/datachannel/key_limits.py), the key seals no more. Must not know peers, slots or what a payload means. Layout: dataplane/datachannel/wire.py. What is
called of libcrypto, provider-cipher(7) and OSSL_PARAM(3) describe.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from dataplane.fastpath.libcrypto cimport OSSL_PARAM, CipherCalls, cipher_calls
from dataplane.fastpath.replay_window cimport ACCEPTED, ReplayWindow
from dataplane.fastpath.span cimport Span, behind, checked, part, put32, span_of

from dataplane.datachannel import key_limits
from dataplane.datachannel.wire import KEY_ID_MAX, first_word
from dataplane.vocabulary import Cipher, DropReason, KeyLimit

cdef extern from "<openssl/core_names.h>" nogil:
    const char* OSSL_CIPHER_PARAM_AEAD_TAG

cdef extern from "<openssl/crypto.h>" nogil:
    void OPENSSL_cleanse(void* bytes, size_t size)

cdef extern from "<openssl/params.h>" nogil:
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char* name, void* data, size_t size)
    OSSL_PARAM OSSL_PARAM_construct_end()

cdef enum:
    PACKET_ID_SIZE = 4
    NONCE_TAIL_SIZE = 8
    NONCE_SIZE = PACKET_ID_SIZE + NONCE_TAIL_SIZE
    TAG_SIZE = 16
    BLOCK_SIZE = 16

cdef uint32_t PACKET_ID_MAX = 0xFFFFFFFF
cdef uint64_t FORGERIES_MAX = key_limits.FORGERIES_MAX

cdef int PACKET_ID_EXHAUSTED = DropReason.TX_PACKET_ID_EXHAUSTED
cdef int USAGE_LIMIT = DropReason.TX_USAGE_LIMIT
cdef int FORGERY_LIMIT = DropReason.RX_FORGERY_LIMIT


cdef bint seal(KeyState* key, uint32_t peer_id, Span datagram) noexcept nogil:
    cdef Direction* direction = &key.encrypt
    cdef uint64_t usage = key.usage + 1 + (datagram.size - OVERHEAD + BLOCK_SIZE - 1) // BLOCK_SIZE
    if key.sent == PACKET_ID_MAX or usage > key.usage_max:
        return False
    key.sent += 1
    key.usage = usage
    put32(datagram, 0, key.first_word | peer_id)
    put32(datagram, 4, key.sent)
    if (
        direction.calls.encrypt_init(direction.context, NULL, 0, renewed(direction, datagram), NONCE_SIZE, NULL) == 1
        and run(direction, datagram)
        and direction.calls.get_ctx_params(direction.context, direction.tag) == 1
    ):
        return True
    # What stands there may be plaintext still. A key that libcrypto refuses is used up, so that a new one is asked for.
    key.sent = PACKET_ID_MAX
    return False


cdef int end_of(const KeyState* key) noexcept nogil:
    return PACKET_ID_EXHAUSTED if key.sent == PACKET_ID_MAX else USAGE_LIMIT


cdef int refusal_of(const KeyState* key, Span datagram) noexcept nogil:
    return FORGERY_LIMIT if key.forged > FORGERIES_MAX else ACCEPTED


cdef bint open_packet(KeyState* key, Span datagram) noexcept nogil:
    cdef Direction* direction = &key.decrypt
    if (
        direction.calls.decrypt_init(direction.context, NULL, 0, renewed(direction, datagram), NONCE_SIZE, NULL) == 1
        and direction.calls.set_ctx_params(direction.context, direction.tag) == 1
        and run(direction, datagram)
    ):
        return True
    key.forged += 1
    return False


cdef inline uint8_t* renewed(Direction* direction, Span datagram) noexcept nogil:
    """The nonce of this datagram; notes where its tag stands, too."""
    memcpy(direction.nonce, checked(datagram, 4, PACKET_ID_SIZE), PACKET_ID_SIZE)
    direction.tag[0].data = checked(datagram, HEAD_SIZE, TAG_SIZE)
    return direction.nonce


cdef inline bint run(Direction* direction, Span datagram) noexcept nogil:
    """Encrypts or decrypts the payload in place; when decrypting, False if the tag is wrong."""
    cdef const CipherCalls* calls = direction.calls
    cdef uint8_t* head = checked(datagram, 0, HEAD_SIZE)
    cdef Span payload = behind(datagram, OVERHEAD)
    cdef size_t written
    return (
        calls.update(direction.context, NULL, &written, HEAD_SIZE, head, HEAD_SIZE) == 1
        and calls.update(direction.context, payload.at, &written, payload.size, payload.at, payload.size) == 1
        and calls.final(direction.context, payload.at, &written, payload.size) == 1
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
        self.state.usage_max = key_limits.USAGE_MAX[cipher]
        self.state.packet_id_warning = key_limits.PACKET_ID_WARNING
        self.state.usage_warning = key_limits.USAGE_WARNING[cipher]
        self.state.forgery_warning = key_limits.FORGERIES_WARNING
        set_up(&self.state.encrypt, cipher, encrypt_dir, is_encrypting=True)
        set_up(&self.state.decrypt, cipher, decrypt_dir, is_encrypting=False)

    def __dealloc__(self):
        tear_down(&self.state.encrypt)
        tear_down(&self.state.decrypt)
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
    def usage(self):
        """Packets and blocks sealed so far, together."""
        return self.state.usage

    @usage.setter
    def usage(self, uint64_t usage):
        self.state.usage = usage

    @property
    def forged(self):
        """Packets that did not open so far."""
        return self.state.forged

    @forged.setter
    def forged(self, uint64_t packets):
        self.state.forged = packets

    @property
    def end(self):
        """Why seal() gave None."""
        return DropReason(end_of(&self.state))

    def take_warning(self):
        """A limit that the key has come near of; each is told once."""
        limit = take_warning(&self.state)
        return KeyLimit(limit) if limit else None

    @property
    def replay_window(self):
        """The packet-ids received with this key."""
        cdef ReplayWindow window = ReplayWindow()
        window.state = &self.state.window
        window.owner = self
        return window

    def seal(self, uint32_t peer_id, payload):
        """The DATA_V2 packet to peer_id (0..0xFFFFFF) with this payload; None when the key is used up."""
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


cdef int set_up(Direction* direction, cipher, material, bint is_encrypting) except -1:
    """Readies one direction. The cipher key is copied to libcrypto's context only, which cleanses it in the end."""
    cdef bytes cipher_key = material.cipher_key
    cdef bytes nonce_tail = material.nonce_tail
    cdef const uint8_t* key = <const uint8_t*><const char*>cipher_key
    cdef size_t key_size = len(cipher_key)
    if key_size not in cipher.key_lengths:
        raise ValueError(f"{cipher.name} has no key of {key_size} bytes")
    if len(nonce_tail) != NONCE_TAIL_SIZE:
        raise ValueError(f"a nonce tail of {len(nonce_tail)} bytes instead of {NONCE_TAIL_SIZE}")
    memcpy(&direction.nonce[PACKET_ID_SIZE], <char*>nonce_tail, NONCE_TAIL_SIZE)
    direction.tag[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, TAG_SIZE)
    direction.tag[1] = OSSL_PARAM_construct_end()
    direction.calls = cipher_calls(cipher_name(cipher, key_size))
    direction.context = direction.calls.newctx(direction.calls.provider_context)
    if direction.context == NULL:
        raise MemoryError
    init = direction.calls.encrypt_init if is_encrypting else direction.calls.decrypt_init
    if init(direction.context, key, key_size, NULL, 0, NULL) != 1:
        raise RuntimeError(f"libcrypto refuses a key of {cipher.name}")
    return 0


cdef void tear_down(Direction* direction) noexcept:
    if direction.context != NULL:
        direction.calls.freectx(direction.context)
        direction.context = NULL


cdef bytes cipher_name(cipher, size_t key_size):
    """As libcrypto calls it."""
    if cipher is Cipher.CHACHA20_POLY1305:
        return b"ChaCha20-Poly1305"
    return b"AES-%d-GCM" % (key_size * 8)


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


cdef CipherCalls refusing


cdef int refuse(
    void* context, const uint8_t* key, size_t key_size, const uint8_t* nonce, size_t nonce_size, const OSSL_PARAM* more
) noexcept nogil:
    return 0


def lose_cipher(DataKey key not None):
    """For tests: makes libcrypto refuse whatever this key is to do."""
    global refusing
    refusing = key.state.encrypt.calls[0]
    refusing.encrypt_init = refusing.decrypt_init = refuse
    key.state.encrypt.calls = key.state.decrypt.calls = &refusing
