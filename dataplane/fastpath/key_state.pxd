# What a data key consists of, for those who work on it: aead.pyx, and epoch.pyx where it has epochs. No functions.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from dataplane.fastpath.direction cimport LONGEST_KEY, NONCE_SIZE, Direction
from dataplane.fastpath.replay_window cimport WindowState

cdef enum:
    EPOCH_SECRET_SIZE = 32
    FUTURE_EPOCHS = 16

# The key of an epoch that a receiver is ready for; only one of them is in a context at a time, for a context is large.
cdef struct FutureKey:
    uint8_t key[LONGEST_KEY]
    uint8_t iv[NONCE_SIZE]
    uint64_t forged

# What a key of the format EPOCH has more. KeyState's encrypt and decrypt are of the current epochs of each direction.
cdef struct EpochState:
    size_t key_size
    uint16_t sending
    uint16_t receiving
    uint16_t retiring  # 0: none
    uint16_t tried  # the epoch whose key is in `trial`; 0: none
    uint16_t future_count  # of `future`, from epoch receiving + 1 on
    uint8_t send_iv[NONCE_SIZE]
    uint8_t receive_iv[NONCE_SIZE]
    uint8_t retiring_iv[NONCE_SIZE]
    uint8_t send_secret[EPOCH_SECRET_SIZE]  # of epoch `sending`
    uint8_t future_secret[EPOCH_SECRET_SIZE]  # of epoch receiving + future_count
    Direction retiring_decrypt
    WindowState retiring_window
    uint64_t retiring_forged
    Direction trial
    FutureKey future[FUTURE_EPOCHS]

cdef struct KeyState:
    uint64_t sent  # packet-id used last
    uint32_t first_word
    uint8_t key_id
    uint64_t usage  # packets and blocks sealed so far
    uint64_t usage_max
    uint64_t forged  # packets that did not open so far
    uint64_t packet_id_warning  # from where on a warning is due; UINT64_MAX once it was given
    uint64_t usage_warning
    uint64_t forgery_warning
    EpochState* epochs  # NULL: the format is DATA_V2
    Direction encrypt
    Direction decrypt
    WindowState window
