"""The session of one OpenVPN: answers its netlink datagrams and keeps the members of its multicast groups.

Knows which answer goes where. Must not know netlink bytes (translate/), nor what an operation takes (offload.py).
Before the first GETFAMILY of one of our families is answered, the self-test decides whether OpenVPN is to hear of
data channel offload at all; nothing is connected before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from errno import EIO, ENOENT, EOPNOTSUPP, errorcode
from traceback import format_exception
from typing import Final

from structlog.typing import FilteringBoundLogger

from controlplane_shim.event_feed import Bell
from controlplane_shim.offload import Offload
from controlplane_shim.operations import Done, Failed, Family, GetFamily, NewKey, NewLink, Operation, Outcome
from controlplane_shim.selftest import Connector, DaemonConnector, NotReadyError, establish
from controlplane_shim.supervisor.handler import Caller, Handled, NetlinkHandler, Notice
from controlplane_shim.translate.translator import Request, Translator
from controlplane_shim.tun import interface_exists

RETEST_SECONDS: Final = 1.0
"""A failed self-test stands for so long: OpenVPN asks more than once in a start, and must hear the same."""


def open_session(target: str, handoff: str | None, log: FilteringBoundLogger, mss: int = 0) -> NetlinkHandler:
    """A session with the daemon at the gRPC address `target`. Returns at once, whether or not there is a daemon.

    handoff: path of the daemon's hand-off socket, None to ask the daemon for it. mss: see Offload.
    """
    return Session(DaemonConnector(target, handoff), log, mss=mss)


class Session:
    """NetlinkHandler over a data plane."""

    def __init__(
        self,
        connector: Connector,
        log: FilteringBoundLogger,
        now: Callable[[], float] = time.monotonic,
        *,
        mss: int = 0,
    ) -> None:
        """now: seconds on any clock that never goes back. mss: see Offload."""
        self._connector = connector
        self._log = log
        self._now = now
        self._mss = mss
        self._translator = Translator()
        self._bell = Bell()
        self._members: dict[tuple[int, Family], None] = {}
        self._offload: Offload | None = None
        self._retest_at = now()

    def handle(self, protocol: int, datagram: bytes, port_id: int, caller: Caller) -> Handled:
        """See NetlinkHandler."""
        handled = Handled()
        for request in self._translator.requests(protocol, datagram):
            self._answer(request, port_id, caller, handled)
        return handled

    def join_group(self, port_id: int, group: int) -> bool:
        """See NetlinkHandler."""
        family = self._translator.group_of(group)
        if family is None:
            return False
        self._members[port_id, family] = None
        return True

    def leave_group(self, port_id: int, group: int) -> bool:
        """See NetlinkHandler."""
        family = self._translator.group_of(group)
        if family is None:
            return False
        self._members.pop((port_id, family), None)
        return True

    def member_gone(self, port_id: int) -> None:
        """See NetlinkHandler."""
        self._members = {member: None for member in self._members if member[0] != port_id}

    def notices_fd(self) -> int:
        """See NetlinkHandler."""
        return self._bell.fileno()

    def take_notices(self) -> list[Notice]:
        """See NetlinkHandler."""
        self._bell.silence()
        if self._offload is None:
            return []
        return [
            Notice(port_id, self._translator.deletion_notice(deletion))
            for deletion in self._offload.take_deletions()
            for port_id, family in self._members
            if family is deletion.family
        ]

    def fatal(self) -> str:
        """See NetlinkHandler."""
        return self._offload.fatal if self._offload is not None else ""

    def close(self) -> None:
        """See NetlinkHandler."""
        if self._offload is not None:
            self._offload.close()
        self._bell.close()

    def _answer(self, request: Request, port_id: int, caller: Caller, handled: Handled) -> None:
        operation = request.operation
        if request.error is not None:
            self._log.warning("malformed request", protocol=request.protocol, reason=request.error.text)
            handled.replies.extend(self._translator.replies(request, port_id, request.error))
        elif operation is None or (isinstance(operation, NewLink) and interface_exists(operation.name)):
            # For a name that is taken the kernel has the right answer (EEXIST), whatever kind has it.
            handled.pass_through.append(request.raw)
        else:
            outcome = self._perform(operation, request.family, caller)
            if isinstance(operation, NewLink) and isinstance(outcome, Done):
                # iproute2 takes an acknowledgement from the kernel only.
                handled.kernel_messages.append(self._translator.kernel_ack(request))
            else:
                handled.replies.extend(self._translator.replies(request, port_id, outcome))

    def _perform(self, operation: Operation, family: Family | None, caller: Caller) -> Outcome:
        try:
            outcome = self._outcome(operation, family, caller)
        except Exception as error:  # noqa: BLE001 - a root: what escaped would leave OpenVPN blocked for good
            # Formatted here, because a log's own tracebacks may show local variables, and keys among them.
            self._log.error("defect in ovpn-shim", request=str(operation), error="".join(format_exception(error)))
            outcome = Done() if isinstance(operation, NewKey) else Failed(EIO, "defect in ovpn-shim")
        if isinstance(outcome, Failed) and outcome.errno != ENOENT:
            self._log.warning("refused", request=str(operation), errno=errorcode[outcome.errno], reason=outcome.text)
        return outcome

    def _outcome(self, operation: Operation, family: Family | None, caller: Caller) -> Outcome:
        if isinstance(operation, GetFamily | NewLink):
            self._test(caller)
        offload = self._offload
        if offload is None or family is None:
            # What a kernel without the driver says.
            return Failed(EOPNOTSUPP if isinstance(operation, NewLink) else ENOENT, "no data channel offload")
        if isinstance(operation, GetFamily):
            return Failed(ENOENT, offload.fatal) if offload.fatal else Done()
        return offload.perform(operation, family, caller)

    def _test(self, caller: Caller) -> None:
        if self._offload is not None or self._now() < self._retest_at:
            return
        try:
            link = establish(caller, self._connector, self._bell.ring)
        except NotReadyError as error:
            self._log.error(
                "no data channel offload, OpenVPN uses its own data channel",
                check=error.check,
                reason=error.reason,
                advice=error.advice,
            )
            self._retest_at = self._now() + RETEST_SECONDS
        else:
            self._log.info("data channel offload is offered to OpenVPN")
            self._offload = Offload(link, self._bell.ring, self._log, self._mss)
