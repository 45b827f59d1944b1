"""What is done with each notified system call.

Knows which calls are shown, when one is left to the kernel, and how a datagram reaches the handler and the answers the
program. Must not know what netlink messages mean (handler) or when to wait (loop.py).

"Left to the kernel" (CONTINUE) is the safe answer to everything that is not ours or not understood: the kernel judges
bad pointers itself, and to a family it does not have it answers ENOENT, so no program ever hangs or reads a lost
acknowledgement. It is also why an error on our side may end in it, as long as nothing was sent on the program's behalf.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial

from structlog.typing import FilteringBoundLogger

from controlplane_shim.netlink.message import AckOptions
from controlplane_shim.supervisor import link_reads, outgoing, processes
from controlplane_shim.supervisor.architecture import Architecture
from controlplane_shim.supervisor.bpf_filter import NETLINK_GENERIC, NETLINK_ROUTE
from controlplane_shim.supervisor.handler import Handled, NetlinkHandler
from controlplane_shim.supervisor.link_reads import Unframed
from controlplane_shim.supervisor.listener import Listener, Notification, NotificationGone
from controlplane_shim.supervisor.replacement import BlockedCaller
from controlplane_shim.supervisor.tracee import Tracee
from controlplane_shim.supervisor.unicast import Unicaster

PROTOCOLS = (NETLINK_ROUTE, NETLINK_GENERIC)

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP, _NETLINK_DROP_MEMBERSHIP = 1, 2
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 10, 11
_SOCKET_TYPES = (socket.SOCK_RAW, socket.SOCK_DGRAM)
_SOCKET_TYPE_MASK = 0xF
_SOCKET_FLAGS = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_GROUP_BYTES = 4
_INT = 0xFFFFFFFF  # ints and descriptors stand in the low half of an argument
_KERNEL = (0, 0)  # port id and groups

# errors that come of what the caller passed, or of its death
_CALLERS_OWN = frozenset({errno.EBADF, errno.EFAULT, errno.EMSGSIZE, errno.ENOENT, errno.ENOTSOCK, errno.ESRCH})


class _Answer(Enum):
    """Other answers than a value to return."""

    CONTINUE = "the kernel executes the call"
    GIVEN = "answered already"


_Result = int | _Answer
_Call = Callable[[Notification, Tracee], _Result]


class SyscallServer:
    """Answers every notification exactly once.

    program_executable tells what the program executes now; injected are the descriptors the filter was built with.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root gives each part
        self,
        listener: Listener,
        injected: range,
        program_executable: Callable[[], processes.FileIdentity | None],
        handler: NetlinkHandler,
        unicaster: Unicaster,
        architecture: Architecture,
        log: FilteringBoundLogger,
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._unicaster = unicaster
        self._program_executable = program_executable
        self._injected = injected
        self._log = log
        self._namespace = processes.network_namespace(os.getpid())
        self._calls: dict[int, _Call] = {
            architecture.socket: self._socket,
            architecture.setsockopt: self._setsockopt,
            architecture.sendto: self._sending(outgoing.of_sendto),
            architecture.sendmsg: self._sending(outgoing.of_sendmsg),
            architecture.write: self._sending(outgoing.of_write),
            architecture.writev: self._sending(outgoing.of_writev),
            architecture.sendmmsg: self._sendmmsg,
            architecture.recvfrom: self._link_read,
        }

    def serve(self, notification: Notification) -> None:
        """Answers one notification, whatever happens. Raises NotificationGone."""
        result = self._result(notification)
        if result is _Answer.CONTINUE:
            self._listener.let_through(notification)
        elif not isinstance(result, _Answer):
            self._listener.give(notification, result)

    def _result(self, notification: Notification) -> _Result:
        try:
            with Tracee(notification.tid) as tracee:
                return self._calls[notification.number](notification, tracee)
        except outgoing.Malformed:
            pass
        except NotificationGone:
            raise
        except OSError as error:
            tell = self._log.debug if error.errno in _CALLERS_OWN else self._log.warning
            tell("system call left to the kernel", tid=notification.tid, error=str(error), exc_info=True)
        except Exception:  # noqa: BLE001 - a fault of ours must not leave the program waiting for ever
            self._log.exception("system call could not be served", tid=notification.tid)
        return _Answer.CONTINUE

    def _socket(self, notification: Notification, tracee: Tracee) -> _Result:
        _domain, kind, protocol = (argument & _INT for argument in notification.arguments[:3])
        flags = kind & ~_SOCKET_TYPE_MASK
        if kind & _SOCKET_TYPE_MASK not in _SOCKET_TYPES or flags & ~_SOCKET_FLAGS or not self._is_program(tracee):
            return _Answer.CONTINUE
        number = next((fd for fd in self._injected if not tracee.has_fd(fd)), None)
        if number is None:
            self._log.warning("no descriptor left to inject", pid=tracee.pid)
            return _Answer.CONTINUE
        with socket.socket(socket.AF_NETLINK, kind & _SOCKET_TYPE_MASK, protocol) as made:
            made.setblocking(not flags & socket.SOCK_NONBLOCK)
            close_on_exec = bool(flags & socket.SOCK_CLOEXEC)
            self._listener.inject(notification, made.fileno(), number, close_on_exec=close_on_exec)
        self._log.debug("netlink socket injected", pid=tracee.pid, fd=number, protocol=protocol)
        return _Answer.GIVEN

    def _is_program(self, tracee: Tracee) -> bool:
        """Whether this is the program and not a script of its, and would make its socket where we make it."""
        same = tracee.executable() == self._program_executable()
        return same and tracee.network_namespace() == self._namespace

    def _setsockopt(self, notification: Notification, tracee: Tracee) -> _Result:
        fd, level, option, value, length = notification.arguments[:5]
        change = {
            _NETLINK_ADD_MEMBERSHIP: self._handler.join_group,
            _NETLINK_DROP_MEMBERSHIP: self._handler.leave_group,
        }.get(option & _INT)
        if level & _INT != _SOL_NETLINK or change is None or length & _INT < _GROUP_BYTES:
            return _Answer.CONTINUE
        group = int.from_bytes(tracee.read(value, _GROUP_BYTES), "little")
        with self._fetch_socket(tracee, fd) as copy:
            self._assert_waiting(notification)
            # families of ours are generic netlink's; the same number means another group elsewhere
            is_ours = copy.proto == NETLINK_GENERIC and change(_port_id(copy), group)
        return 0 if is_ours else _Answer.CONTINUE

    def _sendmmsg(self, notification: Notification, tracee: Tracee) -> _Result:
        """Nothing that OpenVPN 2.6 or 2.7 is built on sends this way; the kernel will not know our families."""
        self._log.warning("sendmmsg on a netlink socket is not served", pid=tracee.pid, tid=notification.tid)
        return _Answer.CONTINUE

    def _sending(self, parse: Callable[[outgoing.Memory, tuple[int, ...]], outgoing.Outgoing]) -> _Call:
        def call(notification: Notification, tracee: Tracee) -> _Result:
            sent = parse(tracee, notification.arguments)
            with self._fetch_socket(tracee, notification.arguments[0]) as copy:
                self._assert_waiting(notification)
                if copy.family != socket.AF_NETLINK or copy.proto not in PROTOCOLS or not sent.datagram:
                    return _Answer.CONTINUE
                if (copy.getpeername() if sent.destination is None else sent.destination) != _KERNEL:
                    return _Answer.CONTINUE
                return self._hand_to_kernel(copy, sent.datagram, BlockedCaller(self._listener, notification, tracee))

        return call

    def _link_read(self, notification: Notification, tracee: Tracee) -> _Result:
        # Nobody takes a stream from a program that has its own data channel: then it costs a notification only. Nor
        # from a process that it has forked, such as the one of --port-share, which reads other protocols alike.
        if not self._handler.offers_offload() or tracee.parent != os.getpid():
            return _Answer.CONTINUE
        fd, address, length = notification.arguments[:3]
        with self._fetch_socket(tracee, fd) as link:
            if not link_reads.is_link(link):
                return _Answer.CONTINUE
            frame = link_reads.peek_frame(link, length)
            if frame is Unframed.NATIVE:
                return _Answer.CONTINUE
            if frame is Unframed.PARTIAL:
                return -errno.EAGAIN
            memory = tracee.open_memory()
            try:
                self._assert_waiting(notification)
                link_reads.take_frame(link, frame, memory, address)
            finally:
                os.close(memory)
            return len(frame)

    def _hand_to_kernel(self, copy: socket.socket, datagram: bytes, caller: BlockedCaller) -> _Result:
        port_id = _port_id(copy)
        handled = self._handler.handle(copy.proto, datagram, port_id, caller, _ack_options(copy))
        if handled.pass_through and not handled.kernel_messages and not handled.replies:
            return _Answer.CONTINUE
        done = 0
        try:
            for act in self._acts(handled, copy, port_id):
                act()
                done += 1
        except OSError as error:
            if not done:
                raise
            self._log.warning("answer is incomplete", pid=caller.pid, port_id=port_id, error=str(error))
        return len(datagram)

    def _acts(self, handled: Handled, copy: socket.socket, port_id: int) -> Iterator[Callable[[], object]]:
        for message in (*handled.pass_through, *handled.kernel_messages):
            yield partial(copy.sendto, message, _KERNEL)
        for reply in handled.replies:
            yield partial(self._unicaster.send, copy.proto, port_id, reply)

    @staticmethod
    def _fetch_socket(tracee: Tracee, fd: int) -> socket.socket:
        """A copy of the caller's socket. Raises OSError (ENOTSOCK if it is none)."""
        copy = tracee.fetch_fd(fd & _INT)
        try:
            return socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise

    def _assert_waiting(self, notification: Notification) -> None:
        if not self._listener.is_waiting(notification):
            raise NotificationGone


def _port_id(copy: socket.socket) -> int:
    """The port id of a netlink socket, which gets one if it has none, as its first send would give it."""
    port_id: int = copy.getsockname()[0]
    if not port_id:
        copy.bind(_KERNEL)
        port_id = copy.getsockname()[0]
    return port_id


def _ack_options(copy: socket.socket) -> AckOptions:
    """What the program has set on its socket; the kernel keeps it, for those options are left to it."""
    extended = copy.getsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK)
    return AckOptions(bool(extended), bool(copy.getsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK)))
