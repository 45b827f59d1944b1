# The peers of a device, by peer_id, by endpoint and by the addresses behind them; twin of
# dataplane/datachannel/peer_table.py.

cimport cython
from libc.stdint cimport uint32_t

from dataplane.fastpath.endpoint cimport Endpoint
from dataplane.fastpath.hash_map cimport HashMap
from dataplane.fastpath.ip_header cimport IpAddress
from dataplane.fastpath.peer cimport Peer, PeerState
from dataplane.fastpath.routing cimport RoutingTable


@cython.final
cdef class PeerTable:
    # Holds the references to the peers that the pointers in the other tables point into.
    cdef readonly dict by_id
    cdef object mode
    cdef HashMap ids
    cdef HashMap endpoints
    cdef RoutingTable routes
    # All peers, in the order in which they came; see PeerState.next.
    cdef PeerState* first
    cdef PeerState* last
    # Where prefixes lead that lead to no single peer (RouteTarget): only the addresses of these two mean something.
    cdef PeerState host
    cdef PeerState everyone
    cdef dict networks
    # The peer with this peer_id, at this endpoint, behind this address (size 4 or 16), which may also be &host or
    # &everyone; NULL: none.
    cdef PeerState* with_id(self, uint32_t peer_id) noexcept nogil
    cdef PeerState* at_endpoint(self, uint32_t socket_id, const Endpoint* remote) noexcept nogil
    cdef PeerState* behind(self, IpAddress address) noexcept nogil
    # Gives a peer another endpoint.
    cdef void move(self, PeerState* peer, uint32_t socket_id, const Endpoint* remote) noexcept nogil
    cpdef Peer get(self, peer_id)
    cpdef add(self, Peer peer)
    cpdef Peer remove(self, peer_id)
    cpdef set_vpn_addresses(self, Peer peer, vpn_ipv4, vpn_ipv6)
    cpdef set_route(self, prefix, target)
    # private
    cdef void _enter_endpoint(self, PeerState* peer) noexcept nogil
    cdef void _leave_endpoint(self, PeerState* peer) noexcept nogil
    cdef void _enter_list(self, PeerState* peer) noexcept
    cdef void _leave_list(self, PeerState* peer) noexcept
    cdef bint _is_peer(self, PeerState* holder) noexcept
    cdef int _give_address(self, prefix, PeerState* peer) except -1
    cdef int _take_route(self, prefix, PeerState* holder) except -1
