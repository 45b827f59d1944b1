"""Data keys with epochs: derives the keys, goes on to the next epoch, seals and opens packets in place.

Knows what dataplane/datachannel/epoch.py knows, which explains it. Must not know peers, slots or what a payload means.
Deriving is rare, but a packet can bring it about, so it needs no GIL. If libcrypto ever refuses to derive, the epochs
that could not be derived are not there: nothing is sealed or opened with a key that is none.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset

from dataplane.fastpath.direction cimport (
    NONCE_SIZE, TAG_SIZE, Direction, decrypt, encrypt, set_key, set_up, tear_down,
)
from dataplane.fastpath.key_state cimport EPOCH_SECRET_SIZE, FUTURE_EPOCHS, EpochState, FutureKey
from dataplane.fastpath.replay_window cimport ACCEPTED, WindowState, accept
from dataplane.fastpath.span cimport checked, get16, part, put32, put64

from dataplane.datachannel import key_limits, wire
from dataplane.vocabulary import COUNTER_BITS as _COUNTER_BITS
from dataplane.vocabulary import DropReason

cdef extern from "<openssl/crypto.h>" nogil:
    void OPENSSL_cleanse(void* bytes, size_t size)

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_MD
    const EVP_MD* EVP_sha256()

cdef extern from "<openssl/hmac.h>" nogil:
    uint8_t* HMAC(const EVP_MD* hash, const void* key, int key_size, const uint8_t* data, size_t size, uint8_t* mac,
                  unsigned int* mac_size)

cdef enum:
    MAC_SIZE = 32  # of SHA-256, and so the most that one step of HKDF-Expand gives
    PAYLOAD_AT = 24  # in the room to seal in
    XORED = 8  # bytes of the nonce that differ from packet to packet
    BLOCK_SIZE = 16

cdef uint64_t COUNTER_MAX = wire.COUNTER_MAX
cdef int COUNTER_BITS = _COUNTER_BITS
cdef uint16_t LAST_EPOCH = key_limits.LAST_EPOCH
cdef uint64_t FORGERIES_MAX = key_limits.FORGERIES_MAX
cdef uint64_t FORGERIES_WARNING = key_limits.FORGERIES_WARNING

cdef int TRUNCATED = DropReason.RX_TRUNCATED
cdef int EPOCH_REJECTED = DropReason.RX_EPOCH_REJECTED
cdef int FORGERY_LIMIT = DropReason.RX_FORGERY_LIMIT
cdef int PACKET_ID_ZERO = DropReason.RX_PACKET_ID_ZERO


# Setting up

cdef int begin_epochs(KeyState* key, cipher, encrypt_dir, decrypt_dir) except -1:
    cdef bytes send_secret = encrypt_dir.secret
    cdef bytes receive_secret = decrypt_dir.secret
    cdef size_t key_size = encrypt_dir.key_length
    cdef EpochState* epochs = <EpochState*>calloc(1, sizeof(EpochState))
    cdef FutureKey first
    cdef bint is_ready
    if epochs == NULL:
        raise MemoryError
    key.epochs = epochs
    key.packet_id_warning = <uint64_t>key_limits.EPOCH_WARNING << COUNTER_BITS
    key.usage_warning = key.forgery_warning = UINT64_MAX
    epochs.key_size = key_size
    epochs.sending = encrypt_dir.epoch
    epochs.receiving = decrypt_dir.epoch
    key.sent = <uint64_t>epochs.sending << COUNTER_BITS
    memcpy(epochs.send_secret, <char*>send_secret, EPOCH_SECRET_SIZE)
    memcpy(epochs.future_secret, <char*>receive_secret, EPOCH_SECRET_SIZE)
    set_up(&key.encrypt, cipher, key_size)
    set_up(&key.decrypt, cipher, key_size)
    set_up(&epochs.retiring_decrypt, cipher, key_size)
    set_up(&epochs.trial, cipher, key_size)
    is_ready = (
        use_send_secret(key)
        and derive(&first, epochs.future_secret, key_size)
        and set_key(&key.decrypt, first.key, key_size, False)
    )
    memcpy(epochs.receive_iv, first.iv, NONCE_SIZE)
    OPENSSL_cleanse(&first, sizeof(FutureKey))
    prepare_future(epochs)
    if not is_ready or epochs.future_count < FUTURE_EPOCHS:
        raise RuntimeError(f"libcrypto does not derive a key of {cipher.name}")
    return 0


cdef void end_epochs(KeyState* key) noexcept:
    if key.epochs != NULL:
        tear_down(&key.epochs.retiring_decrypt)
        tear_down(&key.epochs.trial)
        OPENSSL_cleanse(key.epochs, sizeof(EpochState))
        free(key.epochs)
        key.epochs = NULL


# Deriving

cdef bint expand(
    const uint8_t* secret, const char* label, uint8_t label_size, uint8_t* to, uint8_t size
) noexcept nogil:
    """HKDF-Expand with the info that epoch.py describes, in its one step: HMAC(secret, info || 1)."""
    cdef uint8_t info[64]
    cdef uint8_t mac[MAC_SIZE]
    cdef unsigned int mac_size
    cdef bint is_done
    info[0] = 0
    info[1] = size
    info[2] = 5 + label_size
    memcpy(&info[3], b"ovpn ", 5)
    memcpy(&info[8], label, label_size)
    info[8 + label_size] = 0
    info[9 + label_size] = 1
    is_done = HMAC(EVP_sha256(), secret, EPOCH_SECRET_SIZE, info, 10 + label_size, mac, &mac_size) != NULL
    if is_done:
        memcpy(to, mac, size)
    OPENSSL_cleanse(mac, MAC_SIZE)
    return is_done


cdef bint derive(FutureKey* key, const uint8_t* secret, size_t key_size) noexcept nogil:
    """The cipher key and the implicit IV of the epoch with this secret."""
    memset(key, 0, sizeof(FutureKey))
    return expand(secret, b"data_key", 8, key.key, key_size) and expand(secret, b"data_iv", 7, key.iv, NONCE_SIZE)


cdef bint move_on(uint8_t* secret) noexcept nogil:
    """Makes it the secret of the next epoch."""
    cdef uint8_t moved[EPOCH_SECRET_SIZE]
    if not expand(secret, b"datakey upd", 11, moved, EPOCH_SECRET_SIZE):
        return False
    memcpy(secret, moved, EPOCH_SECRET_SIZE)
    OPENSSL_cleanse(moved, EPOCH_SECRET_SIZE)
    return True


cdef void prepare_future(EpochState* epochs) noexcept nogil:
    while epochs.future_count < FUTURE_EPOCHS:
        if not move_on(epochs.future_secret):
            return
        if not derive(&epochs.future[epochs.future_count], epochs.future_secret, epochs.key_size):
            return
        epochs.future_count += 1


cdef bint use_send_secret(KeyState* key) noexcept nogil:
    cdef FutureKey derived
    cdef bint is_done = derive(&derived, key.epochs.send_secret, key.epochs.key_size) and set_key(
        &key.encrypt, derived.key, key.epochs.key_size, True
    )
    memcpy(key.epochs.send_iv, derived.iv, NONCE_SIZE)
    OPENSSL_cleanse(&derived, sizeof(FutureKey))
    return is_done


# Going on

cdef bint send_in(KeyState* key, uint16_t epoch) noexcept nogil:
    """False: libcrypto refuses. The counter is at its end then, for there is no key."""
    cdef EpochState* epochs = key.epochs
    cdef bint is_done = True
    while is_done and epochs.sending < epoch:
        is_done = move_on(epochs.send_secret)
        epochs.sending += 1
    if is_done and use_send_secret(key):
        key.sent = <uint64_t>epoch << COUNTER_BITS
        key.usage = 0
        return True
    epochs.sending = LAST_EPOCH
    key.sent = (<uint64_t>LAST_EPOCH << COUNTER_BITS) + COUNTER_MAX
    return False


cdef void receive_in(KeyState* key, uint16_t epoch) noexcept nogil:
    """Goes on to the epoch whose key is in `trial`, for a packet was opened with it."""
    cdef EpochState* epochs = key.epochs
    cdef uint16_t steps = epoch - epochs.receiving
    cdef FutureKey* current = &epochs.future[steps - 1]
    cdef Direction freed = epochs.retiring_decrypt
    epochs.retiring = epochs.receiving
    epochs.retiring_decrypt = key.decrypt
    epochs.retiring_window = key.window
    epochs.retiring_forged = key.forged
    memcpy(epochs.retiring_iv, epochs.receive_iv, NONCE_SIZE)

    epochs.receiving = epoch
    key.decrypt = epochs.trial
    key.forged = current.forged
    memset(&key.window, 0, sizeof(WindowState))
    memcpy(epochs.receive_iv, current.iv, NONCE_SIZE)

    epochs.trial = freed
    epochs.tried = 0
    epochs.future_count -= steps
    memmove(epochs.future, current + 1, epochs.future_count * sizeof(FutureKey))
    OPENSSL_cleanse(&epochs.future[epochs.future_count], (FUTURE_EPOCHS - epochs.future_count) * sizeof(FutureKey))
    prepare_future(epochs)
    # The key that retired before this one is nobody's any more: another takes its place in the context.
    if epochs.future_count > 0:
        set_key(&epochs.trial, epochs.future[0].key, epochs.key_size, False)
        epochs.tried = epoch + 1
    if epochs.sending < epoch:
        send_in(key, epoch)


# Packets

cdef size_t seal_in_epoch(KeyState* key, uint32_t peer_id, Span room) noexcept nogil:
    cdef EpochState* epochs = key.epochs
    cdef size_t size = room.size - PAYLOAD_AT - SPARE
    cdef uint64_t used = 1 + (size + BLOCK_SIZE - 1) // BLOCK_SIZE
    cdef bint is_over = key.sent & COUNTER_MAX == COUNTER_MAX or key.usage + used > key.usage_max
    cdef Span datagram = part(room, 0, EPOCH_OVERHEAD + size)
    if is_over or (key.forged >= FORGERIES_WARNING and epochs.sending == epochs.receiving):
        if epochs.sending < LAST_EPOCH:
            if not send_in(key, epochs.sending + 1):
                return 0
        elif is_over:
            return 0
    key.sent += 1
    key.usage += used
    put32(datagram, 0, key.first_word | peer_id)
    put64(datagram, 4, key.sent)
    memmove(checked(datagram, EPOCH_HEAD_SIZE, size), checked(room, PAYLOAD_AT, size), size)
    make_nonce(&key.encrypt, epochs.send_iv, datagram)
    if encrypt(
        &key.encrypt,
        part(datagram, 0, EPOCH_HEAD_SIZE),
        part(datagram, EPOCH_HEAD_SIZE, size),
        checked(datagram, EPOCH_HEAD_SIZE + size, TAG_SIZE),
    ):
        return datagram.size
    # A key that libcrypto refuses is used up, so that a new one is asked for.
    epochs.sending = LAST_EPOCH
    key.sent = (<uint64_t>LAST_EPOCH << COUNTER_BITS) + COUNTER_MAX
    return 0


cdef int epoch_refusal(const KeyState* key, Span datagram) noexcept nogil:
    cdef const EpochState* epochs = key.epochs
    cdef uint16_t epoch
    cdef uint64_t forged
    if datagram.size < EPOCH_OVERHEAD:
        return TRUNCATED
    epoch = get16(datagram, 4)
    if epoch == epochs.receiving:
        forged = key.forged
    elif epoch == 0:
        return EPOCH_REJECTED
    elif epoch == epochs.retiring:
        forged = epochs.retiring_forged
    elif is_future(epochs, epoch):
        forged = epochs.future[epoch - epochs.receiving - 1].forged
    else:
        return EPOCH_REJECTED
    return FORGERY_LIMIT if forged > FORGERIES_MAX else ACCEPTED


cdef inline bint is_future(const EpochState* epochs, uint16_t epoch) noexcept nogil:
    return epochs.receiving < epoch <= LAST_EPOCH and epoch - epochs.receiving <= epochs.future_count


cdef bint open_in_epoch(KeyState* key, Span datagram, Span* payload) noexcept nogil:
    cdef EpochState* epochs = key.epochs
    cdef uint16_t epoch = get16(datagram, 4)
    cdef FutureKey* future
    payload[0] = part(datagram, EPOCH_HEAD_SIZE, datagram.size - EPOCH_OVERHEAD)
    if epoch == epochs.receiving:
        return open_with(&key.decrypt, epochs.receive_iv, &key.forged, datagram, payload[0])
    if epoch == epochs.retiring:
        return open_with(
            &epochs.retiring_decrypt, epochs.retiring_iv, &epochs.retiring_forged, datagram, payload[0]
        )
    future = &epochs.future[epoch - epochs.receiving - 1]
    if epochs.tried != epoch:
        epochs.tried = epoch if set_key(&epochs.trial, future.key, epochs.key_size, False) else 0
    return open_with(&epochs.trial, future.iv, &future.forged, datagram, payload[0])


cdef inline bint open_with(
    Direction* direction, const uint8_t* iv, uint64_t* forged, Span datagram, Span payload
) noexcept nogil:
    make_nonce(direction, iv, datagram)
    if decrypt(
        direction,
        part(datagram, 0, EPOCH_HEAD_SIZE),
        payload,
        checked(datagram, datagram.size - TAG_SIZE, TAG_SIZE),
    ):
        return True
    forged[0] += 1
    return False


cdef inline void make_nonce(Direction* direction, const uint8_t* iv, Span datagram) noexcept nogil:
    cdef const uint8_t* packet_id = checked(datagram, 4, XORED)
    for index in range(XORED):
        direction.nonce[index] = iv[index] ^ packet_id[index]
    memcpy(&direction.nonce[XORED], iv + XORED, NONCE_SIZE - XORED)


cdef int accept_in_epoch(KeyState* key, uint64_t packet_id, uint64_t now_ns) noexcept nogil:
    cdef EpochState* epochs = key.epochs
    cdef uint16_t epoch = packet_id >> COUNTER_BITS
    if packet_id & COUNTER_MAX == 0:
        return PACKET_ID_ZERO
    if is_future(epochs, epoch):
        if epoch != epochs.tried:  # only what was opened comes here
            return EPOCH_REJECTED
        receive_in(key, epoch)
    if epoch == epochs.receiving:
        return accept(&key.window, packet_id, now_ns)
    if epoch == epochs.retiring and epoch != 0:
        return accept(&epochs.retiring_window, packet_id, now_ns)
    return EPOCH_REJECTED
