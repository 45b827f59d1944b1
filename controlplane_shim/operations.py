"""One model over all netlink families: what OpenVPN asks for, and what came of it.

Knows operations and outcomes in plain types. Must not know netlink bytes (netlink/), gRPC (dataplane_client.py)
or system calls (supervisor/). Addresses are ipaddress objects; key bytes never show in a repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, unique
from ipaddress import IPv4Address, IPv6Address


@unique
class Family(Enum):
    """The netlink families that the kernel drivers register, by their genl name."""

    OVPN_DCO_V2 = "ovpn-dco-v2"
    OVPN = "ovpn"


@unique
class DelReason(IntEnum):
    """enum ovpn_del_peer_reason; the same numbers in every family."""

    TEARDOWN = 0
    USERSPACE = 1
    EXPIRED = 2
    TRANSPORT_ERROR = 3
    TRANSPORT_DISCONNECT = 4


@dataclass(frozen=True, slots=True)
class Remote:
    """Address and port of a peer; scope_id is an interface index, 0 for none."""

    address: IPv4Address | IPv6Address
    port: int
    scope_id: int = 0


@dataclass(frozen=True, slots=True)
class GetFamily:
    """CTRL_CMD_GETFAMILY for a family of ours."""

    family: Family


@dataclass(frozen=True, slots=True)
class GetPolicy:
    """CTRL_CMD_GETPOLICY for a family of ours; command: the one that is asked for, None for all."""

    family: Family
    command: int | None


@dataclass(frozen=True, slots=True)
class NewLink:
    """RTM_NEWLINK of a kind of ours. multipeer: IFLA_OVPN_MODE is MP."""

    name: str
    kind: str
    multipeer: bool


@dataclass(frozen=True, slots=True)
class NewPeer:
    """A new peer; socket_fd is a number in the caller's file table.

    remote may be None for TCP, where it means nothing. Keepalives in seconds, both or neither. tx_id: the peer-id on
    packets to it, None for its own.
    """

    ifindex: int
    peer_id: int
    socket_fd: int
    remote: Remote | None
    local: IPv4Address | IPv6Address | None
    vpn_ipv4: IPv4Address | None
    vpn_ipv6: IPv6Address | None
    keepalive_interval: int | None = None
    keepalive_timeout: int | None = None
    tx_id: int | None = None


@dataclass(frozen=True, slots=True)
class SetPeer:
    """New values of a peer; None leaves what there is.

    Keepalives in seconds, both or neither. A new remote brings its local address, or none, with it. An unspecified VPN
    address takes away what the peer has of that family.
    """

    ifindex: int
    peer_id: int
    keepalive_interval: int | None
    keepalive_timeout: int | None
    remote: Remote | None = None
    local: IPv4Address | IPv6Address | None = None
    vpn_ipv4: IPv4Address | None = None
    vpn_ipv6: IPv6Address | None = None
    tx_id: int | None = None


@dataclass(frozen=True, slots=True)
class DelPeer:
    """Removal of a peer."""

    ifindex: int
    peer_id: int


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key for a slot (0 primary, 1 secondary). cipher: 1 AES-GCM, 2 ChaCha20-Poly1305."""

    ifindex: int
    peer_id: int
    slot: int
    key_id: int
    cipher: int
    encrypt_key: bytes = field(repr=False)
    encrypt_nonce_tail: bytes = field(repr=False)
    decrypt_key: bytes = field(repr=False)
    decrypt_nonce_tail: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SwapKeys:
    """Exchange of the slots."""

    ifindex: int
    peer_id: int


@dataclass(frozen=True, slots=True)
class DelKey:
    """Removal of the key in a slot."""

    ifindex: int
    peer_id: int
    slot: int


@dataclass(frozen=True, slots=True)
class GetKey:
    """What is known of the key in a slot."""

    ifindex: int
    peer_id: int
    slot: int


@dataclass(frozen=True, slots=True)
class GetPeer:
    """Counters and addresses of one peer."""

    ifindex: int
    peer_id: int


@dataclass(frozen=True, slots=True)
class DumpPeers:
    """Counters and addresses of all peers (of an MP device; a P2P device of family ovpn-dco-v2 dumps nothing)."""

    ifindex: int


PeerOperation = NewPeer | SetPeer | DelPeer | NewKey | SwapKeys | DelKey | GetKey | GetPeer | DumpPeers
Operation = GetFamily | GetPolicy | NewLink | PeerOperation


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What GET_PEER tells. Counters as the kernel's; keepalives in seconds. tx_id: the peer-id on packets to it."""

    peer_id: int
    tx_id: int
    remote: Remote | None
    local: IPv4Address | IPv6Address | None
    local_port: int
    vpn_ipv4: IPv4Address | None
    vpn_ipv6: IPv6Address | None
    keepalive_interval: int
    keepalive_timeout: int
    vpn_rx_bytes: int
    vpn_tx_bytes: int
    vpn_rx_packets: int
    vpn_tx_packets: int
    link_rx_bytes: int
    link_tx_bytes: int
    link_rx_packets: int
    link_tx_packets: int


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What GET_KEY tells, in the numbers of NewKey; never key bytes."""

    peer_id: int
    slot: int
    key_id: int
    cipher: int


@dataclass(frozen=True, slots=True)
class Done:
    """The operation succeeded and has nothing to tell."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The operation failed. errno: positive; text: for the log and the extended acknowledgement."""

    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class PeerFound:
    """Answer of GetPeer."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class PeersFound:
    """Answer of DumpPeers."""

    peers: tuple[PeerInfo, ...]


@dataclass(frozen=True, slots=True)
class KeyFound:
    """Answer of GetKey."""

    key: KeyInfo


Outcome = Done | Failed | PeerFound | PeersFound | KeyFound


@dataclass(frozen=True, slots=True)
class DeletionNotice:
    """A peer is gone; OpenVPN is to be told."""

    family: Family
    ifindex: int
    peer_id: int
    reason: DelReason


@dataclass(frozen=True, slots=True)
class FloatNotice:
    """A peer is answered at a new address from now on; OpenVPN is to be told if its family has a word for it."""

    family: Family
    ifindex: int
    peer_id: int
    remote: Remote


@dataclass(frozen=True, slots=True)
class KeySwapNotice:
    """A key has no packet-ids left and is gone; OpenVPN is to be told if its family has a word for it."""

    family: Family
    ifindex: int
    peer_id: int
    key_id: int


@dataclass(frozen=True, slots=True)
class WakeNotice:
    """Nothing is to be told, but OpenVPN is to look after its keys."""

    family: Family


PeerNotice = DeletionNotice | FloatNotice | KeySwapNotice | WakeNotice
