# A run of bytes with its length: the only way in which this package touches packet bytes.
#
# Knows how to read, write and cut with every access checked. Must not know what the bytes mean, nor who owns them: a
# Span never keeps its bytes alive. Callers check lengths first and count a drop reason; the check in here is the second
# line: an access out of bounds is a fault of this package, never of a packet, and ends the process (the daemon starts
# another worker) instead of touching memory that is not the packet's.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <endian.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>

    typedef struct { uint8_t *at; size_t size; } ovpn_span;

    __attribute__((cold, noreturn, noinline, unused)) static void ovpn_out_of_bounds(void) {
        static const char text[] = "dataplane.fastpath: access out of bounds\\n";
        ssize_t ignored = write(2, text, sizeof text - 1);
        (void)ignored;
        abort();
    }
    static inline uint8_t *ovpn_checked(ovpn_span s, size_t start, size_t size) {
        if (__builtin_expect(start > s.size || size > s.size - start, 0)) ovpn_out_of_bounds();
        return s.at + start;
    }
    static inline ovpn_span ovpn_span_of(uint8_t *at, size_t size) { ovpn_span s = {at, size}; return s; }
    static inline ovpn_span ovpn_part(ovpn_span s, size_t start, size_t size) {
        return ovpn_span_of(ovpn_checked(s, start, size), size);
    }
    static inline ovpn_span ovpn_behind(ovpn_span s, size_t start) {
        return ovpn_span_of(ovpn_checked(s, start, 0), s.size - start);
    }
    static inline uint8_t ovpn_get8(ovpn_span s, size_t i) { return *ovpn_checked(s, i, 1); }
    static inline uint16_t ovpn_get16(ovpn_span s, size_t i) {
        uint16_t v; memcpy(&v, ovpn_checked(s, i, 2), 2); return be16toh(v);
    }
    static inline uint32_t ovpn_get32(ovpn_span s, size_t i) {
        uint32_t v; memcpy(&v, ovpn_checked(s, i, 4), 4); return be32toh(v);
    }
    static inline uint64_t ovpn_get64(ovpn_span s, size_t i) {
        uint64_t v; memcpy(&v, ovpn_checked(s, i, 8), 8); return be64toh(v);
    }
    static inline void ovpn_put8(ovpn_span s, size_t i, uint8_t v) { *ovpn_checked(s, i, 1) = v; }
    static inline void ovpn_put16(ovpn_span s, size_t i, uint16_t v) {
        v = htobe16(v); memcpy(ovpn_checked(s, i, 2), &v, 2);
    }
    static inline void ovpn_put32(ovpn_span s, size_t i, uint32_t v) {
        v = htobe32(v); memcpy(ovpn_checked(s, i, 4), &v, 4);
    }
    static inline void ovpn_put64(ovpn_span s, size_t i, uint64_t v) {
        v = htobe64(v); memcpy(ovpn_checked(s, i, 8), &v, 8);
    }
    static inline void ovpn_put(ovpn_span s, size_t i, ovpn_span from) {
        if (from.size) memcpy(ovpn_checked(s, i, from.size), from.at, from.size);
    }
    static inline int ovpn_equal(ovpn_span a, ovpn_span b) {
        return a.size == b.size && (a.size == 0 || memcmp(a.at, b.at, a.size) == 0);
    }
    """
    ctypedef struct Span "ovpn_span":
        uint8_t* at
        size_t size
    Span span_of "ovpn_span_of"(uint8_t* at, size_t size) noexcept nogil
    # size bytes from start on
    Span part "ovpn_part"(Span s, size_t start, size_t size) noexcept nogil
    # all from start on
    Span behind "ovpn_behind"(Span s, size_t start) noexcept nogil
    # the address of `size` bytes at `start`, for calls into C
    uint8_t* checked "ovpn_checked"(Span s, size_t start, size_t size) noexcept nogil
    # big endian, as on the wire
    uint8_t get8 "ovpn_get8"(Span s, size_t at) noexcept nogil
    uint16_t get16 "ovpn_get16"(Span s, size_t at) noexcept nogil
    uint32_t get32 "ovpn_get32"(Span s, size_t at) noexcept nogil
    uint64_t get64 "ovpn_get64"(Span s, size_t at) noexcept nogil
    void put8 "ovpn_put8"(Span s, size_t at, uint8_t value) noexcept nogil
    void put16 "ovpn_put16"(Span s, size_t at, uint16_t value) noexcept nogil
    void put32 "ovpn_put32"(Span s, size_t at, uint32_t value) noexcept nogil
    void put64 "ovpn_put64"(Span s, size_t at, uint64_t value) noexcept nogil
    # copies `source` to `at`; the two must not overlap
    void put "ovpn_put"(Span s, size_t at, Span source) noexcept nogil
    bint equal "ovpn_equal"(Span a, Span b) noexcept nogil
