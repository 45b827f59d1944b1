"""What each command of the daemon does.

Knows the messages and whose business each is: the data channel's, or the packet path's. Must not know how messages
come and go. A command that fails changes nothing and ends nothing; its Reply says why. The API has checked all values,
so a wrong one is a fault of the daemon; those that would hurt only later, on the packet path, are refused here.
"""

from __future__ import annotations

import time
from collections.abc import MutableSequence, Sequence
from typing import Any, Final, cast

from msgspec import UNSET

from dataplane.datachannel.keepalive import Keepalive
from dataplane.datachannel.key_direction import EpochSecret, KeyDirection
from dataplane.datachannel.mss import MssLimits
from dataplane.datachannel.outcomes import PeerExists, UnknownPeer
from dataplane.datachannel.wire import reset_mark
from dataplane.messages import (
    AddPeer,
    AddSocket,
    Command,
    Configure,
    DeleteKey,
    Endpoint,
    InstallKey,
    RemovePeer,
    RemoveSocket,
    Reply,
    Request,
    SetFloatPolicy,
    SetRoutes,
    SetSwitches,
    SetTcpMss,
    Stop,
    SwapKeys,
    UpdatePeer,
)
from dataplane.statistics_page import DEVICE_ROW, StatisticsPage
from dataplane.transport import Transport, open_transport
from dataplane.transport.sockaddr import AddressFamilyMismatch, SockAddr
from dataplane.transport.tcp import TcpTransport
from dataplane.transport.tcp_socket import NotAControlStream
from dataplane.transport.udp_socket import NotAUdpSocket, SocketNotBound
from dataplane.vocabulary import (
    LINGER_MAX_NS,
    PEER_ID_UNDEF,
    TCP_MSS_IPV4_MAX,
    Cipher,
    DataFormat,
    FloatPolicy,
    KeySlot,
    Mode,
)
from dataplane.worker.datapath import Datapath, PacketPath

KEEPALIVE_MAX_S: Final = 86400
"""A day, as in the API."""
ROWS_MAX: Final = PEER_ID_UNDEF + 1
"""One for the device, and one for each peer-id."""

_DESCRIPTORS: Final[dict[type[Command], set[int]]] = {Configure: {2}, AddSocket: {1, 2}}
"""How many descriptors a command may come with; others come with none."""


class Refused(Exception):
    """A command that cannot be done. reason: as in the API's ErrorInfo."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Commands:
    """Does commands. path: None before Configure; stopped: after Stop.

    wake_fd: readable when commands wait.
    """

    def __init__(self, datapath: Datapath, wake_fd: int) -> None:
        self._datapath = datapath
        self._wake_fd = wake_fd
        self._device: _DeviceCommands | None = None
        self.path: PacketPath | None = None
        self.stopped = False

    def answer(self, request: Request, descriptors: Sequence[int]) -> Reply:
        """Does a command. Its descriptors stay the caller's; what is needed of them is duplicated."""
        try:
            self._do(request.command, descriptors)
        except Refused as refused:
            return Reply(request.request_id, refused.reason, str(refused))
        except UnknownPeer as error:
            return Reply(request.request_id, "PEER_NOT_FOUND", str(error))
        except PeerExists as error:
            return Reply(request.request_id, "PEER_EXISTS", str(error))
        except AddressFamilyMismatch as error:
            return Reply(request.request_id, "ADDRESS_FAMILY_MISMATCH", str(error))
        except (ValueError, OSError, NotAUdpSocket, SocketNotBound, NotAControlStream) as error:
            return Reply(request.request_id, "INTERNAL", str(error))
        return Reply(request.request_id)

    def _do(self, command: Command, descriptors: Sequence[int]) -> None:
        if len(descriptors) not in _DESCRIPTORS.get(type(command), {0}):
            raise ValueError(f"{type(command).__name__} with {len(descriptors)} descriptors")
        if isinstance(command, Stop):
            self.stopped = True
        elif isinstance(command, Configure):
            self._configure(command, *descriptors)
        elif self._device is None:
            raise ValueError(f"{type(command).__name__} before Configure")
        else:
            self._device.do(command, descriptors)

    def _configure(self, command: Configure, tun_fd: int, page_fd: int) -> None:
        if self._device is not None:
            raise ValueError("Configure a second time")
        page = StatisticsPage(page_fd, _in_range("rows", command.rows, 1, ROWS_MAX))
        channel = self._datapath.data_channel(Mode(command.mode), _row(page, DEVICE_ROW))
        self.path = self._datapath.packet_path(channel, tun_fd, self._wake_fd)
        self._device = _DeviceCommands(self._datapath, self.path, page)
        self._device.do(SetSwitches(command.skip_source_check, command.client_to_client), ())


class _DeviceCommands:
    def __init__(self, datapath: Datapath, path: PacketPath, page: StatisticsPage) -> None:
        self._datapath = datapath
        self._path = path
        self._channel = path.channel
        self._page = page

    def do(self, command: Command, descriptors: Sequence[int]) -> None:
        match command:
            case SetSwitches(skip_source_check, client_to_client):
                self._channel.set_switches(skip_source_check=skip_source_check, client_to_client=client_to_client)
            case SetRoutes():
                for route in command.routes:
                    self._channel.set_route((route.address, route.length), route.target)
            case AddSocket():
                self._add_socket(command, *descriptors)
            case RemoveSocket():
                self._path.remove_transport(self._transport(command.socket_id))
            case SetTcpMss():
                self._channel.set_device_mss(MssLimits(_mss(command.tcp_mss_ipv4), _mss(command.tcp_mss_ipv6)))
            case SetFloatPolicy():
                self._channel.set_float_policy(FloatPolicy(command.policy))
            case AddPeer():
                self._add_peer(command)
            case UpdatePeer():
                self._update_peer(command)
            case RemovePeer():
                self._channel.remove_peer(command.peer_id)
            case InstallKey():
                self._path.install_key(command.peer_id, KeySlot(command.slot), self._data_key(command))
            case SwapKeys():
                self._channel.swap_keys(command.peer_id)
            case DeleteKey():
                self._delete_key(command)

    def _transport(self, socket_id: int) -> Transport:
        transport = self._path.transport(socket_id)
        if transport is None:
            raise Refused("SOCKET_NOT_FOUND", f"no socket {socket_id}")
        return transport

    def _add_socket(self, command: AddSocket, fd: int, control_fd: int | None = None) -> None:
        if self._path.transport(command.socket_id) is not None:
            raise Refused("SOCKET_EXISTS", f"socket {command.socket_id} is there already")
        transport = open_transport(command.socket_id, fd, control_fd, reset_mark, copy_dscp=command.copy_dscp)
        self._path.add_transport(transport)

    def _add_peer(self, command: AddPeer) -> None:
        transport = self._transport(command.socket_id)
        if isinstance(transport, TcpTransport):
            self._require_carrying(transport)
        peer = self._datapath.peer(
            peer_id=_in_range("peer_id", command.peer_id, 0, PEER_ID_UNDEF - 1),
            uid=command.uid,
            socket_id=command.socket_id,
            remote=_sockaddr(transport, command.remote),
            row=_row(self._page, _in_range("row", command.row, DEVICE_ROW + 1, self._page.rows - 1)),
            local=_local_address(transport, command.local),
            vpn_ipv4=_vpn_address(command.vpn_ipv4, 4),
            vpn_ipv6=_vpn_address(command.vpn_ipv6, 16),
            keepalive=Keepalive(_seconds(command.keepalive_interval_s), _seconds(command.keepalive_timeout_s)),
            tx_id=_tx_id(command.tx_id),
        )
        own_mss = _own_mss(command.tcp_mss_ipv4), _own_mss(command.tcp_mss_ipv6)
        self._channel.add_peer(peer, time.monotonic_ns())
        self._channel.set_mss(peer.peer_id, own_mss)

    def _require_carrying(self, stream: TcpTransport) -> None:
        if stream.closed is not None:
            raise Refused("SOCKET_CLOSED", f"the stream of socket {stream.socket_id} has ended")
        if self._channel.peer_of_stream(stream.socket_id) is not None:
            raise Refused("SOCKET_IN_USE", f"socket {stream.socket_id} carries a peer already")

    def _update_peer(self, command: UpdatePeer) -> None:
        peer = self._channel.peer(command.peer_id)
        remote, local, socket_id = peer.remote, peer.local, peer.socket_id
        if command.socket_id is not UNSET:
            if command.remote is UNSET:
                raise ValueError("a socket without a remote")
            socket_id = command.socket_id
        if command.remote is not UNSET:
            remote = _sockaddr(self._transport(socket_id), command.remote)
        if command.local is not UNSET:
            local = _local_address(self._transport(socket_id), command.local)
        vpn_ipv4 = peer.vpn_ipv4 if command.vpn_ipv4 is UNSET else _vpn_address(command.vpn_ipv4, 4)
        vpn_ipv6 = peer.vpn_ipv6 if command.vpn_ipv6 is UNSET else _vpn_address(command.vpn_ipv6, 16)
        interval_s, timeout_s = command.keepalive_interval_s, command.keepalive_timeout_s
        new_interval_s = peer.keepalive.interval_s if interval_s is UNSET else _seconds(interval_s)
        new_timeout_s = peer.keepalive.timeout_s if timeout_s is UNSET else _seconds(timeout_s)
        tx_id = peer.tx_id if command.tx_id is UNSET else _tx_id(command.tx_id)
        mss_ipv4 = peer.own_mss[0] if command.tcp_mss_ipv4 is UNSET else _own_mss(command.tcp_mss_ipv4)
        mss_ipv6 = peer.own_mss[1] if command.tcp_mss_ipv6 is UNSET else _own_mss(command.tcp_mss_ipv6)

        # Nothing after this can fail, so that an update is done whole or not at all.
        try:
            self._channel.set_vpn_addresses(peer.peer_id, vpn_ipv4, vpn_ipv6)
        except PeerExists as error:
            raise Refused("VPN_ADDRESS_IN_USE", str(error)) from error
        self._channel.set_remote(peer.peer_id, remote, local, socket_id)
        self._channel.set_tx_id(peer.peer_id, tx_id)
        self._channel.set_mss(peer.peer_id, (mss_ipv4, mss_ipv6))
        if interval_s is not UNSET or timeout_s is not UNSET:
            self._channel.set_keepalive(peer.peer_id, new_interval_s, new_timeout_s, time.monotonic_ns())

    def _delete_key(self, command: DeleteKey) -> None:
        slot = KeySlot(command.slot)
        linger_ns = _in_range("linger_ns", command.linger_ns, 0, LINGER_MAX_NS if slot is KeySlot.SECONDARY else 0)
        if linger_ns:
            self._channel.let_key_linger(command.peer_id, time.monotonic_ns() + linger_ns)
        else:
            self._channel.delete_key(command.peer_id, slot)

    def _data_key(self, command: InstallKey) -> Any:
        if DataFormat(command.data_format) is DataFormat.EPOCH:
            return self._datapath.epoch_key(
                command.key_id,
                Cipher(command.cipher),
                encrypt_dir=EpochSecret(command.encrypt_key, command.cipher_key_length),
                decrypt_dir=EpochSecret(command.decrypt_key, command.cipher_key_length),
            )
        return self._datapath.data_key(
            command.key_id,
            Cipher(command.cipher),
            encrypt_dir=KeyDirection(command.encrypt_key, command.encrypt_nonce_tail),
            decrypt_dir=KeyDirection(command.decrypt_key, command.decrypt_nonce_tail),
        )


def _row(page: StatisticsPage, index: int) -> MutableSequence[int]:
    # A memoryview is a mutable sequence of fixed length; typeshed knows no such thing.
    return cast("MutableSequence[int]", page.row(index))


def _sockaddr(transport: Transport, remote: Endpoint | None) -> SockAddr | None:
    if isinstance(transport, TcpTransport):
        if remote is not None:
            raise ValueError("a remote on a TCP socket")
        return None
    if remote is None:
        raise ValueError("no remote on a UDP socket")
    return transport.sockaddr(remote.address, remote.port, remote.scope_id)


def _local_address(transport: Transport, local: bytes | None) -> bytes | None:
    if local is None:
        return None
    if isinstance(transport, TcpTransport):
        raise ValueError("a local address on a TCP socket")  # noqa: TRY004 - the value is wrong, not its type
    return transport.local_address(local)


def _vpn_address(address: bytes | None, length: int) -> bytes | None:
    if address is not None and len(address) != length:
        raise ValueError(f"a VPN address of {len(address)} bytes instead of {length}")
    return address


def _tx_id(value: int | None) -> int | None:
    return None if value is None else _in_range("tx_id", value, 0, PEER_ID_UNDEF - 1)


def _seconds(value: int) -> int:
    return _in_range("keepalive", value, 0, KEEPALIVE_MAX_S)


def _own_mss(value: int | None) -> int | None:
    return None if value is None else _mss(value)


def _mss(value: int) -> int:
    return _in_range("tcp_mss", value, 0, TCP_MSS_IPV4_MAX)


def _in_range(name: str, value: int, lowest: int, highest: int) -> int:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} {value} is not in {lowest}..{highest}")
    return value
