"""A data key on libcrypto: seals and opens DATA_V2 packets in place, and counts the packet-ids of both directions.

Knows the nonce and its uniqueness: a packet-id is used up before it is used, and after 0xFFFFFFFF, or where its cipher
may be used no more (dataplane/datachannel/key_limits.py), the key seals no more. Must not know peers, slots or what a
payload means. Layout: dataplane/datachannel/wire.py. A key whose format has epochs leaves all this to epoch.pyx.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from dataplane.fastpath.direction cimport TAG_SIZE, Direction, decrypt, encrypt, set_key, set_up, tear_down
from dataplane.fastpath.epoch cimport begin_epochs, end_epochs, open_in_epoch, seal_in_epoch
from dataplane.fastpath.libcrypto cimport OSSL_PARAM, CipherCalls
from dataplane.fastpath.replay_window cimport ReplayWindow
from dataplane.fastpath.span cimport behind, checked, part, put32, span_of

from dataplane.datachannel import key_limits
from dataplane.datachannel.key_direction import EpochSecret
from dataplane.datachannel.wire import KEY_ID_MAX, first_word
from dataplane.datachannel.wire import PACKET_ID_MAX as _PACKET_ID_MAX
from dataplane.vocabulary import DropReason, KeyLimit

cdef extern from "<openssl/crypto.h>" nogil:
    void OPENSSL_cleanse(void* bytes, size_t size)

cdef enum:
    PACKET_ID_SIZE = 4
    NONCE_TAIL_SIZE = 8
    BLOCK_SIZE = 16

cdef uint64_t PACKET_ID_MAX = _PACKET_ID_MAX
FORGERIES_MAX = key_limits.FORGERIES_MAX

cdef int PACKET_ID_EXHAUSTED = DropReason.TX_PACKET_ID_EXHAUSTED
cdef int USAGE_LIMIT = DropReason.TX_USAGE_LIMIT
FORGERY_LIMIT = DropReason.RX_FORGERY_LIMIT


cdef size_t seal(KeyState* key, uint32_t peer_id, Span room) noexcept nogil:
    if key.epochs != NULL:
        return seal_in_epoch(key, peer_id, room)
    return room.size - SPARE if seal_data_v2(key, peer_id, part(room, 0, room.size - SPARE)) else 0


cdef inline bint seal_data_v2(KeyState* key, uint32_t peer_id, Span datagram) noexcept nogil:
    cdef Span payload = behind(datagram, OVERHEAD)
    cdef uint64_t usage = key.usage + 1 + (payload.size + BLOCK_SIZE - 1) // BLOCK_SIZE
    if key.sent >= PACKET_ID_MAX or usage > key.usage_max:
        return False
    key.sent += 1
    key.usage = usage
    put32(datagram, 0, key.first_word | peer_id)
    put32(datagram, 4, <uint32_t>key.sent)
    memcpy(key.encrypt.nonce, checked(datagram, 4, PACKET_ID_SIZE), PACKET_ID_SIZE)
    if encrypt(&key.encrypt, part(datagram, 0, HEAD_SIZE), payload, checked(datagram, HEAD_SIZE, TAG_SIZE)):
        return True
    # What stands there may be plaintext still. A key that libcrypto refuses is used up, so that a new one is asked for.
    key.sent = PACKET_ID_MAX
    return False


cdef int end_of(const KeyState* key) noexcept nogil:
    return PACKET_ID_EXHAUSTED if key.epochs != NULL or key.sent == PACKET_ID_MAX else USAGE_LIMIT


cdef bint open_packet(KeyState* key, Span datagram, Span* payload) noexcept nogil:
    if key.epochs != NULL:
        return open_in_epoch(key, datagram, payload)
    payload[0] = behind(datagram, OVERHEAD)
    memcpy(key.decrypt.nonce, checked(datagram, 4, PACKET_ID_SIZE), PACKET_ID_SIZE)
    if decrypt(&key.decrypt, part(datagram, 0, HEAD_SIZE), payload[0], checked(datagram, HEAD_SIZE, TAG_SIZE)):
        return True
    key.forged += 1
    return False


cdef class DataKey:
    """One key of a peer, with an AEAD and packet-ids for each direction.

    DataKey(key_id, cipher, encrypt_dir, decrypt_dir): 0..7, a Cipher and two KeyDirections, or two EpochSecrets for the
    format EPOCH. Raises ValueError for a key_id outside that or material of a wrong length, RuntimeError if libcrypto
    has no such cipher. Fresh: sealing begins with packet-id 1 and the replay window is empty.
    """

    def __cinit__(self, key_id, cipher, encrypt_dir, decrypt_dir):
        if not 0 <= key_id <= KEY_ID_MAX:
            raise ValueError(f"key_id {key_id} is not in 0..{KEY_ID_MAX}")
        self.cipher = cipher
        self.state.key_id = key_id
        self.state.first_word = first_word(key_id, peer_id=0)
        self.state.usage_max = key_limits.USAGE_MAX[cipher]
        if isinstance(encrypt_dir, EpochSecret):
            encrypt_dir.check(cipher)
            decrypt_dir.check(cipher)
            begin_epochs(&self.state, cipher, encrypt_dir, decrypt_dir)
            return
        self.state.packet_id_warning = key_limits.PACKET_ID_WARNING
        self.state.usage_warning = key_limits.USAGE_WARNING[cipher]
        self.state.forgery_warning = key_limits.FORGERIES_WARNING
        begin_direction(&self.state.encrypt, cipher, encrypt_dir, is_encrypting=True)
        begin_direction(&self.state.decrypt, cipher, decrypt_dir, is_encrypting=False)

    def __dealloc__(self):
        tear_down(&self.state.encrypt)
        tear_down(&self.state.decrypt)
        end_epochs(&self.state)
        OPENSSL_cleanse(&self.state, sizeof(KeyState))

    def __repr__(self):
        return f"DataKey(key_id={self.key_id}, cipher={self.cipher.name}, sent={self.sent})"

    @property
    def key_id(self):
        """Which of the peer's keys it is, 0..7."""
        return self.state.key_id

    @property
    def sent(self):
        """The packet-id used last, which in DATA_V2 is also how many were used."""
        return self.state.sent

    @sent.setter
    def sent(self, uint64_t packet_id):
        if self.state.epochs == NULL and packet_id > PACKET_ID_MAX:
            raise OverflowError(f"packet-id {packet_id} is wider than 32 bits")
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
        room = bytearray(OVERHEAD) + payload + bytes(SPARE)
        size = seal(&self.state, peer_id, bytes_of(room))
        return bytes(room[:size]) if size else None

    def refusal(self, datagram):
        """Why this packet of at least 24 bytes need not be opened; None: it may be."""
        cdef bytearray kept = bytearray(datagram)
        reason = refusal_of(&self.state, bytes_of(kept))
        return None if reason == ACCEPTED else DropReason(reason)

    def open(self, datagram):
        """The payload of a DATA_V2 packet of at least 24 bytes; None if it is not authentic.

        Leaves the replay window alone: that is the next question about an authentic packet.
        """
        cdef bytearray opened = bytearray(datagram)
        cdef Span payload
        if len(opened) < OVERHEAD:
            return None
        if self.state.epochs != NULL and epoch_refusal(&self.state, bytes_of(opened)) not in (ACCEPTED, FORGERY_LIMIT):
            return None
        return (<char*>payload.at)[:payload.size] if open_packet(&self.state, bytes_of(opened), &payload) else None

    def packet_id_of(self, datagram):
        """The packet-id of a packet that refusal() has nothing against."""
        cdef bytearray kept = bytearray(datagram)
        return packet_id_of(&self.state, bytes_of(kept))

    def accept(self, uint64_t packet_id, uint64_t now_ns):
        """Takes the packet-id of a packet that was opened; None if it is accepted, else why not."""
        reason = accept_packet(&self.state, packet_id, now_ns)
        return None if reason == ACCEPTED else DropReason(reason)


cdef int begin_direction(Direction* direction, cipher, material, bint is_encrypting) except -1:
    """Readies one direction. The cipher key is copied to libcrypto's context only, which cleanses it in the end."""
    cdef bytes cipher_key = material.cipher_key
    cdef bytes nonce_tail = material.nonce_tail
    cdef size_t key_size = len(cipher_key)
    if key_size not in cipher.key_lengths:
        raise ValueError(f"{cipher.name} has no key of {key_size} bytes")
    if len(nonce_tail) != NONCE_TAIL_SIZE:
        raise ValueError(f"a nonce tail of {len(nonce_tail)} bytes instead of {NONCE_TAIL_SIZE}")
    memcpy(&direction.nonce[PACKET_ID_SIZE], <char*>nonce_tail, NONCE_TAIL_SIZE)
    set_up(direction, cipher, key_size)
    if not set_key(direction, <const uint8_t*><const char*>cipher_key, key_size, is_encrypting):
        raise RuntimeError(f"libcrypto refuses a key of {cipher.name}")
    return 0


cdef Span bytes_of(bytearray buffer):
    return span_of(<uint8_t*><char*>buffer, len(buffer))


def seal_many(DataKey key not None, uint32_t peer_id, bytearray datagrams not None, size_t size):
    """For tests and benchmarks: seals the DATA_V2 packets of `size` bytes (24 or more) that fill a buffer; how many."""
    cdef Span buffer = bytes_of(datagrams)
    cdef size_t done = 0
    with nogil:
        while (done + 1) * size <= buffer.size and seal_data_v2(
            &key.state, peer_id, part(buffer, done * size, size)
        ):
            done += 1
    return done


def open_many(DataKey key not None, bytearray datagrams not None, size_t size):
    """For tests and benchmarks: opens the DATA_V2 packets of `size` bytes (24 or more) that fill a buffer; how many."""
    cdef Span buffer = bytes_of(datagrams)
    cdef size_t done = 0
    cdef Span payload
    with nogil:
        while (done + 1) * size <= buffer.size and open_packet(
            &key.state, part(buffer, done * size, size), &payload
        ):
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
