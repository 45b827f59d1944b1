"""Packets that are not data, from a socket that data plane and control plane share, on to the control plane.

Knows the datagram in which such a packet is handed over. Must not know what the packet means. Its header (40 bytes):

    0      IP version of the peer, 4 or 6
    1      zero
    2-3    its port, big endian
    4-7    its scope id, big endian; 0 for none
    8-23   its address
    24-39  the local address that the packet came to; zero: unknown

IPv4 addresses stand v4-mapped (::ffff:a.b.c.d).
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset
from posix.uio cimport iovec

from dataplane.fastpath.endpoint cimport pack_endpoint, pack_local
from dataplane.fastpath.linux cimport MSG_DONTWAIT, MSG_NOSIGNAL, msghdr, sendmsg, sockaddr_in6
from dataplane.fastpath.span cimport equal, get16, part, put, put8, put16, put32, span_of

cdef enum:
    HEADER_SIZE = 40
    # In a sockaddr_in and a sockaddr_in6 alike; then in each.
    PORT = 2
    ADDRESS4 = 4
    ADDRESS6 = 8

cdef uint8_t[12] MAPPED_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]


cdef bint send_control(int fd, Span packet, const Datagram* datagram) noexcept nogil:
    cdef uint8_t[HEADER_SIZE] bytes_of_header
    cdef Span header = span_of(bytes_of_header, HEADER_SIZE)
    cdef iovec[2] pieces
    cdef msghdr message = msghdr(NULL, 0, &pieces[0], 2, NULL, 0, 0)
    write_header(header, datagram)
    pieces[0] = iovec(header.at, header.size)
    pieces[1] = iovec(packet.at, packet.size)
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0


cdef void write_header(Span header, const Datagram* datagram) noexcept nogil:
    cdef Span source = span_of(<uint8_t*>datagram.source.sockaddr, datagram.source.size)
    cdef Span local = span_of(<uint8_t*>datagram.local.address, datagram.local.size)
    cdef Span address = part(header, 8, 16)
    memset(header.at, 0, header.size)
    if datagram.source.size == sizeof(sockaddr_in6):
        put(address, 0, part(source, ADDRESS6, 16))
        put32(header, 4, (<sockaddr_in6*>datagram.source.sockaddr).sin6_scope_id)
    else:
        put_mapped(address, part(source, ADDRESS4, 4))
    if local.size == 16:
        put(header, 24, local)
    elif local.size == 4:
        put_mapped(part(header, 24, 16), local)
    put8(header, 0, 4 if equal(part(address, 0, 12), span_of(MAPPED_PREFIX, 12)) else 6)
    put16(header, 2, get16(source, PORT))


cdef void put_mapped(Span address, Span ipv4) noexcept nogil:
    put(address, 0, span_of(MAPPED_PREFIX, 12))
    put(address, 12, ipv4)


def hand_over(int fd, bytes packet not None, source, local):
    """For tests: what send_control() says of a packet from `source` (as the socket module has it) to `local`."""
    cdef Datagram datagram
    datagram.source = pack_endpoint(source)
    datagram.local = pack_local(local)
    return bool(send_control(fd, span_of(<uint8_t*><char*>packet, len(packet)), &datagram))
