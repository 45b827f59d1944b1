"""Brings what the session has to tell unasked to the program's sockets.

Knows the handler's notices and the unicaster. Must not know what a notice says, or what ends the program.
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from controlplane_shim.supervisor.bpf_filter import NETLINK_GENERIC
from controlplane_shim.supervisor.handler import NetlinkHandler, Notice
from controlplane_shim.supervisor.unicast import Unicaster


class Notices:
    """Forwards notices, and remembers those for which there was no room."""

    def __init__(self, handler: NetlinkHandler, unicaster: Unicaster, log: FilteringBoundLogger) -> None:
        self._handler = handler
        self._unicaster = unicaster
        self._log = log

    def fileno(self) -> int:
        """The descriptor to poll; then call forward()."""
        return self._handler.notices_fd()

    def forward(self) -> str:
        """Sends what there is; why the program cannot be served any more, empty while it can."""
        for notice in self._handler.take_notices():
            self._send(notice)
        return self._handler.fatal()

    def retry(self) -> None:
        """Sends what had to wait: notices, and answers too."""
        for port_id in self._unicaster.retry():
            self._handler.member_gone(port_id)

    def retry_after_seconds(self) -> float | None:
        """When to call retry(); None if nothing waits."""
        return self._unicaster.retry_after_seconds()

    def _send(self, notice: Notice) -> None:
        try:
            self._unicaster.send(NETLINK_GENERIC, notice.port_id, notice.datagram)
        except ConnectionRefusedError:
            self._handler.member_gone(notice.port_id)
        except OSError as error:
            self._log.warning("notice could not be sent", port_id=notice.port_id, error=str(error))
