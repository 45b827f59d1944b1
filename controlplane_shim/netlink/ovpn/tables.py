"""The tables of family ovpn: commands, attributes, bounds, and which of them each command takes.

Knows numbers (uapi header ovpn.h) and policies (Documentation/netlink/specs/ovpn.yaml). Must not know what they mean
together; requests.py and answers.py do. A row is said once; the tables of the commands pick from the rows.
"""

from __future__ import annotations

from typing import Final

from controlplane_shim.netlink.attributes import Binary, Nest, VariableInteger, be16, be32, s32, u16, u32
from controlplane_shim.netlink.codec import IFINDEX
from controlplane_shim.netlink.control import GenericFamily, GenericOperation
from controlplane_shim.operations import DelReason

CMD_PEER_NEW: Final = 1
CMD_PEER_SET: Final = 2
CMD_PEER_GET: Final = 3
CMD_PEER_DEL: Final = 4
CMD_PEER_DEL_NTF: Final = 5
CMD_KEY_NEW: Final = 6
CMD_KEY_GET: Final = 7
CMD_KEY_SWAP: Final = 8
CMD_KEY_SWAP_NTF: Final = 9
CMD_KEY_DEL: Final = 10
CMD_PEER_FLOAT_NTF: Final = 11

_PEER: Final = 2
_KEYCONF: Final = 3
_PEER_ID_MAX: Final = 0xFFFFFF


class Peer:
    """In nest PEER. Keepalives in seconds."""

    ID = u32(1, "ID", maximum=_PEER_ID_MAX)
    REMOTE_IPV4 = be32(2, "REMOTE_IPV4")
    REMOTE_IPV6 = Binary(3, "REMOTE_IPV6", minimum=16, maximum=16)
    REMOTE_IPV6_SCOPE_ID = u32(4, "REMOTE_IPV6_SCOPE_ID")
    REMOTE_PORT = be16(5, "REMOTE_PORT", minimum=1)
    SOCKET = u32(6, "SOCKET")
    SOCKET_NETNSID = s32(7, "SOCKET_NETNSID")
    VPN_IPV4 = be32(8, "VPN_IPV4")
    VPN_IPV6 = Binary(9, "VPN_IPV6", minimum=16, maximum=16)
    LOCAL_IPV4 = be32(10, "LOCAL_IPV4")
    LOCAL_IPV6 = Binary(11, "LOCAL_IPV6", minimum=16, maximum=16)
    LOCAL_PORT = be16(12, "LOCAL_PORT", minimum=1)
    KEEPALIVE_INTERVAL = u32(13, "KEEPALIVE_INTERVAL")
    KEEPALIVE_TIMEOUT = u32(14, "KEEPALIVE_TIMEOUT")
    DEL_REASON = u32(15, "DEL_REASON", maximum=max(DelReason))
    VPN_RX_BYTES = VariableInteger(16, "VPN_RX_BYTES")
    VPN_TX_BYTES = VariableInteger(17, "VPN_TX_BYTES")
    VPN_RX_PACKETS = VariableInteger(18, "VPN_RX_PACKETS")
    VPN_TX_PACKETS = VariableInteger(19, "VPN_TX_PACKETS")
    LINK_RX_BYTES = VariableInteger(20, "LINK_RX_BYTES")
    LINK_TX_BYTES = VariableInteger(21, "LINK_TX_BYTES")
    LINK_RX_PACKETS = VariableInteger(22, "LINK_RX_PACKETS")
    LINK_TX_PACKETS = VariableInteger(23, "LINK_TX_PACKETS")
    TX_ID = u32(24, "TX_ID", maximum=_PEER_ID_MAX)

    COUNTERS = (
        VPN_RX_BYTES,
        VPN_TX_BYTES,
        VPN_RX_PACKETS,
        VPN_TX_PACKETS,
        LINK_RX_BYTES,
        LINK_TX_BYTES,
        LINK_RX_PACKETS,
        LINK_TX_PACKETS,
    )
    _REMOTE = (ID, REMOTE_IPV4, REMOTE_IPV6, REMOTE_IPV6_SCOPE_ID, REMOTE_PORT)
    _ADDRESSES = (VPN_IPV4, VPN_IPV6, LOCAL_IPV4, LOCAL_IPV6)
    _KEEPALIVES = (KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT)

    NEW = Nest(_PEER, "PEER", (*_REMOTE, SOCKET, *_ADDRESSES, *_KEEPALIVES, TX_ID))
    SET = Nest(_PEER, "PEER", (*_REMOTE, *_ADDRESSES, *_KEEPALIVES, TX_ID))
    DEL = Nest(_PEER, "PEER", (ID,))
    ANY = Nest(
        _PEER,
        "PEER",
        (
            *_REMOTE,
            SOCKET,
            SOCKET_NETNSID,
            *_ADDRESSES,
            LOCAL_PORT,
            *_KEEPALIVES,
            DEL_REASON,
            *COUNTERS,
            TX_ID,
        ),
    )
    """PEER_GET, whose policy has every attribute; the driver then refuses all but ID. Answers and notices too."""


class KeyDirection:
    """In both nests of KEYCONF."""

    CIPHER_KEY = Binary(1, "CIPHER_KEY", maximum=256)
    NONCE_TAIL = Binary(2, "NONCE_TAIL", minimum=8, maximum=8)
    TABLE = (CIPHER_KEY, NONCE_TAIL)


class Key:
    """In nest KEYCONF."""

    PEER_ID = u32(1, "PEER_ID", maximum=_PEER_ID_MAX)
    SLOT = u32(2, "SLOT", maximum=1)
    # OpenVPN 3 sends it in one byte, and any error ends its tunnel.
    SLOT_OR_BYTE = u32(2, "SLOT", maximum=1, lenient=("=B",))
    KEY_ID = u32(3, "KEY_ID", maximum=7)
    # The driver's own notice differs from its specification, and OpenVPN 2.7 reads what the driver sends.
    KEY_ID_IN_NOTICE = u16(3, "KEY_ID")
    CIPHER_ALG = u32(4, "CIPHER_ALG", maximum=2)
    ENCRYPT_DIR = Nest(5, "ENCRYPT_DIR", KeyDirection.TABLE)
    DECRYPT_DIR = Nest(6, "DECRYPT_DIR", KeyDirection.TABLE)

    NEW = Nest(_KEYCONF, "KEYCONF", (PEER_ID, SLOT, KEY_ID, CIPHER_ALG, ENCRYPT_DIR, DECRYPT_DIR))
    GET = Nest(_KEYCONF, "KEYCONF", (PEER_ID, SLOT, KEY_ID, CIPHER_ALG))
    """The policy has more than the driver takes, as with Peer.ANY."""
    SWAP = Nest(_KEYCONF, "KEYCONF", (PEER_ID,))
    DEL = Nest(_KEYCONF, "KEYCONF", (PEER_ID, SLOT_OR_BYTE))


FAMILY: Final = GenericFamily(
    name="ovpn",
    family_id=0xD01,
    version=1,
    max_attribute=0,  # each command has its own
    operations=(
        GenericOperation(CMD_PEER_NEW, (IFINDEX, Peer.NEW)),
        GenericOperation(CMD_PEER_SET, (IFINDEX, Peer.SET)),
        GenericOperation(CMD_PEER_GET, (IFINDEX, Peer.ANY), dump=(IFINDEX,)),
        GenericOperation(CMD_PEER_DEL, (IFINDEX, Peer.DEL)),
        GenericOperation(CMD_KEY_NEW, (IFINDEX, Key.NEW)),
        GenericOperation(CMD_KEY_GET, (IFINDEX, Key.GET)),
        GenericOperation(CMD_KEY_SWAP, (IFINDEX, Key.SWAP)),
        GenericOperation(CMD_KEY_DEL, (IFINDEX, Key.DEL)),
    ),
    groups=(("peers", 0xD01),),
)
"""The numbers follow those of ovpn-dco-v2; as to them the kernel gives neither."""
