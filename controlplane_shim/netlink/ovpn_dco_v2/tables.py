"""The tables of family ovpn-dco-v2: commands, attributes, bounds.

Knows numbers (uapi header ovpn_dco.h). Must not know what they mean together; requests.py and answers.py do.
"""

from __future__ import annotations

from typing import Final

from controlplane_shim.netlink.attributes import Binary, Nest, be16, be32, u8, u16, u32, u64
from controlplane_shim.netlink.codec import IFINDEX
from controlplane_shim.netlink.control import GenericFamily, GenericOperation
from controlplane_shim.operations import DelReason

CMD_NEW_PEER: Final = 1
CMD_SET_PEER: Final = 2
CMD_DEL_PEER: Final = 3
CMD_NEW_KEY: Final = 4
CMD_SWAP_KEYS: Final = 5
CMD_DEL_KEY: Final = 6
CMD_GET_PEER: Final = 7


class NewPeer:
    """Request of NEW_PEER."""

    PEER_ID = u32(1, "PEER_ID")
    SOCKADDR_REMOTE = Binary(2, "SOCKADDR_REMOTE", minimum=16)
    SOCKET = u32(3, "SOCKET")
    IPV4 = be32(4, "IPV4")
    IPV6 = Binary(5, "IPV6", minimum=16, maximum=16)
    LOCAL_IP = Binary(6, "LOCAL_IP", maximum=16)
    NEST = Nest(2, "NEW_PEER", (PEER_ID, SOCKADDR_REMOTE, SOCKET, IPV4, IPV6, LOCAL_IP))


class SetPeer:
    """Request of SET_PEER; keepalives in seconds."""

    PEER_ID = u32(1, "PEER_ID")
    KEEPALIVE_INTERVAL = u32(2, "KEEPALIVE_INTERVAL")
    KEEPALIVE_TIMEOUT = u32(3, "KEEPALIVE_TIMEOUT")
    NEST = Nest(3, "SET_PEER", (PEER_ID, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT))


class DelPeer:
    """Request of DEL_PEER, and the notice that a peer is gone. A request's REASON is ignored."""

    REASON = u8(1, "REASON", maximum=max(DelReason))
    PEER_ID = u32(2, "PEER_ID")
    NEST = Nest(4, "DEL_PEER", (REASON, PEER_ID))


class KeyDirection:
    """In both nests of NEW_KEY."""

    CIPHER_KEY = Binary(1, "CIPHER_KEY", maximum=255)
    NONCE_TAIL = Binary(2, "NONCE_TAIL", minimum=8, maximum=8)
    TABLE = (CIPHER_KEY, NONCE_TAIL)


class NewKey:
    """Request of NEW_KEY."""

    PEER_ID = u32(1, "PEER_ID")
    KEY_SLOT = u8(2, "KEY_SLOT", maximum=1)
    KEY_ID = u8(3, "KEY_ID")
    CIPHER_ALG = u16(4, "CIPHER_ALG")
    ENCRYPT_KEY = Nest(5, "ENCRYPT_KEY", KeyDirection.TABLE)
    DECRYPT_KEY = Nest(6, "DECRYPT_KEY", KeyDirection.TABLE)
    NEST = Nest(5, "NEW_KEY", (PEER_ID, KEY_SLOT, KEY_ID, CIPHER_ALG, ENCRYPT_KEY, DECRYPT_KEY))


class SwapKeys:
    """Request of SWAP_KEYS."""

    PEER_ID = u32(1, "PEER_ID")
    NEST = Nest(6, "SWAP_KEYS", (PEER_ID,))


class DelKey:
    """Request of DEL_KEY."""

    PEER_ID = u32(1, "PEER_ID")
    KEY_SLOT = u8(2, "KEY_SLOT", maximum=1)
    NEST = Nest(7, "DEL_KEY", (PEER_ID, KEY_SLOT))


class GetPeer:
    """Request of GET_PEER."""

    PEER_ID = u32(1, "PEER_ID")
    NEST = Nest(8, "GET_PEER", (PEER_ID,))


TOP_LEVEL: Final = (
    IFINDEX,
    NewPeer.NEST,
    SetPeer.NEST,
    DelPeer.NEST,
    NewKey.NEST,
    SwapKeys.NEST,
    DelKey.NEST,
    GetPeer.NEST,
)
"""Attributes of a request."""


FAMILY: Final = GenericFamily(
    name="ovpn-dco-v2",
    family_id=0xD00,
    version=1,
    max_attribute=8,
    operations=(
        *(GenericOperation(command, TOP_LEVEL) for command in range(CMD_NEW_PEER, CMD_GET_PEER)),
        GenericOperation(CMD_GET_PEER, TOP_LEVEL, dump=TOP_LEVEL),
    ),
    groups=(("peers", 0xD00),),
)
"""The kernel gives neither id: its families end at 1023, and its groups are numbered from 1, a few a family."""


class PeerReply:
    """Answer of GET_PEER: other numbers in a nest of the same number. Keepalives in seconds."""

    PEER_ID = u32(1, "PEER_ID")
    SOCKADDR_REMOTE = Binary(2, "SOCKADDR_REMOTE")
    IPV4 = be32(3, "IPV4")
    IPV6 = Binary(4, "IPV6")
    LOCAL_IP = Binary(5, "LOCAL_IP")
    LOCAL_PORT = be16(6, "LOCAL_PORT")
    KEEPALIVE_INTERVAL = u32(7, "KEEPALIVE_INTERVAL")
    KEEPALIVE_TIMEOUT = u32(8, "KEEPALIVE_TIMEOUT")
    VPN_RX_BYTES = u64(9, "VPN_RX_BYTES")
    VPN_TX_BYTES = u64(10, "VPN_TX_BYTES")
    VPN_RX_PACKETS = u32(11, "VPN_RX_PACKETS")
    VPN_TX_PACKETS = u32(12, "VPN_TX_PACKETS")
    LINK_RX_BYTES = u64(13, "LINK_RX_BYTES")
    LINK_TX_BYTES = u64(14, "LINK_TX_BYTES")
    LINK_RX_PACKETS = u32(15, "LINK_RX_PACKETS")
    LINK_TX_PACKETS = u32(16, "LINK_TX_PACKETS")
    NEST = Nest(8, "GET_PEER", ())
