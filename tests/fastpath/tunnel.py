"""A compiled data channel with one socket, a stand-in for its TUN, and the peers at the other end."""

from __future__ import annotations

import socket
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Interface
from itertools import zip_longest
from pathlib import Path
from select import select
from typing import Any, Final

from pyroute2 import IPRoute

from dataplane.datachannel.key_direction import KeyDirection
from dataplane.fastpath.aead import DataKey
from dataplane.fastpath.channel import DataChannel, Peer
from dataplane.fastpath.udp_socket import UdpSockets
from dataplane.statistics_page import drops_of
from dataplane.transport.udp import UdpTransport
from dataplane.transport.udp_socket import UDP_GRO, UDP_SEGMENT, enlarge_buffers
from dataplane.tun.link import set_link
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.tun.virtio import FRAME_MAX
from dataplane.vocabulary import ROW_WORDS, Cipher, DropReason, KeySlot, Mode

SOCKET_ID: Final = 1
LOOPBACK: Final[dict[int, str]] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_TO_PEER: Final = KeyDirection(b"t" * 32, b"t" * 8)
_FROM_PEER: Final = KeyDirection(b"f" * 32, b"f" * 8)


def near_key(key_id: int = 0) -> Any:
    return DataKey(key_id, Cipher.AES_GCM, encrypt_dir=_TO_PEER, decrypt_dir=_FROM_PEER)


def far_key(key_id: int = 0) -> Any:
    return DataKey(key_id, Cipher.AES_GCM, encrypt_dir=_FROM_PEER, decrypt_dir=_TO_PEER)


def new_row() -> array[int]:
    return array("Q", bytes(ROW_WORDS * 8))


class FarEnd:
    """The other end of a peer."""

    def __init__(self, tunnel: Tunnel, peer_id: int, udp: socket.socket) -> None:
        self.peer_id = peer_id
        self.row = new_row()
        self.udp = udp
        self.udp.settimeout(10)
        self.key = far_key()
        self._to = tunnel.udp.getsockname()
        vpn_ipv4 = bytes([10, 8, 0, 10 + peer_id])
        remote = self.udp.getsockname()
        self.peer = Peer(
            peer_id=peer_id,
            uid=100 + peer_id,
            socket_id=SOCKET_ID,
            remote=remote,
            row=self.row,
            vpn_ipv4=vpn_ipv4,
        )

    @property
    def drops(self) -> dict[DropReason, int]:
        return drops_of(self.row)

    def seal(self, *packets: bytes) -> list[bytes]:
        """OpenVPN packets from this end."""
        return [self.key.seal(self.peer_id, packet) for packet in packets]

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.udp.sendto(datagram, self._to)

    def send_train(self, *datagrams: bytes) -> None:
        """All in one call, so that they come as one where the socket wants that. Of equal size but for the last."""
        size = len(datagrams[0]).to_bytes(2, "little")
        self.udp.sendmsg(datagrams, [(socket.IPPROTO_UDP, UDP_SEGMENT, size)], 0, self._to)

    def hear(self, count: int) -> list[bytes]:
        """The next IP packets to this end."""
        return [self.key.open(self.udp.recv(65535)) for _ in range(count)]

    def hears_nothing_more(self) -> bool:
        return select([self.udp], [], [], 0) == ([], [], [])


class Tunnel:
    """The near end. frames: the far side of what stands for the TUN."""

    def __init__(self, stack: ExitStack, mode: Mode, family: int) -> None:
        self._stack = stack
        self.family = family
        self.row = new_row()
        self.channel = DataChannel(mode, self.row)
        self.tun, self.frames = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.tun, self.frames):
            stack.enter_context(end)
            end.setblocking(False)
            enlarge_buffers(end)
        self.udp = self.loopback_socket()
        self.transport = UdpTransport(SOCKET_ID, self.udp.fileno())
        stack.callback(self.transport.close)
        self.udp.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        self.sockets = UdpSockets()
        self.sockets.insert(SOCKET_ID, self.transport.fd)

    def loopback_socket(self) -> socket.socket:
        udp = self._stack.enter_context(socket.socket(self.family, socket.SOCK_DGRAM))
        udp.bind((LOOPBACK[self.family], 0))
        enlarge_buffers(udp)
        return udp

    @property
    def drops(self) -> dict[DropReason, int]:
        """What was dropped before a peer was known."""
        return drops_of(self.row)

    def add_peer(self, peer_id: int = 1, udp: socket.socket | None = None) -> FarEnd:
        far = FarEnd(self, peer_id, udp or self.loopback_socket())
        self.channel.add_peer(far.peer, 0)
        self.channel.install_key(peer_id, KeySlot.PRIMARY, near_key(), 0)
        return far

    def written(self) -> list[bytes]:
        """The frames that were written to the TUN."""
        frames = []
        while True:
            try:
                frames.append(self.frames.recv(FRAME_MAX))
            except BlockingIOError:
                return frames


@contextmanager
def tunnel(mode: Mode = Mode.P2P, family: int = socket.AF_INET) -> Iterator[Tunnel]:
    with ExitStack() as stack:
        yield Tunnel(stack, mode, family)


def add_veth(namespaces: tuple[str, str], *addresses: IPv4Interface) -> None:
    """A veth pair, "veth0" in the first namespace and "veth1" in the second, up, with these addresses one each."""
    with Path(namespaces[1]).open() as second:
        peer = {"ifname": "veth1", "net_ns_fd": second.fileno()}
        in_network_namespace(namespaces[0], lambda: _add_link(ifname="veth0", kind="veth", peer=peer))
    for namespace, name, address in zip_longest(namespaces, ("veth0", "veth1"), addresses):
        set_link(name, namespace, admin_up=True, addresses=[address] if address else [])


def _add_link(**attributes: object) -> None:
    with IPRoute() as rtnetlink:
        rtnetlink.link("add", **attributes)
