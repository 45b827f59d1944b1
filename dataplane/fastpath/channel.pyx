"""The data channel of one device: all its peers, both directions, and its timers.

Knows how the parts work together; it is the front that a worker and the packet path talk to. Must not know sockets, the
TUN or the clock: packets and times (CLOCK_MONOTONIC, ns) come in, packets and events go out. Same names and results as
dataplane/datachannel/channel.py; the packet path uses the functions of channel.pxd, which need no GIL.

Nothing raises on packet data. What is wrong with a packet becomes a drop counter, in the row of the peer once that is
known, else in the device's.

Pointers to peers and keys are taken and followed without the GIL; they stay true since peers and keys go only by
commands and timers, which the packet path waits for.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from dataplane.fastpath.aead cimport OVERHEAD, SPARE, DataKey
from dataplane.fastpath.early_packets cimport EarlyPacket, EarlyPackets
from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress, pack_endpoint, pack_local
from dataplane.fastpath.events cimport Events
from dataplane.fastpath.mss cimport pack_limits
from dataplane.fastpath.peer cimport Peer, PeerState, packets_delivered
from dataplane.fastpath.peer_table cimport PeerTable
from dataplane.fastpath.receive cimport RECEIVED_PACKET, Received, Receiver
from dataplane.fastpath.row cimport Row, count_drops
from dataplane.fastpath.span cimport Span, span_of
from dataplane.fastpath.transmit cimport Transmitter

from dataplane.datachannel.deadlines import Deadlines
from dataplane.datachannel.mss import MssLimits as _MssLimits
from dataplane.datachannel.mss import limits_of
from dataplane.datachannel.outcomes import Timers

cdef object NO_LIMITS = _MssLimits()

# cimport gives a class no name in Python; this is where a worker looks for it.
globals()["Peer"] = Peer


cdef class DataChannel:
    """All peers of a device. device_row (a writable buffer of 64 words) counts what is dropped before a peer is known.

    Raises ValueError for a device_row of another size.
    """

    def __cinit__(self, mode, device_row):
        self.device = Row(device_row)
        self.peers = PeerTable(mode)
        self.early = EarlyPackets()
        self.events = Events()
        self.receiver = Receiver(self.peers, self.early, self.device, self.events)
        self.transmitter = Transmitter(self.peers, self.device, self.events)
        self.deadlines = Deadlines()
        self.mss = NO_LIMITS

    # Without the GIL

    cdef Received receive(self, uint32_t socket_id, Span datagram, const Endpoint* source, const LocalAddress* local,
                          uint64_t now_ns, Span* packet, PeerState** peer) noexcept nogil:
        return self.receiver.receive(socket_id, datagram, source, local, now_ns, packet, peer)

    cdef PeerState* route(self, Span packet) noexcept nogil:
        return self.transmitter.route(packet)

    cdef PeerState* relay_target(self, Span packet) noexcept nogil:
        return self.transmitter.relay_target(packet)

    cdef PeerState* everyone(self) noexcept nogil:
        return &self.peers.everyone

    cdef PeerState* first_peer(self) noexcept nogil:
        return self.peers.first

    cdef size_t seal_packet(self, PeerState* peer, Span room, uint64_t now_ns) noexcept nogil:
        return self.transmitter.seal_packet(peer, room, now_ns)

    cdef void refuse_packet(self, PeerState* peer, size_t size) noexcept nogil:
        self.transmitter.refuse_packet(peer, size)

    cpdef void drop_on_device(self, int reason) noexcept nogil:
        """Counts a packet that was dropped before a peer was known."""
        count_drops(self.device.words, reason, 1)

    cdef bint has_events(self) noexcept nogil:
        return self.events.has_events()

    cdef uint64_t early_deadline_ns(self) noexcept nogil:
        return self.early.earliest_ns()

    # Configuration

    def set_switches(self, *, bint skip_source_check, bint client_to_client):
        """Whether inner sources are not checked, and packets between peers stay inside; at first neither."""
        self.receiver.skip_source_check = skip_source_check
        self.client_to_client = client_to_client

    def set_float_policy(self, policy):
        """Sets what happens to peers that send from another endpoint than their own; at first ALLOW."""
        self.receiver.float_policy = policy

    def set_route(self, prefix, target):
        """Has a prefix lead to the peer with this peer_id or to a RouteTarget; see PeerTable. Raises ValueError."""
        self.peers.set_route(prefix, target)

    def peer(self, peer_id):
        """The peer with this peer_id. Raises UnknownPeer."""
        return self.peers.get(peer_id)

    def add_peer(self, Peer peer not None, now_ns):
        """Adds a peer and starts its keepalive.

        Raises PeerExists: in MP mode if its peer_id or a VPN address of it is in use, in P2P mode if there is any peer.
        """
        self.events.reserve(len(self.peers.by_id) + 1)
        self.peers.add(peer)
        peer.state.mss = pack_limits(limits_of(peer.own_mss, self.mss))
        peer.keepalive.restart(now_ns)
        self._arm(peer)

    def remove_peer(self, peer_id):
        """Removes a peer; its row changes no more. Raises UnknownPeer."""
        cdef Peer peer = self.peers.remove(peer_id)
        self.deadlines.disarm(peer_id)
        self.early.forget(&peer.state)
        self.events.collect()
        return peer

    def set_keepalive(self, peer_id, interval_s, timeout_s, now_ns):
        """Sets the keepalive in seconds, 0 for none, and restarts both clocks. Raises UnknownPeer."""
        cdef Peer peer = self.peers.get(peer_id)
        peer.keepalive.interval_s = interval_s
        peer.keepalive.timeout_s = timeout_s
        peer.keepalive.restart(now_ns)
        self._arm(peer)

    def set_remote(self, peer_id, remote, local, socket_id=None):
        """Sets where packets to a peer go, from which local address (None: any) and by which socket (None: as before).

        Raises UnknownPeer, ValueError.
        """
        cdef Peer peer = self.peers.get(peer_id)
        cdef Endpoint endpoint = pack_endpoint(remote)
        cdef LocalAddress address = pack_local(local)
        self.peers.move(&peer.state, peer.state.socket_id if socket_id is None else socket_id, &endpoint)
        peer.state.local = address

    def peer_of_stream(self, uint32_t socket_id):
        """The peer whose packets travel in this socket's stream, None if there is none."""
        cdef Endpoint stream = pack_endpoint(None)
        cdef PeerState* peer = self.peers.at_endpoint(socket_id, &stream)
        return None if peer == NULL else <Peer>peer.peer

    def set_vpn_addresses(self, peer_id, vpn_ipv4, vpn_ipv6):
        """Sets the packed VPN addresses of a peer. Raises UnknownPeer, or PeerExists if another peer has one."""
        self.peers.set_vpn_addresses(self.peers.get(peer_id), vpn_ipv4, vpn_ipv6)

    def set_tx_id(self, peer_id, tx_id):
        """Sets the peer-id on packets to a peer, 0..0xFFFFFE; None: its own. Raises UnknownPeer."""
        self.peers.get(peer_id).tx_id = tx_id

    def set_device_mss(self, limits):
        """Sets the limits of the MSS option that hold for peers without their own."""
        cdef Peer peer
        self.mss = limits
        for peer in self.peers.by_id.values():
            peer.state.mss = pack_limits(limits_of(peer.own_mss, limits))

    def set_mss(self, peer_id, own):
        """Sets the limits of the MSS option that a peer has of its own. Raises UnknownPeer."""
        cdef Peer peer = self.peers.get(peer_id)
        peer.state.mss = pack_limits(limits_of(own, self.mss))
        peer.own_mss = own

    def install_key(self, peer_id, slot, DataKey key, uint64_t now_ns):
        """Puts a key into a slot, in place of the one there. Raises UnknownPeer.

        Gives out the IP packets that came before their key, as open_batch() does.
        """
        cdef Peer peer = self.peers.get(peer_id)
        peer.keys.install(slot, key)
        return self._open_early(peer, key, now_ns)

    def swap_keys(self, peer_id):
        """Exchanges the slots of a peer, empty ones too. Raises UnknownPeer."""
        self.peers.get(peer_id).keys.swap()

    def delete_key(self, peer_id, slot):
        """Empties a slot, which may be empty already. Raises UnknownPeer."""
        self.peers.get(peer_id).keys.delete(slot)

    def let_key_linger(self, peer_id, until_ns):
        """Empties the secondary slot; its key opens until then what is on its way. See KeySlots. Raises UnknownPeer."""
        cdef Peer peer = self.peers.get(peer_id)
        peer.keys.let_linger(until_ns)
        self._arm(peer)

    # Packets

    def open_batch(self, uint32_t socket_id, datagrams, uint64_t now_ns):
        """Takes what came on a socket; the IP packets to write to the device, in order, with the peers they are from.

        For each of them the caller owes delivered(), or peer.drop(RX_TUN_WRITE_FAILED).
        """
        cdef list opened = []
        cdef bytearray datagram
        cdef Endpoint endpoint
        cdef LocalAddress address
        cdef PeerState* peer
        cdef Span packet
        for packed, source, local in datagrams:
            datagram = bytearray(packed)
            endpoint = pack_endpoint(source)
            address = pack_local(local)
            if self.receive(
                socket_id, span_of_bytearray(datagram), &endpoint, &address, now_ns, &packet, &peer
            ) == RECEIVED_PACKET:
                opened.append((<Peer>peer.peer, bytes_of(packet)))
        return opened

    def delivered(self, Peer peer not None, uint64_t length):
        """Counts an opened packet of `length` bytes that the device took."""
        packets_delivered(&peer.state, 1, length)

    def seal_batch(self, packets, uint64_t now_ns, admits=None):
        """Takes IP packets of the device; the DATA_V2 packets to send, in order, each to its peer's socket and remote.

        admits: asked with peer and sealed size before a packet-id is spent. What is given out is counted as sent: if a
        socket refuses one, the caller owes peer.drop(TX_QUEUE_FULL or TX_SEND_FAILED).
        """
        cdef list sealed = []
        cdef bytearray copy
        for packet in packets:
            copy = bytearray(packet)
            self._seal_for(self.route(span_of_bytearray(copy)), NULL, packet, now_ns, sealed, admits)
        return sealed

    def relay(self, opened, uint64_t now_ns, admits=None):
        """Takes what was opened; what of it is for the device, and the DATA_V2 packets to other peers, both in order.

        A packet that goes to a peer alone is counted as delivered. The rest as for open_batch() and seal_batch().
        """
        cdef list for_device = []
        cdef list sealed = []
        cdef bytearray copy
        cdef PeerState* target
        cdef Peer sender
        for sender, packet in opened:
            copy = bytearray(packet)
            target = self.relay_target(span_of_bytearray(copy))
            self._seal_for(target, &sender.state, packet, now_ns, sealed, admits)
            if target == NULL or target == self.everyone():
                for_device.append((sender, packet))
            else:
                packets_delivered(&sender.state, 1, len(packet))
        return for_device, sealed

    # Time and events

    def run_timers(self, uint64_t now_ns, admits=None):
        """Does what is due by now. A keepalive that is not admitted is left out."""
        cdef Peer peer
        due = Timers(keepalives=[], expired=[])
        self.early.drop_due(now_ns)
        for peer_id in self.deadlines.pop_due(now_ns):
            peer = self.peers.get(peer_id)
            expire_at_ns = peer.expire_at_ns()
            if expire_at_ns is not None and expire_at_ns <= now_ns:
                due.expired.append(self.remove_peer(peer_id))
                continue
            peer.keys.end_linger(now_ns)
            send_at_ns = peer.send_at_ns()
            if send_at_ns is not None and send_at_ns <= now_ns:
                peer.keepalive.restart_sending(now_ns)
                keepalive = self.transmitter.seal_keepalive(peer, now_ns, admits)
                if keepalive is not None:
                    due.keepalives.append((peer, keepalive))
            self._arm(peer)
        return due

    def next_deadline_ns(self):
        """When to call run_timers next; may be early, is never late. None: not before something else happens."""
        cdef uint64_t early_ns = self.early.earliest_ns()
        earliest_ns = self.deadlines.earliest_ns()
        if early_ns == UINT64_MAX:
            return earliest_ns
        return early_ns if earliest_ns is None else min(earliest_ns, early_ns)

    def take_events(self):
        """What happened since the last call, in order. What happened to a peer again is told once."""
        return self.events.take()

    cdef int _seal_for(
        self, PeerState* target, PeerState* sender, bytes packet, uint64_t now_ns, list sealed, object admits
    ) except -1:
        """Adds the DATA_V2 packets to a target: a peer, everyone() but the sender, or NULL for none."""
        cdef PeerState* peer
        if target != self.everyone():
            return self._seal_to(target, packet, now_ns, sealed, admits) if target != NULL else 0
        peer = self.first_peer()
        while peer != NULL:
            if peer != sender:
                self._seal_to(peer, packet, now_ns, sealed, admits)
            peer = peer.next
        return 0

    cdef int _seal_to(self, PeerState* peer, bytes packet, uint64_t now_ns, list sealed, object admits) except -1:
        cdef bytearray room = bytearray(OVERHEAD) + packet + bytes(SPARE)
        cdef size_t size
        if admits is not None and not admits(<Peer>peer.peer, OVERHEAD + len(packet)):
            self.refuse_packet(peer, len(packet))
            return 0
        size = self.seal_packet(peer, span_of_bytearray(room), now_ns)
        if size > 0:
            sealed.append((<Peer>peer.peer, bytes(room[:size])))
        return 0

    def _arm(self, Peer peer):
        for deadline_ns in (peer.send_at_ns(), peer.expire_at_ns(), peer.keys.linger_end_ns()):
            if deadline_ns is not None:
                self.deadlines.arm(peer.peer_id, deadline_ns)

    def _open_early(self, Peer peer, DataKey key, uint64_t now_ns):
        cdef list opened = []
        cdef EarlyPacket* early = self.early.take(&peer.state, key.state.key_id)
        cdef EarlyPacket* next_one
        cdef Span packet
        while early != NULL:
            next_one = early.next
            if self.receiver.open(
                &peer.state, &key.state, early.socket_id, early.datagram, &early.source, &early.local, now_ns, &packet
            ) == RECEIVED_PACKET:
                opened.append((peer, bytes_of(packet)))
            free(early)
            early = next_one
        return opened


cdef Span span_of_bytearray(bytearray data):
    return span_of(<uint8_t*><char*>data, len(data))


cdef bytes bytes_of(Span data):
    return (<char*>data.at)[:data.size]
