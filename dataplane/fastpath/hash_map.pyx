"""A hash map from keys of a few words to addresses: linear probing in one array.

Knows words. Must not know what they mean, nor who owns what a value points to. The hash is SipHash-1-3 with a secret
seed for each map, so that nobody who may choose keys can make them collide.
"""

import os

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    SIZE_MIN = 8


cdef int set_up_map(HashMap* map, size_t key_words) except -1:
    cdef bytes seed = os.urandom(sizeof(map.seed))
    memset(map, 0, sizeof(HashMap))
    memcpy(map.seed, <const char*>seed, sizeof(map.seed))
    map.key_words = key_words
    return reserve_entries(map, 0)


cdef void free_map(HashMap* map) noexcept:
    PyMem_RawFree(map.slots)
    map.slots = NULL


cdef int reserve_entries(HashMap* map, size_t entries) except -1:
    cdef HashMap bigger = map[0]
    cdef uint64_t* slot
    cdef size_t index
    if map.slots != NULL and has_room(map, entries):
        return 0
    bigger.size = max(bigger.size, SIZE_MIN)
    while not has_room(&bigger, entries):
        bigger.size *= 2
    bigger.used = 0
    bigger.slots = <uint64_t*>PyMem_RawCalloc(bigger.size, (map.key_words + 1) * sizeof(uint64_t))
    if bigger.slots == NULL:
        raise MemoryError
    if map.slots != NULL:
        for index in range(map.size):
            slot = slot_at(map, index)
            if slot[map.key_words]:
                put_entry(&bigger, slot, <void*>slot[map.key_words])
    free_map(map)
    map[0] = bigger
    return 0


cdef void* find_entry(HashMap* map, const uint64_t* key) noexcept nogil:
    # A key stands in one slot only: wherever it is found, it is the one.
    if not (is_used(map, map.recent) and has_key(map, map.recent, key)):
        map.recent = index_of(map, key)
    return <void*>slot_at(map, map.recent)[map.key_words]


cdef bint put_entry(HashMap* map, const uint64_t* key, void* value) noexcept nogil:
    cdef uint64_t* slot = slot_at(map, index_of(map, key))
    if not slot[map.key_words]:
        if not has_room(map, map.used + 1):
            return False
        memcpy(slot, key, map.key_words * sizeof(uint64_t))
        map.used += 1
    slot[map.key_words] = <uint64_t>value
    return True


cdef bint remove_entry(HashMap* map, const uint64_t* key) noexcept nogil:
    cdef size_t mask = map.size - 1
    cdef size_t hole = index_of(map, key)
    cdef size_t index = hole
    cdef size_t home
    cdef uint64_t* slot
    if not slot_at(map, hole)[map.key_words]:
        return False
    # What stands behind the hole moves up, unless that would put it before the place where its search begins.
    while True:
        index = (index + 1) & mask
        slot = slot_at(map, index)
        if not slot[map.key_words]:
            break
        home = hash_of(map, slot) & mask
        if ((index - home) & mask) >= ((index - hole) & mask):
            memcpy(slot_at(map, hole), slot, (map.key_words + 1) * sizeof(uint64_t))
            hole = index
    slot_at(map, hole)[map.key_words] = 0
    map.used -= 1
    return True


cdef inline bint has_room(const HashMap* map, size_t entries) noexcept nogil:
    # A quarter stays free, so that a search is short, and ends.
    return entries <= map.size - map.size // 4


cdef inline uint64_t* slot_at(const HashMap* map, size_t index) noexcept nogil:
    return map.slots + index * (map.key_words + 1)


cdef inline size_t index_of(const HashMap* map, const uint64_t* key) noexcept nogil:
    """The slot of this key, or the free one where it would stand."""
    cdef size_t mask = map.size - 1
    cdef size_t index = hash_of(map, key) & mask
    while is_used(map, index) and not has_key(map, index, key):
        index = (index + 1) & mask
    return index


cdef inline bint is_used(const HashMap* map, size_t index) noexcept nogil:
    return slot_at(map, index)[map.key_words] != 0


cdef inline bint has_key(const HashMap* map, size_t index, const uint64_t* key) noexcept nogil:
    cdef const uint64_t* slot = slot_at(map, index)
    cdef size_t word
    for word in range(map.key_words):
        if slot[word] != key[word]:
            return False
    return True


cdef inline uint64_t hash_of(const HashMap* map, const uint64_t* key) noexcept nogil:
    """SipHash-1-3 (https://www.aumasson.jp/siphash) of the words in the machine's order."""
    cdef uint64_t v[4]
    cdef size_t word
    v[0] = map.seed[0] ^ 0x736f6d6570736575ULL
    v[1] = map.seed[1] ^ 0x646f72616e646f6dULL
    v[2] = map.seed[0] ^ 0x6c7967656e657261ULL
    v[3] = map.seed[1] ^ 0x7465646279746573ULL
    for word in range(map.key_words):
        compress(v, key[word])
    compress(v, <uint64_t>map.key_words * sizeof(uint64_t) << 56)
    v[2] ^= 0xff
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline void compress(uint64_t* v, uint64_t word) noexcept nogil:
    v[3] ^= word
    sip_round(v)
    v[0] ^= word


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = rotated(v[1], 13) ^ v[0]
    v[3] = rotated(v[3], 16) ^ v[2]
    v[0] = rotated(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = rotated(v[1], 17) ^ v[2]
    v[3] = rotated(v[3], 21) ^ v[0]
    v[2] = rotated(v[2], 32)


cdef inline uint64_t rotated(uint64_t value, int bits) noexcept nogil:
    return value << bits | value >> (64 - bits)


cdef class TestedMap:
    """A map with numbers (not 0) for values: for tests."""

    cdef HashMap map

    def __cinit__(self, size_t key_words):
        set_up_map(&self.map, key_words)

    def __dealloc__(self):
        free_map(&self.map)

    def __len__(self):
        return self.map.used

    @property
    def seed(self):
        """The two words of the seed, which an empty map may be given."""
        return self.map.seed[0], self.map.seed[1]

    @seed.setter
    def seed(self, words):
        self.map.seed[0], self.map.seed[1] = words

    def reserve(self, size_t entries):
        """Makes room."""
        reserve_entries(&self.map, entries)

    def put(self, key, uint64_t value):
        """Whether there was room."""
        return put_entry(&self.map, self._words(key), <void*>value)

    def find(self, key):
        """The value; 0: not there."""
        return <uint64_t>find_entry(&self.map, self._words(key))

    def remove(self, key):
        """Whether it was there."""
        return remove_entry(&self.map, self._words(key))

    def hash(self, key):
        """What decides where a key stands."""
        return hash_of(&self.map, self._words(key))

    cdef const uint64_t* _words(self, bytes key) except NULL:
        if len(key) != self.map.key_words * sizeof(uint64_t):
            raise ValueError("a key of another length")
        return <const uint64_t*><const char*>key
