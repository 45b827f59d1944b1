"""What the engine is asked for and what it answers: specs, views, events and errors.

Knows the resources in native types (ipaddress objects, seconds as int, enums of the vocabulary). Must
not know protobuf, gRPC or the messages to a worker. All values here were checked by the API layer;
the engine checks only what depends on its state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, unique
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from dataplane.transport.socket_options import NO_OPTIONS, SocketOptions
from dataplane.vocabulary import Cipher, DataFormat, DelReason, FloatPolicy, KeyLimit, KeySlot, Mode, SocketProtocol

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


@unique
class DeviceState(Enum):
    """Whether a device's worker runs."""

    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """UDP or TCP endpoint; scope_id is an interface index, 0 for none. v4-mapped addresses were made IPv4."""

    address: IPAddress
    port: int
    scope_id: int = 0


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device to create. mtu 0: leave it (adopted TUN only). network_namespace: a path or empty.

    tcp_mss: limit of the MSS option in bytes, 0 for none.
    """

    name: str
    interface_name: str
    mode: Mode
    mtu: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    admin_up: bool = False
    network_namespace: str = ""
    skip_source_check: bool = False
    client_to_client: bool = False
    forward_multicast: bool = False
    follow_kernel_routes: bool = False
    tcp_mss_ipv4: int = 0
    tcp_mss_ipv6: int = 0
    float_policy: FloatPolicy = FloatPolicy.ALLOW


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """New settings of a device; None leaves one as it is."""

    mtu: int | None = None
    addresses: tuple[IPv4Interface | IPv6Interface, ...] | None = None
    admin_up: bool | None = None
    skip_source_check: bool | None = None
    client_to_client: bool | None = None
    forward_multicast: bool | None = None
    follow_kernel_routes: bool | None = None
    tcp_mss_ipv4: int | None = None
    tcp_mss_ipv6: int | None = None
    float_policy: FloatPolicy | None = None

    @property
    def concerns_link(self) -> bool:
        """Whether it changes something of the interface itself."""
        return (self.mtu, self.addresses, self.admin_up) != (None, None, None)


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device as it is. drops: by name of the reason in lower case."""

    name: str
    interface_name: str
    mode: Mode
    mtu: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    admin_up: bool
    network_namespace: str
    state: DeviceState
    peer_count: int
    drops: dict[str, int]
    worker_pid: int
    skip_source_check: bool = False
    client_to_client: bool = False
    forward_multicast: bool = False
    follow_kernel_routes: bool = False
    tcp_mss_ipv4: int = 0
    tcp_mss_ipv6: int = 0
    float_policy: FloatPolicy = FloatPolicy.ALLOW


@dataclass(frozen=True, slots=True)
class SocketSpec:
    """A UDP socket to make and bind."""

    device: str
    name: str
    address: IPAddress
    port: int
    ipv6_only: bool
    network_namespace: str = ""
    options: SocketOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class SocketView:
    """A socket as it is. remote: the other end of a TCP socket, None for UDP."""

    device: str
    name: str
    address: IPAddress
    port: int
    ipv6_only: bool
    adopted: bool
    peer_count: int
    has_control_outlet: bool
    options: SocketOptions = NO_OPTIONS
    protocol: SocketProtocol = SocketProtocol.UDP
    remote: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """A peer to create. remote: None on a TCP socket, which then gives its own. Keepalives in seconds, 0 for none.

    tx_id: the peer-id on packets to it, None for peer_id. routes: the networks behind it. tcp_mss: bytes, 0 for no
    limit, None for the device's.
    """

    device: str
    peer_id: int
    socket: str
    remote: Endpoint | None
    local_address: IPAddress | None = None
    vpn_ipv4: IPv4Address | None = None
    vpn_ipv6: IPv6Address | None = None
    keepalive_interval_s: int = 0
    keepalive_timeout_s: int = 0
    tx_id: int | None = None
    routes: tuple[IPNetwork, ...] = ()
    tcp_mss_ipv4: int | None = None
    tcp_mss_ipv6: int | None = None

    @property
    def vpn_addresses(self) -> tuple[IPAddress, ...]:
        """Those it has."""
        return tuple(address for address in (self.vpn_ipv4, self.vpn_ipv6) if address is not None)


@unique
class Unset(Enum):
    """Marks a field of a change that stays as it is."""

    UNSET = "unset"


UNSET = Unset.UNSET


@dataclass(frozen=True, slots=True)
class PeerChange:
    """New values of a peer; UNSET leaves one as it is, None empties it. A socket comes with a remote."""

    remote: Endpoint | Unset = UNSET
    local_address: IPAddress | Unset | None = UNSET
    vpn_ipv4: IPv4Address | Unset | None = UNSET
    vpn_ipv6: IPv6Address | Unset | None = UNSET
    keepalive_interval_s: int | Unset = UNSET
    keepalive_timeout_s: int | Unset = UNSET
    tx_id: int | Unset | None = UNSET
    routes: tuple[IPNetwork, ...] | Unset = UNSET
    tcp_mss_ipv4: int | Unset | None = UNSET
    tcp_mss_ipv6: int | Unset | None = UNSET
    socket: str | Unset = UNSET


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """Counters of a peer (see Column); drops by name of the reason in lower case."""

    vpn_rx_bytes: int = 0
    vpn_rx_packets: int = 0
    vpn_tx_bytes: int = 0
    vpn_tx_packets: int = 0
    link_rx_bytes: int = 0
    link_rx_packets: int = 0
    link_tx_bytes: int = 0
    link_tx_packets: int = 0
    drops: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer as it is. Times in ns since 1970, 0 for never."""

    spec: PeerSpec
    counters: PeerCounters
    create_revision: int
    create_time_ns: int
    last_receive_time_ns: int
    last_send_time_ns: int


@dataclass(frozen=True, slots=True)
class KeySpec:
    """A key to install. Its repr never shows key bytes.

    In the format EPOCH, encrypt_key and decrypt_key are the secrets of epoch 1 and the tails are empty. key_length: of
    the cipher key in bytes, which is then derived.
    """

    device: str
    peer_id: int
    slot: KeySlot
    key_id: int
    cipher: Cipher
    encrypt_key: bytes = field(repr=False)
    encrypt_nonce_tail: bytes = field(repr=False)
    decrypt_key: bytes = field(repr=False)
    decrypt_nonce_tail: bytes = field(repr=False)
    key_length: int
    data_format: DataFormat = DataFormat.DATA_V2


@dataclass(frozen=True, slots=True)
class KeyView:
    """What is known of an installed key.

    sent_packet_ids: packet-ids used for sending so far, in the format EPOCH those of send_epoch, the epoch it sends in.
    """

    slot: KeySlot
    key_id: int
    cipher: Cipher
    key_bits: int
    sent_packet_ids: int
    data_format: DataFormat = DataFormat.DATA_V2
    send_epoch: int = 0


# Events, in the past tense. `revision` grows by one with each.


@dataclass(frozen=True, slots=True)
class DeviceCreated:
    """A device was created."""

    revision: int
    device: DeviceView


@dataclass(frozen=True, slots=True)
class DeviceDeleted:
    """A device was deleted; its peers were reported before."""

    revision: int
    device: str


@dataclass(frozen=True, slots=True)
class PeerCreated:
    """A peer was created."""

    revision: int
    peer: PeerView


@dataclass(frozen=True, slots=True)
class PeerDeleted:
    """A peer was deleted. final_counters: None if they died with the worker."""

    revision: int
    device: str
    peer_id: int
    reason: DelReason
    final_counters: PeerCounters | None
    create_revision: int


@dataclass(frozen=True, slots=True)
class PeerFloated:
    """A peer moved to a new address."""

    revision: int
    device: str
    peer_id: int
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class PeerFloatAsked:
    """A peer would have moved from `remote` to where it was heard, had the device's FloatPolicy not been ASK."""

    revision: int
    device: str
    peer_id: int
    remote: Endpoint
    asked_remote: Endpoint
    asked_socket: str


@dataclass(frozen=True, slots=True)
class KeySwapNeeded:
    """A key was used up and removed."""

    revision: int
    device: str
    peer_id: int
    key_id: int


@dataclass(frozen=True, slots=True)
class KeyLimitNear:
    """A key comes near to a limit."""

    revision: int
    device: str
    peer_id: int
    key_id: int
    limit: KeyLimit


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """The connection of a TCP socket has ended; its peer was reported before."""

    revision: int
    device: str
    socket: str
    reason: DelReason


@dataclass(frozen=True, slots=True)
class WorkerRestarted:
    """A worker died and was replaced."""

    revision: int
    device: str
    worker_pid: int


Event = (
    DeviceCreated
    | DeviceDeleted
    | PeerCreated
    | PeerDeleted
    | PeerFloated
    | PeerFloatAsked
    | KeySwapNeeded
    | KeyLimitNear
    | SocketClosed
    | WorkerRestarted
)


@unique
class ErrorKind(Enum):
    """Family of an engine error; the API maps it to a gRPC status code of the same name."""

    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    FAILED_PRECONDITION = "failed_precondition"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    UNAVAILABLE = "unavailable"
    PERMISSION_DENIED = "permission_denied"
    INTERNAL = "internal"


class EngineError(Exception):
    """A request that the engine's state does not allow; nothing was changed.

    reason: as in ErrorInfo ("PEER_NOT_FOUND"); metadata repeats every dynamic part of the message.
    """

    def __init__(self, kind: ErrorKind, reason: str, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.metadata = metadata
