"""Answers and notices of family ovpn-dco-v2, encoded.

Knows what GET_PEER tells and how a deletion is announced. Must not know who asks or listens.
"""

from __future__ import annotations

from typing import Final

from controlplane_shim.netlink import attributes, sockaddr
from controlplane_shim.netlink.attributes import Integer
from controlplane_shim.netlink.codec import IFINDEX
from controlplane_shim.netlink.message import build, build_wake, generic_body
from controlplane_shim.netlink.ovpn_dco_v2 import tables
from controlplane_shim.netlink.ovpn_dco_v2.tables import PeerReply
from controlplane_shim.operations import DeletionNotice, PeerInfo, PeerNotice, WakeNotice

_PAD: Final = attributes.build(0, b"")


def build_peer(peer: PeerInfo, flags: int, seq: int, port_id: int) -> bytes:
    """What GET_PEER tells of one peer; names no IFINDEX. flags: NLM_F_MULTI in a dump, else 0.

    Integers of 64 bits are aligned in the message, as nla_put_u64_64bit() does. The headers before the nest's
    attributes have 24 bytes, so an attribute's payload is aligned if the attribute does not begin at a multiple of 8.
    """
    nest = bytearray(_addresses(peer))
    for row, value in _numbers(peer):
        if row.size == 8 and len(nest) % 8 == 0:
            nest += _PAD
        nest += row.encode(value)
    body = generic_body(tables.CMD_GET_PEER, tables.FAMILY.version, PeerReply.NEST.encode(bytes(nest)))
    return build(tables.FAMILY.family_id, flags, seq, port_id, body)


def build_notice(notice: PeerNotice) -> bytes | None:
    """The notice to group "peers" that a peer is gone, or of nothing; None for what this family has no notice of."""
    if isinstance(notice, WakeNotice):
        return build_wake()
    if not isinstance(notice, DeletionNotice):
        return None
    nest = tables.DelPeer.NEST.encode(
        tables.DelPeer.REASON.encode(notice.reason) + tables.DelPeer.PEER_ID.encode(notice.peer_id)
    )
    body = generic_body(tables.CMD_DEL_PEER, tables.FAMILY.version, IFINDEX.encode(notice.ifindex) + nest)
    return build(tables.FAMILY.family_id, 0, 0, 0, body)


def _addresses(peer: PeerInfo) -> bytes:
    """PEER_ID and addresses. A remote never comes without a local address, be it the unspecified one."""
    encoded = PeerReply.PEER_ID.encode(peer.peer_id)
    if peer.remote is not None:
        encoded += PeerReply.SOCKADDR_REMOTE.encode(sockaddr.pack(peer.remote))
    if peer.vpn_ipv4 is not None:
        encoded += PeerReply.IPV4.encode(int(peer.vpn_ipv4))
    if peer.vpn_ipv6 is not None:
        encoded += PeerReply.IPV6.encode(peer.vpn_ipv6.packed)
    if peer.remote is not None:
        local = peer.local.packed if peer.local is not None else bytes(len(peer.remote.address.packed))
        encoded += PeerReply.LOCAL_IP.encode(local)
    return encoded + PeerReply.LOCAL_PORT.encode(peer.local_port)


def _numbers(peer: PeerInfo) -> tuple[tuple[Integer, int], ...]:
    """Keepalives and counters. Counters of packets have 32 bits in this family and wrap, as the driver's do."""
    return (
        (PeerReply.KEEPALIVE_INTERVAL, peer.keepalive_interval),
        (PeerReply.KEEPALIVE_TIMEOUT, peer.keepalive_timeout),
        (PeerReply.VPN_RX_BYTES, peer.vpn_rx_bytes),
        (PeerReply.VPN_TX_BYTES, peer.vpn_tx_bytes),
        (PeerReply.VPN_RX_PACKETS, peer.vpn_rx_packets & 0xFFFFFFFF),
        (PeerReply.VPN_TX_PACKETS, peer.vpn_tx_packets & 0xFFFFFFFF),
        (PeerReply.LINK_RX_BYTES, peer.link_rx_bytes),
        (PeerReply.LINK_TX_BYTES, peer.link_tx_bytes),
        (PeerReply.LINK_RX_PACKETS, peer.link_rx_packets & 0xFFFFFFFF),
        (PeerReply.LINK_TX_PACKETS, peer.link_tx_packets & 0xFFFFFFFF),
    )
