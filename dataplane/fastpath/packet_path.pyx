"""The packet path of one device, compiled: the loop that moves packets until there is something else to do.

    link to device: receive -> open -> merge -> TUN write   (link_to_device.pyx)
    device to link: TUN read -> split -> seal -> send       (device_to_link.pyx)
    timers:         keepalives -> send; expired peers -> the daemon
    control plane:  its packets -> the streams, of which each carries one peer (tcp_socket.pyx)

Knows the TUN, the sockets, and what epoll may report of them. Must not know commands, nor what a packet means. Batches
are bounded, so that no source can starve another. The TUN is read even while a stream takes nothing: its peer must not
hold up the others, so packets to it are dropped once its queue is full. Packets are moved without the GIL; what happens
seldom is Python.
"""

import os

from libc.errno cimport EBADFD, errno
from libc.limits cimport INT_MAX
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

from dataplane.fastpath.device_to_link cimport FRAMES, DeviceToLink
from dataplane.fastpath.link_to_device cimport LinkToDevice
from dataplane.fastpath.linux cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP,
    PR_SET_TIMERSLACK, epoll_create1, epoll_ctl, epoll_event, epoll_wait, prctl,
)
from dataplane.fastpath.nap cimport nap_is_due, take_nap
from dataplane.fastpath.tcp_socket cimport (
    TcpSocket, TcpSockets, break_stream, control_events, flush, flush_control, is_ending, stream_events,
)
from dataplane.fastpath.udp_socket cimport UdpSocket, UdpSockets, clear_errors

from dataplane.messages import DeviceClosed, TransportClosed
from dataplane.tun.device import tun_offload
from dataplane.reports import event_report, expiry_report
from dataplane.transport.tcp import TcpTransport
from dataplane.vocabulary import DelReason

cdef enum:
    ERRORS = 64  # taken off a socket in one go
    NS_PER_MS = 1_000_000
    NS_PER_S = 1_000_000_000
    TIMER_SLACK_NS = 1_000  # how much later than asked the kernel may end a nap

# What epoll tells of a descriptor: one of these, or a socket_id, which has 32 bits: alone or, of a stream, with a mark.
cdef uint64_t WAKE = <uint64_t>1 << 32
cdef uint64_t DEVICE = <uint64_t>2 << 32
cdef uint64_t STREAM = <uint64_t>4 << 32
cdef uint64_t CONTROL = <uint64_t>8 << 32


cdef class PacketPath:
    """Moves the packets of a device. wake_fd: becomes readable when serve() is to return.

    Works on duplicates of the descriptors, but for wake_fd. Raises OSError, MemoryError.
    """

    def __cinit__(self, DataChannel channel not None, int tun_fd, int wake_fd):
        self.epoll_fd = self.tun_fd = -1
        self.channel = channel
        self.sockets = UdpSockets()
        self.streams = TcpSockets()
        self.transports = {}
        self.messages = []
        os.set_blocking(tun_fd, False)
        offload = tun_offload(tun_fd)
        self.tun_fd = os.dup(tun_fd)
        self.inward = LinkToDevice(channel, self.tun_fd, offload.virtio_header, offload.tcp, offload.udp)
        self.outward = DeviceToLink(channel, self.tun_fd, offload.virtio_header, self.streams)
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self._watch(wake_fd, EPOLLIN, WAKE)
        self._watch(self.tun_fd, EPOLLIN, DEVICE)
        prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS)

    def __dealloc__(self):
        for fd in (self.epoll_fd, self.tun_fd):
            if fd >= 0:
                close(fd)

    cdef int _watch(self, int fd, uint32_t events, uint64_t what) except -1:
        cdef epoll_event event
        event.events = events
        event.data.u64 = what
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        return 0

    def fileno(self):
        """What serve() waits on; readable when it has something to do, but for deadlines."""
        return self.epoll_fd

    # Sockets

    def transport(self, socket_id):
        """The transport of this number, None if there is none."""
        return self.transports.get(socket_id)

    def add_transport(self, transport):
        """Serves a socket, under a number that is free. Raises OSError, MemoryError."""
        if isinstance(transport, TcpTransport):
            self._watch_stream(self.streams.add(transport.socket_id, transport.fd, transport.control_fd))
        else:
            self._add_udp(transport)
        self.transports[transport.socket_id] = transport

    def _add_udp(self, transport):
        control_fd = -1 if transport.control_fd is None else transport.control_fd
        cdef UdpSocket* udp = self.sockets.add(transport.socket_id, transport.fd, control_fd)
        if self.tun_fd >= 0:
            try:
                self._watch(udp.fd, EPOLLIN | EPOLLRDHUP, udp.socket_id)
            except OSError:
                self.sockets.remove(transport.socket_id)
                raise
            udp.watched = True

    def remove_transport(self, transport):
        """Closes a socket. Packets to peers that still use it are dropped (TX_SEND_FAILED)."""
        del self.transports[transport.socket_id]
        if isinstance(transport, TcpTransport):
            self._remove_stream(transport.socket_id)
        else:
            self._unwatch(self.sockets.find(transport.socket_id))
            self.sockets.remove(transport.socket_id)
        transport.close()

    def _remove_stream(self, socket_id):
        cdef TcpSocket* tcp = self.streams.find(socket_id)
        # One try to send what waits, and what the control plane said last.
        self.inward.reader.relay_control(tcp)
        if not tcp.is_full:
            flush(tcp)
        self._rewatch(tcp.fd, 0, &tcp.watched, 0)
        self._rewatch(tcp.control_fd, 0, &tcp.control_watched, 0)
        self.streams.remove(socket_id)

    cdef void _unwatch(self, UdpSocket* udp) noexcept nogil:
        # Closing is not enough: epoll watches the open file, which other processes hold as well.
        if udp.watched:
            udp.watched = False
            epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, udp.fd, NULL)

    # Packets

    def install_key(self, peer_id, slot, key):
        """Puts a key into a slot, and moves the packets that came before it. Raises UnknownPeer."""
        cdef uint64_t now_ns = monotonic_ns()
        opened = self.channel.install_key(peer_id, slot, key, now_ns)
        if opened and self.tun_fd >= 0:
            self.inward.deliver(opened)
            self._serve_device(now_ns)
            self._settle(now_ns)

    def serve(self):
        """Moves packets, without the GIL, until there is something else to do; returns whether wake_fd is readable.

        Else a deadline of the channel has come, there are messages to take, or a signal came.
        """
        deadline_ns = self._next_deadline_ns()
        cdef uint64_t due_ns = UINT64_MAX if deadline_ns is None else deadline_ns
        cdef bint is_woken
        with nogil:
            is_woken = self._serve(due_ns)
        return is_woken

    cdef bint _serve(self, uint64_t deadline_ns) noexcept nogil:
        cdef uint64_t now_ns = monotonic_ns()
        cdef int count
        while True:
            if self.naps:
                take_nap()
            count = epoll_wait(self.epoll_fd, self.ready, EVENTS, 0 if self.naps else timeout_ms(deadline_ns, now_ns))
            if count < 0:
                # A signal, whose handler may be Python.
                return False
            if self._serve_ready(count, monotonic_ns()):
                return True
            now_ns = monotonic_ns()
            # An early packet has a deadline of its own.
            deadline_ns = min(deadline_ns, self.channel.early_deadline_ns())
            if now_ns >= deadline_ns or self.gone_errno != 0 or self.has_ended or self.channel.has_events():
                return False

    cdef bint _serve_ready(self, int count, uint64_t now_ns) noexcept nogil:
        """Moves what waits on these descriptors. True: one of them is wake_fd."""
        cdef bint is_woken = False
        cdef bint device_is_ready = False
        cdef unsigned int packets = 0
        cdef uint64_t what
        cdef uint32_t events
        self.more_waits = False
        for index in range(count):
            what = self.ready[index].data.u64
            events = self.ready[index].events
            if what == WAKE:
                is_woken = True
            elif what & STREAM:
                packets += self._serve_stream(self.streams.find(<uint32_t>what), events, now_ns)
            elif what & CONTROL:
                self._serve_control(self.streams.find(<uint32_t>what), events)
            elif what != DEVICE:
                packets += self._serve_link(self.sockets.find(what), events, now_ns)
            elif events & EPOLLERR:
                self._device_gone(EBADFD)
            else:
                device_is_ready = True
        if packets > 0 or device_is_ready:
            # The answer to what was written (a TCP ACK, an echo reply) is often there already: no wake-up for it.
            packets += self._serve_device(now_ns)
        self._settle(now_ns)
        self.naps = nap_is_due(&self.nap, now_ns, packets, self.more_waits)
        return is_woken

    cdef unsigned int _serve_link(self, UdpSocket* udp, uint32_t events, uint64_t now_ns) noexcept nogil:
        cdef bint is_full = False
        cdef unsigned int packets
        if events & EPOLLERR:
            clear_errors(udp.fd, ERRORS)
        if events & (EPOLLHUP | EPOLLRDHUP):
            # Shut down by somebody who shares it; epoll would report that for ever.
            self._unwatch(udp)
        if self.tun_fd < 0:
            return 0
        packets = self.inward.move(udp, now_ns, &is_full)
        self.more_waits |= is_full
        return packets

    cdef unsigned int _serve_stream(self, TcpSocket* tcp, uint32_t events, uint64_t now_ns) noexcept nogil:
        if events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            flush(tcp)
        return self._move_stream(tcp, now_ns)

    cdef unsigned int _move_stream(self, TcpSocket* tcp, uint64_t now_ns) noexcept nogil:
        cdef bint is_full = False
        cdef unsigned int packets = 0
        self.streams.touch(tcp)
        if self.tun_fd >= 0:
            packets = self.inward.move_stream(tcp, now_ns, &is_full)
            self.more_waits |= is_full
        return packets

    cdef void _serve_control(self, TcpSocket* tcp, uint32_t events) noexcept nogil:
        self.streams.touch(tcp)
        if events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            flush_control(tcp)
        self.inward.reader.relay_control(tcp)

    cdef void _settle(self, uint64_t now_ns) noexcept nogil:
        """Sends what was queued for streams, and brings epoll and the daemon in step with what became of them."""
        cdef TcpSocket* tcp = self.streams.take_touched()
        while tcp != NULL:
            if not tcp.is_full:
                flush(tcp)
            if is_ending(tcp) and self.tun_fd >= 0:
                self._move_stream(tcp, now_ns)
            if tcp.closed and not tcp.told:
                self.has_ended = True
            self._watch_stream(tcp)
            tcp = self.streams.take_touched()

    cdef void _watch_stream(self, TcpSocket* tcp) noexcept nogil:
        cdef bint is_served = self.tun_fd >= 0
        if not self._rewatch(tcp.fd, STREAM | tcp.socket_id, &tcp.watched, stream_events(tcp) * is_served) or not (
            self._rewatch(
                tcp.control_fd, CONTROL | tcp.socket_id, &tcp.control_watched, control_events(tcp) * is_served
            )
        ):
            # It would wait for ever.
            break_stream(tcp)
            if not tcp.told:
                self.has_ended = True

    cdef bint _rewatch(self, int fd, uint64_t what, uint32_t* watched, uint32_t events) noexcept nogil:
        """Has epoll report these events; 0: not even those that it reports unasked. False: it refuses."""
        cdef epoll_event event
        cdef int operation = EPOLL_CTL_DEL if not events else EPOLL_CTL_MOD if watched[0] else EPOLL_CTL_ADD
        if events == watched[0]:
            return True
        event.events = events
        event.data.u64 = what
        watched[0] = events
        return epoll_ctl(self.epoll_fd, operation, fd, &event) == 0

    cdef unsigned int _serve_device(self, uint64_t now_ns) noexcept nogil:
        cdef int count
        if self.tun_fd < 0:
            return 0
        count = self.outward.move(self.sockets, now_ns)
        if count < 0:
            self._device_gone(-count)
            return 0
        self.more_waits |= count == FRAMES
        return count

    cdef void _device_gone(self, int number) noexcept nogil:
        # Nothing is served any more, or the sockets would be reported for ever.
        cdef UdpSocket* udp = self.sockets.first
        cdef TcpSocket* tcp
        while udp != NULL:
            self._unwatch(udp)
            udp = udp.next
        epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, self.tun_fd, NULL)
        close(self.tun_fd)
        self.tun_fd = -1
        tcp = self.streams.first
        while tcp != NULL:
            self._watch_stream(tcp)
            tcp = tcp.next
        self.gone_errno = number

    # Time and events

    def _next_deadline_ns(self):
        return None if self.tun_fd < 0 else self.channel.next_deadline_ns()

    def run_timers(self):
        """Sends the keepalives that are due and reports the peers that expired."""
        cdef uint64_t now_ns = monotonic_ns()
        deadline_ns = self._next_deadline_ns()
        if deadline_ns is None or deadline_ns > now_ns:
            return
        due = self.channel.run_timers(now_ns, self.outward.admits)
        self.outward.send_batch(due.keepalives, self.sockets, now_ns)
        self._settle(now_ns)
        self.messages += map(expiry_report, due.expired)

    def take_messages(self):
        """What the daemon is to be told, in order."""
        if self.has_ended:
            self.has_ended = False
            self._end_streams()
        taken = [*map(event_report, self.channel.take_events()), *self.messages]
        self.messages.clear()
        if self.gone_errno != 0:
            taken.append(DeviceClosed(errno=self.gone_errno))
            self.gone_errno = 0
        return taken

    def _end_streams(self):
        cdef TcpSocket* tcp = self.streams.first
        while tcp != NULL:
            if tcp.closed and not tcp.told:
                tcp.told = True
                self.transports[tcp.socket_id].closed = DelReason(tcp.closed)
                peer = self.channel.peer_of_stream(tcp.socket_id)
                if peer is not None:
                    self.channel.remove_peer(peer.peer_id)
                self.messages.append(TransportClosed(tcp.socket_id, tcp.closed))
            tcp = tcp.next


cdef uint64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * NS_PER_S + now.tv_nsec


cdef int timeout_ms(uint64_t deadline_ns, uint64_t now_ns) noexcept nogil:
    """For epoll: rounded up, so that the deadline has come when it ends; negative: for ever."""
    if deadline_ns == UINT64_MAX:
        return -1
    if deadline_ns <= now_ns:
        return 0
    return min((deadline_ns - now_ns + NS_PER_MS - 1) // NS_PER_MS, INT_MAX)
