"""The self-test: before OpenVPN is told that there is data channel offload, everything it takes is tried once.

Knows what offload takes, in which order to look, and what to advise. Its result is the session's link to the data
plane. Must not know netlink or operations.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from controlplane_shim.dataplane_client import DataPlane, DataPlaneError, GrpcDataPlane
from controlplane_shim.event_feed import EventFeed
from controlplane_shim.handoff_client import Handoff, HandoffClient
from controlplane_shim.supervisor.handler import Caller
from controlplane_shim.tun import TUN_PATH

ANSWER_SECONDS: Final = 2.0
"""How long the data plane may take for each answer."""

LIVENESS_DEVICE: Final = "ovpn-shim.liveness"
"""A device that is never made: its event stream carries nothing and breaks when the data plane goes away."""


class NotReadyError(Exception):
    """Offload would not work. check: what was tried; reason: what came of it; advice: what an operator can do."""

    def __init__(self, check: str, reason: str, advice: str) -> None:
        super().__init__(f"{check}: {reason}")
        self.check = check
        self.reason = reason
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Link:
    """Everything by which a session reaches the data plane. heartbeat: the stream that LIVENESS_DEVICE explains."""

    dataplane: DataPlane
    handoff: Handoff
    feed: EventFeed
    heartbeat: int

    def close(self) -> None:
        """Closes all of it; ends the lease of the devices."""
        self.feed.close()
        self.dataplane.close()
        self.handoff.close()


class Connector(Protocol):
    """Where the data plane is. Both methods only begin to connect or fail at once."""

    def open_dataplane(self) -> DataPlane:
        """The gRPC side."""

    def open_handoff(self, advertised_path: str) -> Handoff:
        """The hand-off side; advertised_path is what the daemon says. Raises OSError."""


@dataclass(frozen=True, slots=True)
class DaemonConnector:
    """Connects to an ovpn-dataplane. handoff: path of its hand-off socket, None to ask the daemon."""

    target: str
    handoff: str | None

    def open_dataplane(self) -> DataPlane:
        """See Connector."""
        return GrpcDataPlane(self.target)

    def open_handoff(self, advertised_path: str) -> Handoff:
        """See Connector."""
        return HandoffClient(self.handoff or advertised_path)


def establish(caller: Caller, connector: Connector, ring: Callable[[], None]) -> Link:
    """Runs all checks. Returns the link that they left open, or raises NotReadyError and leaves nothing open."""
    _copy_a_descriptor(caller)
    _open_tun_device()
    with ExitStack() as undo:
        dataplane = connector.open_dataplane()
        undo.callback(dataplane.close)
        try:
            info = dataplane.server_info(ANSWER_SECONDS)
        except DataPlaneError as error:
            advice = "start ovpn-dataplane, or name its socket by --target"
            raise NotReadyError("data plane answers", str(error), advice) from error
        try:
            handoff = connector.open_handoff(info.handoff_path)
        except OSError as error:
            advice = "ovpn-shim and ovpn-dataplane must be on one machine; see --handoff"
            raise NotReadyError("hand-off socket accepts", str(error), advice) from error
        undo.callback(handoff.close)
        feed = EventFeed(dataplane, info.instance_id, ring)
        undo.callback(feed.close)
        try:
            heartbeat = feed.follow(LIVENESS_DEVICE, ANSWER_SECONDS).stream
        except DataPlaneError as error:
            raise NotReadyError("data plane reports events", str(error), "see the log of ovpn-dataplane") from error
        undo.pop_all()
    return Link(dataplane, handoff, feed, heartbeat)


def _copy_a_descriptor(caller: Caller) -> None:
    try:
        numbers = [int(entry.name) for entry in Path(f"/proc/{caller.pid}/fd").iterdir()]
        os.close(caller.fetch_fd(min(numbers)))
    except (OSError, ValueError) as error:
        advice = "ovpn-shim needs CAP_SYS_PTRACE, or the same uid as OpenVPN"
        raise NotReadyError("OpenVPN's descriptors can be copied", str(error), advice) from error


def _open_tun_device() -> None:
    try:
        os.close(os.open(TUN_PATH, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        advice = "load the tun module and let the container have the device"
        raise NotReadyError(f"{TUN_PATH} opens", str(error), advice) from error
