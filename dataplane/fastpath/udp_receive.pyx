"""UDP in: many datagrams a call, and several segments a datagram where the kernel joins them (UDP_GRO).

Knows recvmmsg(2), packet info (ip(7) IP_PKTINFO, RFC 3542 IPV6_PKTINFO) and UDP_GRO (udp(7)). Must not know what a
datagram holds. Twin of the receiving half of dataplane/transport/udp.py.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from dataplane.fastpath.endpoint cimport LocalAddress, unpack_endpoint, unpack_local
from dataplane.fastpath.linux cimport (
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_NXTHDR, IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, IPV6_PKTINFO,
    MSG_DONTWAIT, UDP_GRO, cmsghdr, in6_pktinfo, in_pktinfo, msghdr, recvmmsg, sockaddr_in6,
)
from dataplane.fastpath.span cimport span_of

cdef enum:
    LONGEST_PAYLOAD = 65536  # no datagram and no train is longer
    # Not a power of two: slots that many datagrams begin would otherwise share few lines of the cache.
    SLOT_SIZE = LONGEST_PAYLOAD + 33 * 64


cdef class UdpReceiver:
    """Room for a batch of datagrams, which all sockets share in turn."""

    def __cinit__(self):
        cdef size_t index
        self.slots = <uint8_t*>malloc(RECEIVE_BATCH * SLOT_SIZE)
        if self.slots == NULL:
            raise MemoryError
        for index in range(RECEIVE_BATCH):
            self.payloads[index].iov_base = self.slots + index * SLOT_SIZE
            self.payloads[index].iov_len = LONGEST_PAYLOAD
            self.messages[index].msg_hdr.msg_name = self.sources[index].sockaddr
            self.messages[index].msg_hdr.msg_iov = &self.payloads[index]
            self.messages[index].msg_hdr.msg_iovlen = 1
            self.messages[index].msg_hdr.msg_control = self.ancillary[index]
            self._make_ready(index)

    def __dealloc__(self):
        free(self.slots)

    cdef void _make_ready(self, int index) noexcept nogil:
        # What the kernel overwrites with what it used.
        self.messages[index].msg_hdr.msg_namelen = sizeof(self.sources[index].sockaddr)
        self.messages[index].msg_hdr.msg_controllen = sizeof(self.ancillary[index])

    cdef int receive(self, int fd) noexcept nogil:
        for index in range(self.used):
            self._make_ready(index)
        # An error that came instead of datagrams is an ICMP error about an earlier packet; Linux tells it once.
        self.used = max(recvmmsg(fd, self.messages, RECEIVE_BATCH, MSG_DONTWAIT, NULL), 0)
        return self.used

    cdef void datagram_at(self, int index, Datagram* datagram) noexcept nogil:
        cdef msghdr* message = &self.messages[index].msg_hdr
        cdef uint32_t size = message.msg_namelen
        datagram.payload = span_of(<uint8_t*>self.payloads[index].iov_base, self.messages[index].msg_len)
        datagram.segment_size = datagram.payload.size
        datagram.source = self.sources[index]
        datagram.source.size = size
        # A longer address may have stood there before.
        memset(datagram.source.sockaddr + size, 0, sizeof(datagram.source.sockaddr) - size)
        datagram.local.size = 0
        read_ancillary(message, datagram)

    def take(self, int fd):
        """For tests: the datagrams that wait on a socket, as (payload, segment size, source, local address)."""
        cdef Datagram datagram
        taken = []
        for index in range(self.receive(fd)):
            self.datagram_at(index, &datagram)
            taken.append((
                datagram.payload.at[: datagram.payload.size],
                datagram.segment_size,
                unpack_endpoint(&datagram.source),
                unpack_local(&datagram.local),
            ))
        return taken


cdef void read_ancillary(msghdr* message, Datagram* datagram) noexcept nogil:
    cdef bint is_ipv6 = datagram.source.size == sizeof(sockaddr_in6)
    cdef int level = IPPROTO_IPV6 if is_ipv6 else IPPROTO_IP
    cdef int kind = IPV6_PKTINFO if is_ipv6 else IP_PKTINFO
    cdef cmsghdr* head = CMSG_FIRSTHDR(message)
    cdef in_pktinfo info
    cdef in6_pktinfo info6
    cdef int segment_size
    while head != NULL:
        if head.cmsg_level == IPPROTO_UDP and head.cmsg_type == UDP_GRO:
            if read_cmsg(head, &segment_size, sizeof(segment_size)) and segment_size > 0:
                datagram.segment_size = segment_size
        elif head.cmsg_level == level and head.cmsg_type == kind:
            if is_ipv6 and read_cmsg(head, &info6, sizeof(info6)):
                set_local(&datagram.local, &info6.ipi6_addr, sizeof(info6.ipi6_addr))
            elif not is_ipv6 and read_cmsg(head, &info, sizeof(info)):
                set_local(&datagram.local, &info.ipi_spec_dst, sizeof(info.ipi_spec_dst))
        head = CMSG_NXTHDR(message, head)


cdef inline bint read_cmsg(cmsghdr* head, void* value, size_t size) noexcept nogil:
    # It is shorter if there was not enough room.
    if head.cmsg_len < CMSG_LEN(size):
        return False
    memcpy(value, CMSG_DATA(head), size)
    return True


cdef inline void set_local(LocalAddress* local, const void* address, uint32_t size) noexcept nogil:
    memcpy(local.address, address, size)
    local.size = size
