"""A peer of a device: who it is, where it is, its keys, its keepalive and its counters.

Knows state only. Must not know the tables it stands in (peer_table.pyx) nor what is done with it; whoever changes
anything but the counters goes through DataChannel, which keeps its tables in step.
"""

from dataplane.fastpath.endpoint cimport pack_endpoint, pack_local, unpack_endpoint, unpack_local
from dataplane.fastpath.key_slots cimport KeySlots
from dataplane.fastpath.row cimport LAST_RX_NS, LAST_TX_NS, Row

from dataplane.datachannel.keepalive import Keepalive
from dataplane.vocabulary import DropReason


cdef class Peer:
    """A peer. Two with the same peer_id, one after the other, differ by uid.

    remote is None if its packets travel in a stream. local is the packed address of this host that the peer talks to
    (None: any), vpn_ipv4 and vpn_ipv6 are its packed addresses inside the tunnel. row is its statistics row, a writable
    buffer of 64 words (vocabulary.Column). tx_id is the peer-id on packets to it, which its end may know by another
    number (None: peer_id). own_mss are its own limits of the MSS option (None: the device's).
    Raises ValueError for an address or a row that is none.
    """

    def __cinit__(
        self, *, peer_id, uid, socket_id, remote, row, local=None, vpn_ipv4=None, vpn_ipv6=None, keepalive=None,
        tx_id=None
    ):
        self.uid = uid
        self.row = row
        self.vpn_ipv4 = vpn_ipv4
        self.vpn_ipv6 = vpn_ipv6
        self.keepalive = Keepalive() if keepalive is None else keepalive
        self.own_mss = (None, None)
        self.words = Row(row)
        self.keys = KeySlots(self.words)
        self.state.peer_id = peer_id
        self.tx_id = tx_id
        self.state.socket_id = socket_id
        self.state.remote = pack_endpoint(remote)
        self.state.local = pack_local(local)
        self.state.keys = &self.keys.slots
        self.state.row = self.words.words
        self.state.peer = <void*>self

    def __repr__(self):
        fields = ("peer_id", "uid", "socket_id", "remote", "local", "vpn_ipv4", "vpn_ipv6", "keepalive")
        return f"Peer({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"

    @property
    def peer_id(self):
        """0..0xFFFFFE."""
        return self.state.peer_id

    @property
    def tx_id(self):
        """0..0xFFFFFE; given None, it is peer_id."""
        return self.state.tx_id

    @tx_id.setter
    def tx_id(self, tx_id):
        self.state.tx_id = self.state.peer_id if tx_id is None else tx_id

    @property
    def socket_id(self):
        """The socket it was heard on last."""
        return self.state.socket_id

    @property
    def remote(self):
        """Where it is, as the tuples of the socket module; None: at the other end of its stream."""
        return unpack_endpoint(&self.state.remote)

    @property
    def local(self):
        """The packed address of this host that it talks to; None: any."""
        return unpack_local(&self.state.local)

    @property
    def asked(self):
        """The (socket_id, remote) to which it last asked to float; None: it never did."""
        remote = unpack_endpoint(&self.state.asked_remote)
        return None if remote is None else (self.state.asked_socket_id, remote)

    def drop(self, reason):
        """Counts a dropped packet."""
        packets_dropped(&self.state, DropReason(reason), 1)

    def send_at_ns(self):
        """When its next keepalive is due; None for never."""
        return self.keepalive.send_at_ns(self.state.row[LAST_TX_NS])

    def expire_at_ns(self):
        """When it expires if nothing more comes from it; None for never."""
        return self.keepalive.expire_at_ns(self.state.row[LAST_RX_NS])
