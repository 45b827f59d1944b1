"""From the requests of PeerService to what the engine is asked for.

Knows the fields of each request and the rules that join several. What a rule needs of the engine's state (a
device's mode, the peer as it is) is passed in, None if the name that leads to it was malformed. Every
function raises InvalidRequest with all violations at once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ovpn.dataplane.v1 import key_pb2, peer_pb2

from dataplane.api import validation
from dataplane.api.decode_socket import MAX_PORT
from dataplane.api.paging import Page, read_page
from dataplane.api.violations import Violations
from dataplane.engine.types import UNSET, Endpoint, IPAddress, IPNetwork, PeerChange, PeerSpec
from dataplane.vocabulary import Mode, SocketProtocol

_UPDATE_PATHS: Final = (
    "remote",
    "local_address",
    "vpn_ipv4",
    "vpn_ipv6",
    "keepalive_interval",
    "keepalive_timeout",
    "tx_id",
    "routes",
    "tcp_mss_ipv4",
    "tcp_mss_ipv6",
    "socket",
)


def decode_creation(peer: peer_pb2.Peer, mode: Mode | None, protocol: SocketProtocol | None = None) -> PeerSpec:
    """The peer to create on a device of this mode and a socket of this protocol (None: there is no such socket)."""
    found = Violations()
    at = found.under("peer")
    device = validation.read_name(at, "device", peer.device)
    peer_id = validation.read_peer_id(at, "peer_id", peer.peer_id)
    socket = validation.read_name(at, "socket", peer.socket)
    remote = _read_remote(at, peer) if peer.HasField("remote") else None
    local_address = _read_local_address(at, peer)
    _check_families(at, remote, local_address)
    _check_protocol(at, peer, protocol)
    vpn_ipv4 = validation.read_vpn_ipv4(at, "vpn_ipv4", peer.vpn_ipv4)
    vpn_ipv6 = validation.read_vpn_ipv6(at, "vpn_ipv6", peer.vpn_ipv6)
    _check_vpn_addresses(at, mode, has_ipv4=bool(peer.vpn_ipv4), has_ipv6=bool(peer.vpn_ipv6))
    keepalive_interval_s = _read_keepalive(at, peer, "keepalive_interval")
    keepalive_timeout_s = _read_keepalive(at, peer, "keepalive_timeout")
    tx_id = _read_tx_id(at, peer)
    routes = _read_routes(at, peer, mode)
    tcp_mss_ipv4 = _read_tcp_mss_ipv4(at, peer)
    tcp_mss_ipv6 = _read_tcp_mss_ipv6(at, peer)
    found.raise_if_any()
    return PeerSpec(
        device=device,
        peer_id=peer_id,
        socket=socket,
        remote=remote,
        local_address=local_address,
        vpn_ipv4=vpn_ipv4,
        vpn_ipv6=vpn_ipv6,
        keepalive_interval_s=keepalive_interval_s,
        keepalive_timeout_s=keepalive_timeout_s,
        tx_id=tx_id,
        routes=routes,
        tcp_mss_ipv4=tcp_mss_ipv4,
        tcp_mss_ipv6=tcp_mss_ipv6,
    )


def decode_change(
    request: peer_pb2.UpdatePeerRequest,
    mode: Mode | None,
    current: PeerSpec | None,
    protocol: SocketProtocol | None = None,
    named_protocol: SocketProtocol | None = None,
) -> tuple[str, int, PeerChange]:
    """Device, peer-id and what to change of the peer that is `current` now, on a socket of this protocol.

    named_protocol: that of the socket that the request names (None: there is no such socket).
    """
    found = Violations()
    at, peer = found.under("peer"), request.peer
    device = validation.read_name(at, "device", peer.device)
    peer_id = validation.read_peer_id(at, "peer_id", peer.peer_id)
    paths = validation.read_mask(found, "update_mask", request.update_mask, _UPDATE_PATHS)
    remote = _read_remote(at, peer) if "remote" in paths else UNSET
    local_address = _read_local_address(at, peer) if "local_address" in paths else UNSET
    vpn_ipv4 = validation.read_vpn_ipv4(at, "vpn_ipv4", peer.vpn_ipv4) if "vpn_ipv4" in paths else UNSET
    vpn_ipv6 = validation.read_vpn_ipv6(at, "vpn_ipv6", peer.vpn_ipv6) if "vpn_ipv6" in paths else UNSET
    interval_s = _read_keepalive(at, peer, "keepalive_interval") if "keepalive_interval" in paths else UNSET
    timeout_s = _read_keepalive(at, peer, "keepalive_timeout") if "keepalive_timeout" in paths else UNSET
    tx_id = _read_tx_id(at, peer) if "tx_id" in paths else UNSET
    routes = _read_routes(at, peer, mode) if "routes" in paths else UNSET
    tcp_mss_ipv4 = _read_tcp_mss_ipv4(at, peer) if "tcp_mss_ipv4" in paths else UNSET
    tcp_mss_ipv6 = _read_tcp_mss_ipv6(at, peer) if "tcp_mss_ipv6" in paths else UNSET
    socket = validation.read_name(at, "socket", peer.socket) if "socket" in paths else UNSET
    if "socket" in paths:
        _check_new_socket(at, found, paths, named_protocol)
    if protocol is SocketProtocol.TCP and paths & {"remote", "local_address", "socket"}:
        found.add("update_mask", "must not hold remote, local_address or socket: the peer is on a TCP socket")
    elif current is not None and paths & {"remote", "local_address"}:
        _check_families(
            at,
            current.remote if remote is UNSET else remote,
            current.local_address if local_address is UNSET else local_address,
        )
    if current is not None and paths & {"vpn_ipv4", "vpn_ipv6"}:
        _check_vpn_addresses(
            at,
            mode,
            has_ipv4=bool(current.vpn_ipv4 if vpn_ipv4 is UNSET else peer.vpn_ipv4),
            has_ipv6=bool(current.vpn_ipv6 if vpn_ipv6 is UNSET else peer.vpn_ipv6),
        )
    found.raise_if_any()
    assert remote is not None
    change = PeerChange(
        remote,
        local_address,
        vpn_ipv4,
        vpn_ipv6,
        interval_s,
        timeout_s,
        tx_id=tx_id,
        routes=routes,
        tcp_mss_ipv4=tcp_mss_ipv4,
        tcp_mss_ipv6=tcp_mss_ipv6,
        socket=socket,
    )
    return device, peer_id, change


def decode_reference(
    request: peer_pb2.GetPeerRequest | peer_pb2.DeletePeerRequest | key_pb2.SwapKeysRequest,
) -> tuple[str, int]:
    """Device and peer-id."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    peer_id = validation.read_peer_id(found, "peer_id", request.peer_id)
    found.raise_if_any()
    return device, peer_id


def decode_list(request: peer_pb2.ListPeersRequest) -> tuple[str, Page]:
    """Device and the page that is asked for, whose key is the peer-id in decimal."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    page = read_page(found, request, f"devices/{device}/peers", key_pattern=r"[0-9]{1,8}")
    found.raise_if_any()
    return device, page


def decode_stream(request: peer_pb2.StreamPeersRequest) -> str:
    """Name of the device."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    found.raise_if_any()
    return device


def _read_remote(at: Violations, peer: peer_pb2.Peer) -> Endpoint | None:
    if not peer.HasField("remote"):
        at.add("remote", "is required: give address and port")
        return None
    endpoint, at_remote = peer.remote, at.under("remote")
    address = validation.read_transport_address(at_remote, "address", endpoint.address)
    port = validation.read_number(at_remote, "port", endpoint.port, 1, MAX_PORT)
    scope_id = validation.read_number(at_remote, "scope_id", endpoint.scope_id, 0, validation.MAX_INTERFACE_INDEX)
    if address is None:
        return None
    if scope_id and not (address.version == 6 and address.is_link_local):
        at_remote.add("scope_id", f"must be 0: {address} is not an IPv6 link-local address")
    return Endpoint(address, port, scope_id)


def _check_protocol(at: Violations, peer: peer_pb2.Peer, protocol: SocketProtocol | None) -> None:
    if protocol is SocketProtocol.TCP:
        if peer.HasField("remote"):
            at.add("remote", "must be absent: the socket is TCP, whose other end it is")
        if peer.local_address:
            at.add("local_address", "must be empty: the socket is TCP")
    elif not peer.HasField("remote"):
        at.add("remote", "is required: give address and port")


def _check_new_socket(
    at: Violations, found: Violations, paths: Collection[str], protocol: SocketProtocol | None
) -> None:
    if "remote" not in paths:
        found.add("update_mask", "must hold remote with socket: where the peer is on that one")
    if protocol is SocketProtocol.TCP:
        at.add("socket", "must be a UDP socket: a TCP socket carries the peer it was adopted for")


def _read_local_address(at: Violations, peer: peer_pb2.Peer) -> IPAddress | None:
    if not peer.local_address:
        return None
    return validation.read_transport_address(at, "local_address", peer.local_address)


def _read_keepalive(at: Violations, peer: peer_pb2.Peer, field: str) -> int:
    return validation.read_whole_seconds(at, field, getattr(peer, field))


def _read_tx_id(at: Violations, peer: peer_pb2.Peer) -> int | None:
    return validation.read_peer_id(at, "tx_id", peer.tx_id) if peer.HasField("tx_id") else None


def _read_routes(at: Violations, peer: peer_pb2.Peer, mode: Mode | None) -> tuple[IPNetwork, ...]:
    if mode is Mode.P2P and peer.routes:
        at.add("routes", "must be empty on a P2P device: all packets go to its one peer")
        return ()
    return validation.read_networks(at, "routes", peer.routes)


def _read_tcp_mss_ipv4(at: Violations, peer: peer_pb2.Peer) -> int | None:
    if not peer.HasField("tcp_mss_ipv4"):
        return None
    return validation.read_tcp_mss_ipv4(at, "tcp_mss_ipv4", peer.tcp_mss_ipv4)


def _read_tcp_mss_ipv6(at: Violations, peer: peer_pb2.Peer) -> int | None:
    if not peer.HasField("tcp_mss_ipv6"):
        return None
    return validation.read_tcp_mss_ipv6(at, "tcp_mss_ipv6", peer.tcp_mss_ipv6)


def _check_families(at: Violations, remote: Endpoint | None, local_address: IPAddress | None) -> None:
    if remote is not None and local_address is not None and remote.address.version != local_address.version:
        at.add("local_address", f"must be of the same family as remote.address: {local_address}, {remote.address}")


def _check_vpn_addresses(at: Violations, mode: Mode | None, *, has_ipv4: bool, has_ipv6: bool) -> None:
    if mode is Mode.MP and not (has_ipv4 or has_ipv6):
        at.add("vpn_ipv4", "is required on an MP device, unless there is vpn_ipv6: packets find the peer by it")
    if mode is Mode.P2P:
        for field, is_there in (("vpn_ipv4", has_ipv4), ("vpn_ipv6", has_ipv6)):
            if is_there:
                at.add(field, "must be empty on a P2P device: all packets go to its one peer")
