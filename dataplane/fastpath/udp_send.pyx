"""UDP out: trains of datagrams to the sockets of their peers, many trains a call.

Knows sendmmsg(2), UDP_SEGMENT (udp(7)), packet info, and what the kernel's refusals mean. Must not know what a datagram
holds. Twin of the sending half of dataplane/transport/udp.py.

A path may refuse trains of some size: its MTU is less, or a device on it cannot do it. That is found out by trying: a
refused train is sent datagram by datagram, and for a second so are all trains of that size or longer to that peer.
"""

from libc.errno cimport EADDRNOTAVAIL, EAGAIN, EINVAL, EIO, EMSGSIZE, ENETUNREACH, ENOBUFS, EOPNOTSUPP, errno
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, memset

from dataplane.fastpath.channel cimport Peer, packets_dropped
from dataplane.fastpath.endpoint cimport is_ipv4
from dataplane.fastpath.linux cimport (
    CMSG_DATA, CMSG_LEN, CMSG_SPACE, IP_PKTINFO, IP_TOS, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, IPV6_PKTINFO,
    IPV6_TCLASS, MSG_DONTWAIT, UDP_SEGMENT, cmsghdr, in6_pktinfo, in_pktinfo, msghdr, sendmmsg, sendmsg, sockaddr_in6,
)
from dataplane.fastpath.span cimport put, span_of

from dataplane.vocabulary import DropReason

cdef uint64_t REMEMBERED_NS = 1_000_000_000

cdef int QUEUE_FULL = DropReason.TX_QUEUE_FULL
cdef int SEND_FAILED = DropReason.TX_SEND_FAILED


cdef class UdpSender:
    """Sends for all sockets of a packet path."""

    def __cinit__(self):
        self.trains = Trains()

    def send_batch(self, sealed, UdpSockets sockets not None, uint64_t now_ns):
        """Sends packets, (Peer, bytes), that were sealed one by one."""
        cdef Peer peer
        cdef bytes packet
        for peer, packet in sealed:
            if not self.trains.has_room(len(packet)):
                self.send(sockets, now_ns)
            put(self.trains.room(), 0, span_of(<uint8_t*><char*>packet, len(packet)))
            self.trains.add(&peer.state, len(packet))
        self.send(sockets, now_ns)

    cdef void send(self, UdpSockets sockets, uint64_t now_ns) noexcept nogil:
        cdef int done = 0
        cdef int count = self.trains.count
        cdef Train* train
        cdef UdpSocket* udp
        while done < count:
            train = &self.trains.trains[done]
            udp = sockets.find(train.peer.socket_id)
            if udp == NULL:
                packets_dropped(train.peer, SEND_FAILED, train.count)
                done += 1
            elif self._goes_whole(udp, train, now_ns):
                done += self._send_run(udp, train, count - done, now_ns)
            else:
                self._send_one_by_one(udp, train)
                done += 1
        self.trains.clear()

    cdef int _send_run(self, UdpSocket* udp, Train* trains, int count, uint64_t now_ns) noexcept nogil:
        """Sends trains that go by this socket, from the first on, and tells how many were dealt with."""
        cdef int prepared = 0
        cdef int sent
        while prepared < count and trains[prepared].peer.socket_id == udp.socket_id and (
            self._goes_whole(udp, &trains[prepared], now_ns)
        ):
            self._prepare(prepared, trains[prepared].peer, whole(&trains[prepared]), True)
            prepared += 1
        sent = sendmmsg(udp.fd, self.messages, prepared, MSG_DONTWAIT)
        if sent > 0:
            return sent
        self._train_failed(udp, trains, errno, now_ns)
        return 1

    cdef void _train_failed(self, UdpSocket* udp, Train* train, int error, uint64_t now_ns) noexcept nogil:
        error = self._without_local(0, udp, train.peer, whole(train), error)
        if error == 0:
            return
        if train.count == 1 or not is_refusal(error):
            drop(train.peer, train.count, error)
        elif self._send_one_by_one(udp, train) > 0:
            # Else it was no matter of trains.
            self._remember(train, now_ns)

    cdef int _send_one_by_one(self, UdpSocket* udp, Train* train) noexcept nogil:
        """Sends the datagrams of a train on their own; how many went."""
        cdef int done = 0
        cdef int count = train.count
        cdef int gone = 0
        cdef int sent, error
        for index in range(count):
            self._prepare(index, train.peer, single(train, index), True)
        while done < count:
            sent = sendmmsg(udp.fd, &self.messages[done], count - done, MSG_DONTWAIT)
            if sent > 0:
                done += sent
                gone += sent
                continue
            error = self._without_local(done, udp, train.peer, single(train, done), errno)
            if error == 0:
                gone += 1
            else:
                drop(train.peer, 1, error)
            done += 1
        return gone

    cdef int _without_local(
        self, int index, UdpSocket* udp, PeerState* peer, Payload payload, int error
    ) noexcept nogil:
        """After an error that may mean so, tries whether the local address is gone. 0: sent, else the errno."""
        if peer.local.size == 0 or not may_be_local(error):
            return error
        self._prepare(index, peer, payload, False)
        if sendmsg(udp.fd, &self.messages[index].msg_hdr, MSG_DONTWAIT) < 0:
            return errno
        peer.local.size = 0
        return 0

    cdef void _prepare(self, int index, PeerState* peer, Payload payload, bint with_local) noexcept nogil:
        cdef msghdr* message = &self.messages[index].msg_hdr
        message.msg_name = peer.remote.sockaddr
        message.msg_namelen = peer.remote.size
        message.msg_iov = payload.pieces
        message.msg_iovlen = payload.piece_count
        message.msg_control = self.ancillary[index]
        message.msg_controllen = 0
        if payload.segment_size != 0:
            append_cmsg(message, IPPROTO_UDP, UDP_SEGMENT, &payload.segment_size, sizeof(payload.segment_size))
        if with_local and peer.local.size != 0:
            append_local(message, peer)
        if payload.tos != 0:
            append_tos(message, peer, payload.tos)

    # What paths refused

    cdef bint _goes_whole(self, UdpSocket* udp, Train* train, uint64_t now_ns) noexcept nogil:
        cdef Refusal* refusal = self._refusal(train.peer)
        if train.count == 1:
            return True
        return udp.has_segmentation and not (
            refusal.peer == train.peer and train.segment_size >= refusal.segment_size and now_ns < refusal.forgotten_ns
        )

    cdef void _remember(self, Train* train, uint64_t now_ns) noexcept nogil:
        self._refusal(train.peer)[0] = Refusal(train.peer, train.segment_size, now_ns + REMEMBERED_NS)

    cdef inline Refusal* _refusal(self, PeerState* peer) noexcept nogil:
        # One place for several peers: to forget, or to take one peer for another that is no more, costs a call.
        return &self.refusals[<size_t>peer // sizeof(PeerState) % REFUSALS]


cdef Payload whole(Train* train) noexcept nogil:
    """A train in one call."""
    cdef uint16_t segment_size = <uint16_t>train.segment_size if train.count > 1 else 0
    return Payload(&train.pieces[0], train.piece_count, segment_size, train.tos)


cdef Payload single(Train* train, unsigned int index) noexcept nogil:
    """One of its datagrams."""
    return Payload(&train.datagrams[index], 1, 0, train.tos)


cdef bint is_refusal(int error) noexcept nogil:
    """Whether a train may have been refused because it is one: longer segments than the path's MTU, or no offload."""
    return error == EMSGSIZE or error == EINVAL or error == EIO or error == EOPNOTSUPP


cdef bint may_be_local(int error) noexcept nogil:
    """What Linux says when a source address is not this host's, by IP version and age of the kernel."""
    return error == EINVAL or error == EADDRNOTAVAIL or error == ENETUNREACH


cdef void drop(PeerState* peer, unsigned int count, int error) noexcept nogil:
    packets_dropped(peer, QUEUE_FULL if error == EAGAIN or error == ENOBUFS else SEND_FAILED, count)


cdef void append_local(msghdr* message, PeerState* peer) noexcept nogil:
    cdef in_pktinfo info
    cdef in6_pktinfo info6
    if peer.local.size == sizeof(info.ipi_addr):
        info.ipi_ifindex = 0
        memcpy(&info.ipi_spec_dst, peer.local.address, sizeof(info.ipi_spec_dst))
        memcpy(&info.ipi_addr, peer.local.address, sizeof(info.ipi_addr))
        append_cmsg(message, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info))
    else:
        memcpy(&info6.ipi6_addr, peer.local.address, sizeof(info6.ipi6_addr))
        # A link-local source means nothing without its interface, which is the one of the remote.
        info6.ipi6_ifindex = (<sockaddr_in6*>peer.remote.sockaddr).sin6_scope_id
        append_cmsg(message, IPPROTO_IPV6, IPV6_PKTINFO, &info6, sizeof(info6))


cdef void append_tos(msghdr* message, PeerState* peer, int tos) noexcept nogil:
    if is_ipv4(&peer.remote):
        append_cmsg(message, IPPROTO_IP, IP_TOS, &tos, sizeof(tos))
    else:
        append_cmsg(message, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof(tos))


cdef void append_cmsg(msghdr* message, int level, int kind, const void* value, size_t size) noexcept nogil:
    cdef cmsghdr* head = <cmsghdr*>(<uint8_t*>message.msg_control + message.msg_controllen)
    memset(head, 0, CMSG_SPACE(size))
    head.cmsg_level = level
    head.cmsg_type = kind
    head.cmsg_len = CMSG_LEN(size)
    memcpy(CMSG_DATA(head), value, size)
    message.msg_controllen += CMSG_SPACE(size)
