"""ovpn-shim with a session that needs no data plane: `fake_shim.py PROGRAM ARGS…`.

Serves family ovpn-dco-v2 with the commands of netlink_client.py, and RTM_NEWLINK of kind ovpn-dco.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys

from structlog.typing import FilteringBoundLogger

from controlplane_shim import app
from controlplane_shim.netlink.message import PLAIN_ACKS, AckOptions
from controlplane_shim.supervisor import front
from controlplane_shim.supervisor.handler import Caller, Handled, Notice
from controlplane_shim.tuning import Tuning
from tests.shim.supervisor import netlink_client as nl

NOOP = 1
RTM_NEWLINK = 16


class FakeHandler:
    def __init__(self) -> None:
        self.members: list[int] = []
        self.echoes = 0
        self.options = 0, PLAIN_ACKS
        self.notices: list[Notice] = []
        self.reason = ""
        self.broken = False
        self.offers = True
        self.kept: list[socket.socket] = []
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def handle(
        self, protocol: int, datagram: bytes, port_id: int, caller: Caller, options: AckOptions = PLAIN_ACKS
    ) -> Handled:
        self.options = port_id, options
        handled = Handled()
        rest = datagram
        while rest:
            length, kind, _flags, sequence, _port = struct.unpack_from("=IHHII", rest)
            whole, rest = rest[:length], rest[(length + 3) & ~3 :]
            self._one(handled, protocol, kind, sequence, whole, caller)
        return handled

    def _one(self, handled: Handled, protocol: int, kind: int, sequence: int, whole: bytes, caller: Caller) -> None:
        if protocol == nl.ROUTE and kind == RTM_NEWLINK and b"ovpn-dco" in whole:
            handled.kernel_messages.append(nl.message(NOOP, b"", sequence))
        elif protocol == nl.GENERIC and kind == nl.CONTROL_FAMILY and b"ovpn-dco-v2\0" in whole:
            attribute = struct.pack("=HHH2x", 6, 1, nl.FAKE_FAMILY)  # CTRL_ATTR_FAMILY_ID
            handled.replies.append(nl.message(nl.CONTROL_FAMILY, struct.pack("=BBH", 1, 2, 0) + attribute, sequence))
            handled.replies.append(self._ack(sequence))
        elif protocol == nl.GENERIC and kind == nl.FAKE_FAMILY:
            self._command(handled, whole[16], whole[20:], sequence, caller)
        else:
            handled.pass_through.append(whole)

    def _command(self, handled: Handled, command: int, payload: bytes, sequence: int, caller: Caller) -> None:
        replies: list[bytes] = []
        if command == nl.ECHO:
            self.echoes += 1
            replies = [payload]
        elif command == nl.OPTIONS:
            port_id, options = self.options
            replies = [struct.pack("=I??", port_id, options.extended, options.capped)]
        elif command == nl.COUNT:
            replies = [struct.pack("=I", self.echoes)]
        elif command == nl.RAISE:
            raise RuntimeError("the session has a fault")
        elif command == nl.NOTICE:
            count = struct.unpack("=I", payload)[0]
            notice = nl.message(nl.FAKE_FAMILY, bytes(1000))
            self.notices += [Notice(port_id, notice) for port_id in self.members for _ in range(count)]
            os.eventfd_write(self.bell, 1)
        elif command == nl.FATAL:
            self.notices += [Notice(port_id, nl.message(nl.FAKE_FAMILY, b"last")) for port_id in self.members]
            self.reason = "the data plane is gone"
            os.eventfd_write(self.bell, 1)
        elif command == nl.INODE:
            copy = caller.fetch_fd(struct.unpack("=I", payload)[0])
            replies = [struct.pack("=QI", os.fstat(copy).st_ino, caller.pid)]
            os.close(copy)
        elif command == nl.SWITCH:
            replies = [self._switch(caller, payload)]
        elif command == nl.SILENT:
            return
        elif command == nl.RAISE_IN_NOTICES:
            self.broken = True
            os.eventfd_write(self.bell, 1)
        elif command == nl.FLOOD:
            replies = [struct.pack("=I", number) + bytes(1000) for number in range(struct.unpack("=I", payload)[0])]
        handled.replies.extend(nl.message(nl.FAKE_FAMILY, reply, sequence) for reply in replies)
        handled.replies.append(self._ack(sequence))

    def _switch(self, caller: Caller, payload: bytes) -> bytes:
        """Puts one end of a pair, with the rest of the payload in it, in the place of a descriptor; the errno."""
        (fd,) = struct.unpack_from("=I", payload)
        ours, theirs = socket.socketpair()
        ours.send(payload[4:])
        self.kept.append(ours)  # for as long as the program runs
        with theirs:
            try:
                caller.replace_fd(fd, theirs.fileno())
            except OSError as error:
                return struct.pack("=I", error.errno or 0)
        return struct.pack("=I", 0)

    @staticmethod
    def _ack(sequence: int) -> bytes:
        return nl.message(nl.ERROR, struct.pack("=i", 0) + bytes(16), sequence)

    def join_group(self, port_id: int, group: int) -> bool:
        if group != nl.FAKE_GROUP:
            return False
        self.members.append(port_id)
        return True

    def leave_group(self, port_id: int, group: int) -> bool:
        if group != nl.FAKE_GROUP:
            return False
        self.members.remove(port_id)
        return True

    def member_gone(self, port_id: int) -> None:
        self.members.remove(port_id)
        self.echoes += 1000  # so that the program can see it

    def offers_offload(self) -> bool:
        return self.offers

    def notices_fd(self) -> int:
        return self.bell

    def take_notices(self) -> list[Notice]:
        os.eventfd_read(self.bell)
        if self.broken:
            raise RuntimeError("the session has a fault")
        notices, self.notices = self.notices, []
        return notices

    def fatal(self) -> str:
        return self.reason

    def close(self) -> None:
        os.close(self.bell)


def open_fake_session(target: str, _handoff: str | None, _log: FilteringBoundLogger, _tuning: Tuning) -> FakeHandler:
    if target == "refused":
        raise ValueError("this target cannot be")
    if target == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    handler = FakeHandler()
    handler.offers = target != "declined"
    if target == "broken":
        handler.bell = -1
    return handler


if __name__ == "__main__":
    if sys.argv[1] == "--supervisor":
        sys.exit(app.main(sys.argv[2:], open_session=open_fake_session))
    target = os.environ.get("FAKE_TARGET", "fake")
    supervisor = [sys.executable, __file__, "--supervisor", "--target", target, "--log-level", "debug"]
    sys.exit(front.run(supervisor, sys.argv[1:]))
