# Bytes that wait, oldest first, in memory of their own.
#
# Knows memory. Must not know what the bytes mean. An empty queue has no memory: thousands of them cost nothing.

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

from dataplane.fastpath.span cimport Span, put, span_of

cdef struct ByteQueue:
    uint8_t* bytes  # NULL: nothing waits
    size_t capacity
    size_t start
    size_t end


cdef inline Span waiting(const ByteQueue* queue) noexcept nogil:
    return span_of(queue.bytes + queue.start, queue.end - queue.start)


# Room for `size` bytes more, which grew() then adds; behind what waits. size 0: no memory. least: of an allocation.
cdef inline Span room_for(ByteQueue* queue, size_t size, size_t least) noexcept nogil:
    cdef size_t used = queue.end - queue.start
    cdef size_t capacity = max(queue.capacity, least)
    cdef uint8_t* bytes
    if queue.bytes == NULL or size > queue.capacity - queue.end:
        # Half of it free after moving, so that a byte is moved once or so.
        while capacity // 2 < used + size:
            capacity *= 2
        if queue.bytes != NULL and capacity == queue.capacity:
            memmove(queue.bytes, queue.bytes + queue.start, used)
        else:
            bytes = <uint8_t*>malloc(capacity)
            if bytes == NULL:
                return span_of(NULL, 0)
            if used:
                memcpy(bytes, queue.bytes + queue.start, used)
            free(queue.bytes)
            queue.bytes = bytes
            queue.capacity = capacity
        queue.start = 0
        queue.end = used
    return span_of(queue.bytes + queue.end, size)


# Adds what was written to the start of room_for().
cdef inline void grew(ByteQueue* queue, size_t size) noexcept nogil:
    queue.end += size


# False: no memory, and nothing was added.
cdef inline bint append(ByteQueue* queue, Span source) noexcept nogil:
    cdef Span room
    if source.size == 0:
        return True
    room = room_for(queue, source.size, 4096)
    if room.size == 0:
        return False
    put(room, 0, source)
    grew(queue, source.size)
    return True


# Forgets all.
cdef inline void empty(ByteQueue* queue) noexcept nogil:
    free(queue.bytes)
    queue[0] = ByteQueue(NULL, 0, 0, 0)


# Forgets the first `size` bytes.
cdef inline void took(ByteQueue* queue, size_t size) noexcept nogil:
    queue.start += size
    if queue.start >= queue.end:
        empty(queue)
