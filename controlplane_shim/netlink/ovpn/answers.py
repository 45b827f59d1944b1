"""Answers and notices of family ovpn, encoded.

Knows what the GETs tell and how a deletion, a float and the end of a key are announced, each attribute in the driver's
order. Must not know who asks or listens.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from controlplane_shim.netlink.codec import IFINDEX
from controlplane_shim.netlink.message import build, build_wake, generic_body
from controlplane_shim.netlink.ovpn import tables
from controlplane_shim.netlink.ovpn.tables import Key, Peer
from controlplane_shim.operations import (
    DeletionNotice,
    FloatNotice,
    KeyInfo,
    PeerInfo,
    PeerNotice,
    Remote,
    WakeNotice,
)


def build_peer(peer: PeerInfo, flags: int, seq: int, port_id: int) -> bytes:
    """What PEER_GET tells of one peer; names no IFINDEX. flags: NLM_F_MULTI in a dump, else 0."""
    nest = Peer.ID.encode(peer.peer_id) + Peer.TX_ID.encode(peer.tx_id)
    if peer.vpn_ipv4 is not None:
        nest += Peer.VPN_IPV4.encode(int(peer.vpn_ipv4))
    if peer.vpn_ipv6 is not None:
        nest += Peer.VPN_IPV6.encode(peer.vpn_ipv6.packed)
    nest += Peer.KEEPALIVE_INTERVAL.encode(peer.keepalive_interval)
    nest += Peer.KEEPALIVE_TIMEOUT.encode(peer.keepalive_timeout)
    if peer.remote is not None:
        nest += _remote(peer.remote) + _local(peer.remote, peer.local)
    nest += Peer.LOCAL_PORT.encode(peer.local_port)
    nest += Peer.VPN_RX_BYTES.encode(peer.vpn_rx_bytes) + Peer.VPN_RX_PACKETS.encode(peer.vpn_rx_packets)
    nest += Peer.VPN_TX_BYTES.encode(peer.vpn_tx_bytes) + Peer.VPN_TX_PACKETS.encode(peer.vpn_tx_packets)
    nest += Peer.LINK_RX_BYTES.encode(peer.link_rx_bytes) + Peer.LINK_RX_PACKETS.encode(peer.link_rx_packets)
    nest += Peer.LINK_TX_BYTES.encode(peer.link_tx_bytes) + Peer.LINK_TX_PACKETS.encode(peer.link_tx_packets)
    return _message(tables.CMD_PEER_GET, Peer.ANY.encode(nest), flags, seq, port_id)


def build_key(key: KeyInfo, seq: int, port_id: int) -> bytes:
    """What KEY_GET tells of one key; names no IFINDEX, and no key bytes."""
    nest = (
        Key.PEER_ID.encode(key.peer_id)
        + Key.SLOT.encode(key.slot)
        + Key.KEY_ID.encode(key.key_id)
        + Key.CIPHER_ALG.encode(key.cipher)
    )
    return _message(tables.CMD_KEY_GET, Key.GET.encode(nest), 0, seq, port_id)


def build_notice(notice: PeerNotice) -> bytes:
    """The notice to group "peers"."""
    if isinstance(notice, WakeNotice):
        return build_wake()
    if isinstance(notice, DeletionNotice):
        command = tables.CMD_PEER_DEL_NTF
        nest = Peer.ANY.encode(Peer.DEL_REASON.encode(notice.reason) + Peer.ID.encode(notice.peer_id))
    elif isinstance(notice, FloatNotice):
        command = tables.CMD_PEER_FLOAT_NTF
        nest = Peer.ANY.encode(Peer.ID.encode(notice.peer_id) + _remote(notice.remote))
    else:
        command = tables.CMD_KEY_SWAP_NTF
        nest = Key.GET.encode(Key.PEER_ID.encode(notice.peer_id) + Key.KEY_ID_IN_NOTICE.encode(notice.key_id))
    return _message(command, IFINDEX.encode(notice.ifindex) + nest, 0, 0, 0)


def _remote(remote: Remote) -> bytes:
    if isinstance(remote.address, IPv4Address):
        return Peer.REMOTE_IPV4.encode(int(remote.address)) + Peer.REMOTE_PORT.encode(remote.port)
    return (
        Peer.REMOTE_IPV6.encode(remote.address.packed)
        + Peer.REMOTE_IPV6_SCOPE_ID.encode(remote.scope_id)
        + Peer.REMOTE_PORT.encode(remote.port)
    )


def _local(remote: Remote, local: IPv4Address | IPv6Address | None) -> bytes:
    """A remote never comes without a local address, be it the unspecified one."""
    if isinstance(remote.address, IPv4Address):
        return Peer.LOCAL_IPV4.encode(0 if local is None else int(local))
    return Peer.LOCAL_IPV6.encode(bytes(16) if local is None else local.packed)


def _message(command: int, attributes: bytes, flags: int, seq: int, port_id: int) -> bytes:
    body = generic_body(command, tables.FAMILY.version, attributes)
    return build(tables.FAMILY.family_id, flags, seq, port_id, body)
