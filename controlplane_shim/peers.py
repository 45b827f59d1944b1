"""What a session has set up in the data plane: devices, their sockets and their peers.

Pure bookkeeping. Must not know gRPC, descriptors or netlink.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane_shim.gathering import Gathering
from controlplane_shim.operations import Family
from controlplane_shim.tcp_switch import ControlStream


@dataclass(slots=True)
class Socket:
    """The data plane's twin of one of OpenVPN's UDP sockets, or the TCP socket that was taken from it.

    inode: of OpenVPN's; gathering: what must end with the twin, None if the port is split by opcode; stream: what
    OpenVPN has instead of a TCP socket, None for UDP; peers: how many use it.
    """

    inode: int
    local_port: int
    gathering: Gathering | None = None
    stream: ControlStream | None = None
    peers: int = 0

    @property
    def name(self) -> str:
        """Its name in the data plane."""
        return f"openvpn-{self.inode}"

    @property
    def is_unused(self) -> bool:
        """Whether it can go. A TCP socket carries OpenVPN's control packets until that has closed its end."""
        return not self.peers and (self.stream is None or self.stream.is_abandoned())

    def close(self) -> None:
        """Ends what must end with it; the data plane has closed it. Repeatable."""
        if self.gathering is not None:
            self.gathering.close()
        if self.stream is not None:
            self.stream.close()


@dataclass(slots=True)
class Peer:
    """A peer. create_revision tells it from an earlier one of the same peer_id.

    wakes: how often OpenVPN is still to be woken, so that it looks after this peer's keys. is_ahead: its keys are
    swapped in the data plane, but OpenVPN has still to ask for it.
    """

    peer_id: int
    socket: Socket
    create_revision: int
    wakes: int = 0
    is_ahead: bool = False


@dataclass(slots=True)
class Device:
    """A device. name: the data plane's; stream: number of its event stream.

    deleted: somebody else deleted it in the data plane. expires: whether OpenVPN has set a keepalive timeout, None
    before it has said either. expired_peer_id: of the peer that OpenVPN was last told to have expired, None if what it
    was told of a loss since is something else. Sockets stand by inode.
    """

    name: str
    ifindex: int
    multipeer: bool
    family: Family
    stream: int = 0
    deleted: bool = False
    expires: bool | None = None
    expired_peer_id: int | None = None
    peers: dict[int, Peer] = field(default_factory=dict)
    sockets: dict[int, Socket] = field(default_factory=dict)

    def add(self, peer: Peer) -> list[Peer]:
        """Adds a peer; returns those that it displaces (the same peer_id; on a P2P device any)."""
        displaced = [old for old in self.peers.values() if old.peer_id == peer.peer_id or not self.multipeer]
        for old in displaced:
            self.remove(old.peer_id)
        self.peers[peer.peer_id] = peer
        peer.socket.peers += 1
        return displaced

    def remove(self, peer_id: int) -> None:
        """Removes a peer that is there."""
        self.peers.pop(peer_id).socket.peers -= 1

    def unused_sockets(self) -> list[Socket]:
        """The sockets that nobody needs any more."""
        return [socket for socket in self.sockets.values() if socket.is_unused]

    def missing_from(self, revisions: dict[int, int]) -> list[Peer]:
        """The peers that are not among those of a snapshot (create_revision by peer_id)."""
        return [peer for peer in self.peers.values() if revisions.get(peer.peer_id) != peer.create_revision]
