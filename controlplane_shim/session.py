"""The session of one OpenVPN: answers its netlink datagrams and keeps the members of its multicast groups.

Knows which answer goes where. Must not know netlink bytes (translate/), nor what an operation takes (offload.py).
Before the first GETFAMILY of one of our families is answered, the self-test decides whether OpenVPN is to hear of
data channel offload at all; nothing is connected before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from errno import EIO, ENOENT, EOPNOTSUPP, errorcode
from traceback import format_exception
from typing import Final

from structlog.typing import FilteringBoundLogger

from controlplane_shim.event_feed import Bell
from controlplane_shim.netlink.message import PLAIN_ACKS, AckOptions
from controlplane_shim.offload import Offload
from controlplane_shim.operations import (
    Done,
    Failed,
    Family,
    GetFamily,
    GetPolicy,
    NewKey,
    NewLink,
    Operation,
    Outcome,
    PeerNotice,
)
from controlplane_shim.selftest import Connector, DaemonConnector, NotReadyError, establish
from controlplane_shim.supervisor.handler import Caller, Handled, NetlinkHandler, Notice
from controlplane_shim.translate.translator import NETLINK_GENERIC, Request, Translator
from controlplane_shim.tun import interface_exists
from controlplane_shim.tuning import Tuning

RETEST_SECONDS: Final = 1.0
"""A failed self-test stands for so long: OpenVPN asks more than once in a start, and must hear the same."""

_NO_OFFLOAD: Final = Failed(ENOENT, "no data channel offload")
"""What a kernel without the driver says to a message of a family; to a new link it says EOPNOTSUPP."""


def open_session(target: str, handoff: str | None, log: FilteringBoundLogger, tuning: Tuning) -> NetlinkHandler:
    """A session with the daemon at the gRPC address `target`. Returns at once, whether or not there is a daemon.

    handoff: path of the daemon's hand-off socket, None to ask the daemon for it.
    """
    return Session(DaemonConnector(target, handoff), log, tuning)


class Session:
    """NetlinkHandler over a data plane."""

    def __init__(
        self,
        connector: Connector,
        log: FilteringBoundLogger,
        tuning: Tuning,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """now: seconds on any clock that never goes back."""
        self._connector = connector
        self._log = log
        self._now = now
        self._tuning = tuning
        self._translator = Translator()
        self._bell = Bell()
        self._members: dict[tuple[int, Family], None] = {}
        self._waiting: list[Notice] = []
        self._offload: Offload | None = None
        self._retest_at = now()

    def handle(
        self, protocol: int, datagram: bytes, port_id: int, caller: Caller, options: AckOptions = PLAIN_ACKS
    ) -> Handled:
        """See NetlinkHandler."""
        handled = Handled()
        modes = {} if self._offload is None else {family: self._offload.modes(family) for family in Family}
        for request in self._translator.requests(protocol, datagram, modes, is_admin=_is_admin(caller)):
            self._answer(request, port_id, caller, handled, options)
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

    def offers_offload(self) -> bool:
        """See NetlinkHandler."""
        return self._offload is not None

    def notices_fd(self) -> int:
        """See NetlinkHandler."""
        return self._bell.fileno()

    def take_notices(self) -> list[Notice]:
        """See NetlinkHandler."""
        self._bell.silence()
        waiting, self._waiting = self._waiting, []
        return waiting if self._offload is None else waiting + self._addressed(self._offload.take_notices())

    def fatal(self) -> str:
        """See NetlinkHandler."""
        return self._offload.fatal if self._offload is not None else ""

    def close(self) -> None:
        """See NetlinkHandler."""
        if self._offload is not None:
            self._offload.close()
        self._bell.close()

    def _answer(self, request: Request, port_id: int, caller: Caller, handled: Handled, options: AckOptions) -> None:
        operation = request.operation
        if request.error is not None:
            error = request.error
            if self._offload is None and request.protocol == NETLINK_GENERIC:
                error = _NO_OFFLOAD
            self._log.warning("refused at the door", errno=errorcode[error.errno], reason=error.text)
            if request.protocol == NETLINK_GENERIC:
                handled.replies.extend(self._translator.replies(request, port_id, error, options))
            else:
                # iproute2 again. OpenVPN asks for no link that cannot be had.
                handled.kernel_messages.append(self._translator.kernel_refusal(request))
        elif operation is None or (isinstance(operation, NewLink) and interface_exists(operation.name)):
            # For a name that is taken the kernel has the right answer (EEXIST), whatever kind has it.
            handled.pass_through.append(request.raw)
        else:
            outcome = self._perform(operation, request.family, caller)
            if request.family is Family.OVPN:
                handled.replies.extend(self._told_before_the_answer(port_id))
            if isinstance(operation, NewLink) and isinstance(outcome, Done):
                # iproute2 takes an acknowledgement from the kernel only.
                handled.kernel_messages.append(self._translator.kernel_ack(request))
            else:
                handled.replies.extend(self._translator.replies(request, port_id, outcome, options))

    def _told_before_the_answer(self, port_id: int) -> list[bytes]:
        """The datagrams for an asker that is a member too, whom driver `ovpn` tells what it did before it says so.

        Others have them as soon as the asker goes on.
        """
        if self._offload is None:
            return []
        notices = self._addressed(self._offload.take_told())
        self._waiting += [notice for notice in notices if notice.port_id != port_id]
        if self._waiting:
            self._bell.ring()
        return [notice.datagram for notice in notices if notice.port_id == port_id]

    def _addressed(self, notices: list[PeerNotice]) -> list[Notice]:
        """The notices as datagrams, one for each member of the group concerned."""
        return [
            Notice(port_id, datagram)
            for notice in notices
            if (datagram := self._translator.notice(notice)) is not None
            for port_id, family in self._members
            if family is notice.family
        ]

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
        if isinstance(operation, GetFamily | GetPolicy | NewLink):
            self._test(caller)
        offload = self._offload
        if offload is None or family is None:
            return replace(_NO_OFFLOAD, errno=EOPNOTSUPP) if isinstance(operation, NewLink) else _NO_OFFLOAD
        if isinstance(operation, GetFamily | GetPolicy):
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
            self._offload = Offload(link, self._bell, self._log, self._tuning)


def _is_admin(caller: Caller) -> bool:
    """A caller that is gone gets no answer anyway."""
    try:
        return caller.is_admin()
    except OSError:
        return False
