"""The seam between the supervisor (system calls of the program) and the session (what they mean).

Knows only types. The supervisor takes a netlink datagram out of a blocked system call, asks a
NetlinkHandler what to do with it, does that, and only then lets the program go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from controlplane_shim.netlink.message import PLAIN_ACKS, AckOptions


class Caller(Protocol):
    """The process whose system call is being handled. Valid until handle() returns."""

    @property
    def pid(self) -> int:
        """Thread-group id."""

    def is_admin(self) -> bool:
        """Whether it has CAP_NET_ADMIN in the shim's user namespace. Raises OSError if it is gone."""

    def fetch_fd(self, fd: int) -> int:
        """A copy of the caller's descriptor (pidfd_getfd); close it. Raises OSError (EBADF if it has none)."""

    def replace_fd(self, fd: int, source: int) -> None:
        """Puts our descriptor source in the place of the caller's fd, for epoll as well.

        Raises OSError, and then nothing has changed.
        """


@dataclass(frozen=True, slots=True)
class Handled:
    """What the supervisor does before it answers the system call, in this order.

    pass_through: messages that are not ours. If nothing else is set, the system call goes on untouched (CONTINUE);
        otherwise they are sent on through a copy of the caller's socket.
    kernel_messages: sent through a copy of the caller's socket, so that the kernel itself answers.
    replies: datagrams, sent by unicast to the caller's port id.
    """

    replies: list[bytes] = field(default_factory=list)
    kernel_messages: list[bytes] = field(default_factory=list)
    pass_through: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Notice:
    """A datagram for a member of a multicast group."""

    port_id: int
    datagram: bytes


class NetlinkHandler(Protocol):
    """What the session gives the supervisor. Every method is called from the supervisor's one thread."""

    def handle(
        self, protocol: int, datagram: bytes, port_id: int, caller: Caller, options: AckOptions = PLAIN_ACKS
    ) -> Handled:
        """Treats one datagram that the program sent to the kernel (protocol 0 rtnetlink, 16 generic netlink).

        options: what its socket wants of acknowledgements.
        Never raises; whatever goes wrong becomes an error reply or, before a family was offered, ENOENT.
        """

    def join_group(self, port_id: int, group: int) -> bool:
        """NETLINK_ADD_MEMBERSHIP. True if the group is ours (and now joined), False to let the kernel see it."""

    def leave_group(self, port_id: int, group: int) -> bool:
        """NETLINK_DROP_MEMBERSHIP, likewise."""

    def member_gone(self, port_id: int) -> None:
        """A notice to this port id could not be delivered (ECONNREFUSED: the socket is closed)."""

    def offers_offload(self) -> bool:
        """Whether a stream of the program's may come to be replaced: until then it has to read whole frames only."""

    def notices_fd(self) -> int:
        """Readable when take_notices() has something, or when fatal() changed; take_notices() makes it unreadable."""

    def take_notices(self) -> list[Notice]:
        """What is to be sent to the program unasked, in order."""

    def fatal(self) -> str:
        """Why the program cannot be served any more (the data plane is gone), empty while it can.

        The supervisor sends the notices first, then ends the program with SIGTERM.
        """

    def close(self) -> None:
        """The program has ended: gives everything back (devices, sockets, connections)."""
