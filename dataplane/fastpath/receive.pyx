"""Link to device: authenticates DATA_V2 packets and gives out the IP packets inside.

Knows the order of the checks, which is the kernel's (drivers/net/ovpn/io.c), and who is charged for a drop: the peer
once it is known, else the device. Must not know sockets, the TUN or the clock. The steps and their numbers are those of
dataplane/datachannel/receive.py. A packet is decrypted where it stands.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from dataplane.fastpath.aead cimport (
    OVERHEAD, KeyState, accept_packet, open_packet, packet_id_of, refusal_of, take_warning,
)
from dataplane.fastpath.early_packets cimport EarlyPackets
from dataplane.fastpath.endpoint cimport Endpoint, LocalAddress, same_endpoint
from dataplane.fastpath.events cimport FLOAT_ASKED, FLOATED, Events, nearness_of
from dataplane.fastpath.ip_header cimport IpAddress, source_of
from dataplane.fastpath.key_slots cimport find_key, is_newest
from dataplane.fastpath.mss cimport clamp_mss
from dataplane.fastpath.peer cimport PeerState, packets_dropped
from dataplane.fastpath.peer_table cimport PeerTable
from dataplane.fastpath.replay_window cimport ACCEPTED
from dataplane.fastpath.row cimport LAST_RX_NS, LINK_RX_BYTES, Row, count_drops, count_traffic
from dataplane.fastpath.span cimport Span, equal, get8, get32, span_of

from dataplane.datachannel import outcomes, wire
from dataplane.vocabulary import PEER_ID_UNDEF as _PEER_ID_UNDEF
from dataplane.vocabulary import DropReason, FloatPolicy

cdef uint8_t OPCODE_DATA_V2 = wire.OPCODE_DATA_V2
cdef uint8_t KEY_ID_MASK = wire.KEY_ID_MAX
cdef size_t DATAGRAM_MAX = wire.DATAGRAM_MAX
cdef uint32_t PEER_ID_UNDEF = _PEER_ID_UNDEF
cdef bytes KEEPALIVE_BYTES = wire.KEEPALIVE
cdef Span KEEPALIVE = span_of(<uint8_t*><char*>KEEPALIVE_BYTES, len(KEEPALIVE_BYTES))

cdef int FLOAT_ALLOW = FloatPolicy.ALLOW
cdef int FLOAT_ASK = FloatPolicy.ASK
cdef uint64_t ASK_INTERVAL_NS = outcomes.ASK_INTERVAL_NS

cdef int TRUNCATED = DropReason.RX_TRUNCATED
cdef int NOT_DATA = DropReason.RX_NOT_DATA
cdef int OVERSIZED = DropReason.RX_OVERSIZED
cdef int UNKNOWN_PEER = DropReason.RX_UNKNOWN_PEER
cdef int DECRYPT_FAILED = DropReason.RX_DECRYPT_FAILED
cdef int FLOAT_REFUSED = DropReason.RX_FLOAT_REFUSED
cdef int NOT_IP = DropReason.RX_NOT_IP
cdef int SOURCE_CHECK = DropReason.RX_SOURCE_CHECK


cdef class Receiver:
    """The receiving half of a device's data channel."""

    def __cinit__(self, PeerTable peers not None, EarlyPackets early not None, Row device not None,
                  Events events not None):
        self.peers = peers
        self.early = early
        self.device = device
        self.events = events
        self.float_policy = FLOAT_ALLOW

    cdef Received receive(self, uint32_t socket_id, Span datagram, const Endpoint* source, const LocalAddress* local,
                          uint64_t now_ns, Span* packet, PeerState** peer) noexcept nogil:
        cdef PeerState* sender = self._find_peer(socket_id, datagram, source)
        cdef KeyState* key
        if sender == NULL:
            return RECEIVED_NOTHING
        count_traffic(sender.row, LINK_RX_BYTES, 1, datagram.size)
        key = find_key(sender.keys, get8(datagram, 0) & KEY_ID_MASK)
        if key == NULL:
            self.early.keep(sender, socket_id, datagram, source, local, now_ns)
            return RECEIVED_NOTHING
        peer[0] = sender
        return self.open(sender, key, socket_id, datagram, source, local, now_ns, packet)

    cdef Received open(self, PeerState* peer, KeyState* key, uint32_t socket_id, Span datagram, const Endpoint* source,
                       const LocalAddress* local, uint64_t now_ns, Span* packet) noexcept nogil:
        cdef uint64_t packet_id
        cdef Span payload
        cdef int refusal = refusal_of(key, datagram)
        cdef uint8_t limit
        if refusal != ACCEPTED:
            packets_dropped(peer, refusal, 1)
            return RECEIVED_NOTHING
        if not open_packet(key, datagram, &payload):
            packets_dropped(peer, DECRYPT_FAILED, 1)
            limit = take_warning(key)
            if limit:
                self.events.note(peer, nearness_of(key.key_id, limit))
            return RECEIVED_NOTHING
        packet_id = packet_id_of(key, datagram)
        refusal = accept_packet(key, packet_id, now_ns)
        if refusal != ACCEPTED:
            packets_dropped(peer, refusal, 1)
            return RECEIVED_NOTHING
        peer.row[LAST_RX_NS] = now_ns
        if not self._learn_endpoint(peer, key, packet_id, socket_id, source, local, now_ns):
            packets_dropped(peer, FLOAT_REFUSED, 1)
            return RECEIVED_NOTHING
        if equal(payload, KEEPALIVE) or not self._check_inner(peer, payload):
            return RECEIVED_NOTHING
        clamp_mss(payload, peer.mss)
        packet[0] = payload
        return RECEIVED_PACKET

    cdef PeerState* _find_peer(self, uint32_t socket_id, Span datagram, const Endpoint* source) noexcept nogil:
        cdef PeerState* peer
        cdef uint32_t peer_id
        cdef int reason
        if datagram.size < OVERHEAD:
            reason = TRUNCATED
        elif get8(datagram, 0) >> 3 != OPCODE_DATA_V2:
            reason = NOT_DATA
        elif datagram.size > DATAGRAM_MAX:
            reason = OVERSIZED
        else:
            peer_id = get32(datagram, 0) & PEER_ID_UNDEF
            if peer_id == PEER_ID_UNDEF or source.size == 0:
                peer = self.peers.at_endpoint(socket_id, source)
            else:
                peer = self.peers.with_id(peer_id)
            if peer != NULL:
                return peer
            reason = UNKNOWN_PEER
        count_drops(self.device.words, reason, 1)
        return NULL

    cdef bint _learn_endpoint(self, PeerState* peer, KeyState* key, uint64_t packet_id, uint32_t socket_id,
                              const Endpoint* source, const LocalAddress* local, uint64_t now_ns) noexcept nogil:
        """Whether an authentic packet from there is taken."""
        if socket_id != peer.socket_id or not same_endpoint(source, &peer.remote):
            return self._admits_from_elsewhere(
                peer, is_newest(peer.keys, key, packet_id), socket_id, source, local, now_ns
            )
        if local.size:
            peer.local = local[0]
        return True

    cdef bint _admits_from_elsewhere(self, PeerState* peer, bint newest, uint32_t socket_id, const Endpoint* source,
                                     const LocalAddress* local, uint64_t now_ns) noexcept nogil:
        """Whether an authentic packet from there is taken. The newest takes the peer there, or asks for that."""
        cdef PeerState* holder
        cdef bint may_float
        if source.size == 0 or peer.remote.size == 0:
            return True
        # OpenVPN, too, gives no client the address of another.
        holder = self.peers.at_endpoint(socket_id, source)
        may_float = newest and (holder == NULL or holder == peer)
        if self.float_policy != FLOAT_ALLOW:
            if may_float and self.float_policy == FLOAT_ASK and now_ns >= peer.asks_again_ns:
                peer.asked_socket_id = socket_id
                peer.asked_remote = source[0]
                peer.asks_again_ns = now_ns + ASK_INTERVAL_NS
                self.events.note(peer, FLOAT_ASKED)
            return False
        if may_float:
            self.peers.move(peer, socket_id, source)
            if local.size:
                peer.local = local[0]
            self.events.note(peer, FLOATED)
        return may_float or not newest

    cdef bint _check_inner(self, PeerState* peer, Span payload) noexcept nogil:
        cdef IpAddress source = source_of(payload)
        if not source.size:
            packets_dropped(peer, NOT_IP, 1)
            return False
        if self.peers.behind(source) != peer and not self.skip_source_check:
            packets_dropped(peer, SOURCE_CHECK, 1)
            return False
        return True
