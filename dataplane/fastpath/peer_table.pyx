"""The peers of a device, by peer_id, by endpoint and by the addresses behind them.

Knows how a peer is found and that no two claim the same. Must not know packets, keys or time. Same results as
dataplane/datachannel/peer_table.py.

In MP mode a peer is behind its VPN addresses and its networks; in P2P mode the one peer is behind every address. So
both modes send, and check sources, by the same look-up. In MP mode a prefix may also lead to no single peer: see
vocabulary.RouteTarget.
"""

from libc.stdint cimport uint32_t, uint64_t

from dataplane.fastpath.endpoint cimport ENDPOINT_KEY_WORDS, Endpoint, endpoint_key, pack_endpoint
from dataplane.fastpath.hash_map cimport (
    find_entry, free_map, put_entry, remove_entry, reserve_entries, set_up_map,
)
from dataplane.fastpath.ip_header cimport IpAddress, pack_address
from dataplane.fastpath.peer cimport Peer, PeerState
from dataplane.fastpath.routing cimport RoutingTable

from dataplane.datachannel.outcomes import PeerExists, UnknownPeer
from dataplane.vocabulary import Mode, RouteTarget

cdef object EVERYWHERE = ((bytes(4), 0), (bytes(16), 0))


cdef class PeerTable:
    """All peers of a device. by_id is for reading; the methods keep all in step."""

    def __cinit__(self, mode):
        self.mode = mode
        self.by_id = {}
        self.networks = {}  # by peer_id, the prefixes that set_route() gave it
        self.routes = RoutingTable()
        set_up_map(&self.ids, 1)
        set_up_map(&self.endpoints, ENDPOINT_KEY_WORDS)

    def __dealloc__(self):
        free_map(&self.ids)
        free_map(&self.endpoints)

    cdef PeerState* with_id(self, uint32_t peer_id) noexcept nogil:
        cdef uint64_t key = peer_id
        return <PeerState*>find_entry(&self.ids, &key)

    cdef PeerState* at_endpoint(self, uint32_t socket_id, const Endpoint* remote) noexcept nogil:
        cdef uint64_t key[ENDPOINT_KEY_WORDS]
        endpoint_key(key, socket_id, remote)
        return <PeerState*>find_entry(&self.endpoints, key)

    cdef PeerState* behind(self, IpAddress address) noexcept nogil:
        return <PeerState*>self.routes.lookup_address(address)

    cdef void move(self, PeerState* peer, uint32_t socket_id, const Endpoint* remote) noexcept nogil:
        self._leave_endpoint(peer)
        peer.socket_id = socket_id
        peer.remote = remote[0]
        self._enter_endpoint(peer)

    cpdef Peer get(self, peer_id):
        """The peer with this peer_id. Raises UnknownPeer."""
        peer = self.by_id.get(peer_id)
        if peer is None:
            raise UnknownPeer(f"no peer {peer_id}")
        return peer

    cpdef add(self, Peer peer):
        """Adds a peer. Raises PeerExists, MemoryError."""
        cdef uint64_t key = peer.state.peer_id
        if peer.peer_id in self.by_id:
            raise PeerExists(f"peer {peer.peer_id} is there already")
        routes = self._routes_of(peer.vpn_ipv4, peer.vpn_ipv6)
        self._require_free(routes, peer)
        # Room for all, so that a peer can always enter its new endpoint on the packet path.
        reserve_entries(&self.ids, len(self.by_id) + 1)
        reserve_entries(&self.endpoints, len(self.by_id) + 1)
        self.by_id[peer.peer_id] = peer
        put_entry(&self.ids, &key, &peer.state)
        self._enter_endpoint(&peer.state)
        self._enter_list(&peer.state)
        self.networks[peer.peer_id] = set()
        for route in routes:
            self._give_address(route, &peer.state)

    cpdef Peer remove(self, peer_id):
        """Removes a peer. Raises UnknownPeer."""
        cdef Peer peer = self.get(peer_id)
        cdef uint64_t key = peer.state.peer_id
        del self.by_id[peer_id]
        remove_entry(&self.ids, &key)
        self._leave_endpoint(&peer.state)
        self._leave_list(&peer.state)
        for route in (*self._routes_of(peer.vpn_ipv4, peer.vpn_ipv6), *self.networks.pop(peer_id)):
            self.routes.remove_route(route)
        return peer

    cpdef set_vpn_addresses(self, Peer peer, vpn_ipv4, vpn_ipv6):
        """Gives a peer other VPN addresses. Raises PeerExists, MemoryError."""
        routes = self._routes_of(vpn_ipv4, vpn_ipv6)
        self._require_free(routes, peer)
        for route in self._routes_of(peer.vpn_ipv4, peer.vpn_ipv6):
            self.routes.remove_route(route)
        for route in routes:
            self._give_address(route, &peer.state)
        peer.vpn_ipv4 = vpn_ipv4
        peer.vpn_ipv6 = vpn_ipv6

    cpdef set_route(self, prefix, target):
        """Has a prefix lead to the peer with this peer_id or to a RouteTarget, in place of where it led.

        The address of a prefix has no host bits. A peer that there is not counts as NOBODY: it has just gone. A VPN
        address stays with its peer. Raises ValueError for what is no prefix, or in P2P mode; MemoryError.
        """
        cdef PeerState* holder
        cdef Peer new_holder
        if self.mode is Mode.P2P:
            raise ValueError("a P2P device has no routes: its one peer is behind every address")
        holder = <PeerState*>self.routes.get_route(prefix)
        if self._is_peer(holder) and prefix not in self.networks[holder.peer_id]:
            return
        if holder != NULL:
            self._take_route(prefix, holder)
        new_holder = self.by_id.get(target)
        if new_holder is not None:
            self.routes.put_route(prefix, &new_holder.state)
            self.networks[target].add(prefix)
        elif target == RouteTarget.HOST:
            self.routes.put_route(prefix, &self.host)
        elif target == RouteTarget.EVERYONE:
            self.routes.put_route(prefix, &self.everyone)

    cdef bint _is_peer(self, PeerState* holder) noexcept:
        return holder != NULL and holder != &self.host and holder != &self.everyone

    cdef int _give_address(self, prefix, PeerState* peer) except -1:
        """Has a VPN address lead to its peer, whatever set_route() said of it."""
        cdef PeerState* holder = <PeerState*>self.routes.get_route(prefix)
        if holder != NULL:
            self._take_route(prefix, holder)
        self.routes.put_route(prefix, peer)
        return 0

    cdef int _take_route(self, prefix, PeerState* holder) except -1:
        self.routes.remove_route(prefix)
        if self._is_peer(holder):
            self.networks[holder.peer_id].discard(prefix)
        return 0

    def _routes_of(self, vpn_ipv4, vpn_ipv6):
        if self.mode is Mode.P2P:
            return EVERYWHERE
        return [(address, len(address) * 8) for address in (vpn_ipv4, vpn_ipv6) if address is not None]

    def _require_free(self, routes, Peer peer):
        cdef PeerState* holder
        for route in routes:
            holder = <PeerState*>self.routes.get_route(route)
            if not self._is_peer(holder) or holder == &peer.state:
                continue
            if route not in self.networks[holder.peer_id]:
                raise PeerExists(f"peer {holder.peer_id} is in the place of peer {peer.peer_id}")

    cdef void _enter_endpoint(self, PeerState* peer) noexcept nogil:
        cdef uint64_t key[ENDPOINT_KEY_WORDS]
        endpoint_key(key, peer.socket_id, &peer.remote)
        put_entry(&self.endpoints, key, peer)

    cdef void _leave_endpoint(self, PeerState* peer) noexcept nogil:
        # If two peers are at one endpoint, the one that came last has the place, and keeps it.
        cdef uint64_t key[ENDPOINT_KEY_WORDS]
        endpoint_key(key, peer.socket_id, &peer.remote)
        if find_entry(&self.endpoints, key) == peer:
            remove_entry(&self.endpoints, key)

    cdef void _enter_list(self, PeerState* peer) noexcept:
        peer.next = NULL
        peer.previous = self.last
        if self.last == NULL:
            self.first = peer
        else:
            self.last.next = peer
        self.last = peer

    cdef void _leave_list(self, PeerState* peer) noexcept:
        if peer.previous == NULL:
            self.first = peer.next
        else:
            peer.previous.next = peer.next
        if peer.next == NULL:
            self.last = peer.previous
        else:
            peer.next.previous = peer.previous


# For tests.

def peer_at(PeerTable table not None, uint32_t socket_id, remote):
    """The peer at this endpoint, or None."""
    cdef Endpoint endpoint = pack_endpoint(remote)
    return peer_of(table.at_endpoint(socket_id, &endpoint))


def peer_behind(PeerTable table not None, bytes address not None):
    """The peer behind this packed address, its RouteTarget, or None."""
    cdef PeerState* target = table.behind(pack_address(address))
    if target == &table.host:
        return RouteTarget.HOST
    return RouteTarget.EVERYONE if target == &table.everyone else peer_of(target)


def move(PeerTable table not None, Peer peer not None, uint32_t socket_id, remote):
    """Gives a peer another endpoint."""
    cdef Endpoint endpoint = pack_endpoint(remote)
    table.move(&peer.state, socket_id, &endpoint)


cdef object peer_of(PeerState* peer):
    return None if peer == NULL else <Peer>peer.peer
