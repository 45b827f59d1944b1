"""What daemon and worker say to each other over a SOCK_SEQPACKET pair: one msgspec struct, as msgpack, a datagram.

Knows the shape of the messages. Must not know who sends them or what they do. A command is answered by
exactly one Reply, in order; events come unasked. Descriptors travel by SCM_RIGHTS in the same datagram,
in the order the command's docstring names. Key bytes are in InstallKey only, whose repr hides them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dataplane.vocabulary import DataFormat

MAX_MESSAGE: Final = 4096
"""No message is longer, in bytes."""

ROUTES_MAX: Final = 100
"""Routes in one message."""


class Endpoint(msgspec.Struct, frozen=True, array_like=True):
    """An endpoint: address of 4 or 16 bytes, port, IPv6 scope id (interface index) or 0."""

    address: bytes
    port: int
    scope_id: int = 0


class Configure(msgspec.Struct, frozen=True, tag=True):
    """First command. Descriptors: TUN, statistics page (see statistics_page.py)."""

    device: str
    mode: int
    rows: int
    skip_source_check: bool = False
    client_to_client: bool = False


class SetSwitches(msgspec.Struct, frozen=True, tag=True):
    """Sets switches of the device anew; they are as in the API."""

    skip_source_check: bool
    client_to_client: bool


class Route(msgspec.Struct, frozen=True, array_like=True):
    """A prefix, its address of 4 or 16 bytes without host bits, and where it leads: a peer_id or RouteTarget."""

    address: bytes
    length: int
    target: int


class SetRoutes(msgspec.Struct, frozen=True, tag=True):
    """Has prefixes lead somewhere else, ROUTES_MAX at most; all others stay. A peer takes its routes with it.

    A peer that there is not counts as NOBODY: it expired while the message was on its way.
    """

    routes: tuple[Route, ...]


class AddSocket(msgspec.Struct, frozen=True, tag=True):
    """Serves a bound UDP socket, or a connected TCP socket, under this number.

    Descriptors: the socket; for UDP perhaps a second one, its control outlet, for TCP its control stream (see
    AdoptSocketRequest in socket.proto). copy_dscp: packets get the DSCP of what they carry; for UDP.
    """

    socket_id: int
    copy_dscp: bool = False


class RemoveSocket(msgspec.Struct, frozen=True, tag=True):
    """Closes a socket. Its peers must have been removed."""

    socket_id: int


class SetTcpMss(msgspec.Struct, frozen=True, tag=True):
    """Sets the device's limits of the MSS option in bytes, 0 for none; they hold for peers without their own."""

    tcp_mss_ipv4: int = 0
    tcp_mss_ipv6: int = 0


class SetFloatPolicy(msgspec.Struct, frozen=True, tag=True):
    """Sets the device's FloatPolicy; at first it is ALLOW."""

    policy: int


class AddPeer(msgspec.Struct, frozen=True, tag=True):
    """Adds a peer whose counters go to row `row` (1..rows-1, zeroed by the daemon) of the page.

    `uid` tells this peer from others with the same peer_id. local and the vpn addresses are 4 or 16
    bytes or None. remote: None on a TCP socket, else required. Keepalives in seconds, 0 for none. tx_id: None for
    peer_id. The limits of the MSS option in bytes, 0 for none, None for the device's.
    """

    peer_id: int
    uid: int
    row: int
    socket_id: int
    remote: Endpoint | None
    local: bytes | None = None
    vpn_ipv4: bytes | None = None
    vpn_ipv6: bytes | None = None
    keepalive_interval_s: int = 0
    keepalive_timeout_s: int = 0
    tx_id: int | None = None
    tcp_mss_ipv4: int | None = None
    tcp_mss_ipv6: int | None = None


class UpdatePeer(msgspec.Struct, frozen=True, tag=True):
    """Changes what is not UNSET; a keepalive restarts both clocks. A socket_id comes with a remote, both UDP."""

    peer_id: int
    remote: Endpoint | msgspec.UnsetType = msgspec.UNSET
    local: bytes | msgspec.UnsetType | None = msgspec.UNSET
    vpn_ipv4: bytes | msgspec.UnsetType | None = msgspec.UNSET
    vpn_ipv6: bytes | msgspec.UnsetType | None = msgspec.UNSET
    keepalive_interval_s: int | msgspec.UnsetType = msgspec.UNSET
    keepalive_timeout_s: int | msgspec.UnsetType = msgspec.UNSET
    tx_id: int | msgspec.UnsetType | None = msgspec.UNSET
    tcp_mss_ipv4: int | msgspec.UnsetType | None = msgspec.UNSET
    tcp_mss_ipv6: int | msgspec.UnsetType | None = msgspec.UNSET
    socket_id: int | msgspec.UnsetType = msgspec.UNSET


class RemovePeer(msgspec.Struct, frozen=True, tag=True):
    """Removes a peer. After the reply its row changes no more."""

    peer_id: int


class InstallKey(msgspec.Struct, frozen=True, tag=True):
    """Puts a key into a slot; lengths as vocabulary.Cipher says, tails of 8 bytes.

    In the DataFormat EPOCH, encrypt_key and decrypt_key are secrets of epoch 1, of 32 bytes; the tails are empty, and
    cipher_key_length is that of the keys to derive, in bytes.
    """

    peer_id: int
    slot: int
    key_id: int
    cipher: int
    encrypt_key: bytes
    encrypt_nonce_tail: bytes
    decrypt_key: bytes
    decrypt_nonce_tail: bytes
    data_format: int = DataFormat.DATA_V2.value
    cipher_key_length: int = 0

    def __repr__(self) -> str:
        return f"InstallKey(peer_id={self.peer_id}, slot={self.slot}, key_id={self.key_id}, key bytes hidden)"


class SwapKeys(msgspec.Struct, frozen=True, tag=True):
    """Exchanges the slots."""

    peer_id: int


class DeleteKey(msgspec.Struct, frozen=True, tag=True):
    """Empties a slot. linger_ns: how long the key goes on to open packets, 0..LINGER_MAX_NS, of the secondary only."""

    peer_id: int
    slot: int
    linger_ns: int = 0


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Ends the worker after the reply."""


Command = (
    Configure
    | SetSwitches
    | SetRoutes
    | AddSocket
    | RemoveSocket
    | AddPeer
    | UpdatePeer
    | RemovePeer
    | InstallKey
    | SwapKeys
    | DeleteKey
    | Stop
    | SetTcpMss
    | SetFloatPolicy
)


class Request(msgspec.Struct, frozen=True):
    """A command with the number that its reply repeats."""

    request_id: int
    command: Command


class Reply(msgspec.Struct, frozen=True, tag=True):
    """Answer to a command. error: empty, or the reason as in the API's ErrorInfo (PEER_NOT_FOUND, …)."""

    request_id: int
    error: str = ""
    detail: str = ""


class PeerExpired(msgspec.Struct, frozen=True, tag=True):
    """The worker removed a peer by its keepalive_timeout; its row changes no more."""

    peer_id: int
    uid: int


class PeerFloated(msgspec.Struct, frozen=True, tag=True):
    """A peer is at a new address, or on another socket, from which an authentic and newest packet came."""

    peer_id: int
    uid: int
    remote: Endpoint
    socket_id: int


class PeerFloatAsked(msgspec.Struct, frozen=True, tag=True):
    """As PeerFloated, but the peer stays where it is: the device's FloatPolicy is ASK."""

    peer_id: int
    uid: int
    remote: Endpoint
    socket_id: int


class KeyExhausted(msgspec.Struct, frozen=True, tag=True):
    """The primary key was used up and was removed."""

    peer_id: int
    uid: int
    key_id: int


class KeyLimitNear(msgspec.Struct, frozen=True, tag=True):
    """A key of a peer comes near to a limit (vocabulary.KeyLimit)."""

    peer_id: int
    uid: int
    key_id: int
    limit: int


class DeviceClosed(msgspec.Struct, frozen=True, tag=True):
    """The TUN is gone (somebody deleted the interface); the worker serves nothing any more."""

    errno: int


class TransportClosed(msgspec.Struct, frozen=True, tag=True):
    """A TCP socket can carry nothing more: the worker removed its peer and serves it no more. Said once.

    reason: DelReason TRANSPORT_DISCONNECT if the other end closed or reset it, else TRANSPORT_ERROR.
    """

    socket_id: int
    reason: int


FromWorker = (
    Reply | PeerExpired | PeerFloated | PeerFloatAsked | KeyExhausted | KeyLimitNear | DeviceClosed | TransportClosed
)
