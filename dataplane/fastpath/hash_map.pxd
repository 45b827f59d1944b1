# A hash map from keys of a few words to addresses, for the packet path: look-ups take no GIL and no memory.

from libc.stdint cimport uint64_t

cdef struct HashMap:
    uint64_t* slots  # of key_words + 1 words: key and value; value 0: free
    size_t size      # slots, a power of two
    size_t used
    size_t key_words
    uint64_t seed[2]
    size_t recent    # the slot that was looked at last: packets come in bursts to one peer

# An empty map whose keys have this many words. Raises MemoryError.
cdef int set_up_map(HashMap* map, size_t key_words) except -1
cdef void free_map(HashMap* map) noexcept
# Makes room for this many entries. Raises MemoryError; the map is as it was then.
cdef int reserve_entries(HashMap* map, size_t entries) except -1
# NULL: not there.
cdef void* find_entry(HashMap* map, const uint64_t* key) noexcept nogil
# Adds an entry, or gives it another value (not NULL). False: there is no room, and nothing was changed.
cdef bint put_entry(HashMap* map, const uint64_t* key, void* value) noexcept nogil
# Removes an entry. False: it was not there.
cdef bint remove_entry(HashMap* map, const uint64_t* key) noexcept nogil
