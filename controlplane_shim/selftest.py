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
    """Everything by which a session reaches the data plane."""

    dataplane: DataPlane
    handoff: Handoff
    feed: EventFeed

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
    with ExitStack() as tried, ExitStack() as link:
        tun = _open_tun_device()
        tried.callback(os.close, tun)
        dataplane = connector.open_dataplane()
        link.callback(dataplane.close)
        try:
            info = dataplane.server_info(ANSWER_SECONDS)
        except DataPlaneError as error:
            advice = "start ovpn-dataplane, or name its socket by --target"
            raise NotReadyError("the data plane answers", str(error), advice) from error
        try:
            handoff = connector.open_handoff(info.handoff_path)
            link.callback(handoff.close)
            # Tells whether we may; the token is left to expire.
            handoff.hand_over(tun)
        except (OSError, DataPlaneError) as error:
            advice = "ovpn-shim must be on the machine of ovpn-dataplane, and root or its user; see --handoff"
            raise NotReadyError("the data plane takes descriptors", str(error), advice) from error
        feed = EventFeed(dataplane, info.instance_id, ring)
        link.callback(feed.close)
        try:
            feed.follow(LIVENESS_DEVICE, ANSWER_SECONDS)
        except DataPlaneError as error:
            raise NotReadyError("the data plane reports events", str(error), "see the log of ovpn-dataplane") from error
        link.pop_all()
    return Link(dataplane, handoff, feed)


def _copy_a_descriptor(caller: Caller) -> None:
    try:
        numbers = [int(entry.name) for entry in Path(f"/proc/{caller.pid}/fd").iterdir()]
        os.close(caller.fetch_fd(min(numbers)))
    except (OSError, ValueError) as error:
        advice = "ovpn-shim needs CAP_SYS_PTRACE, or the uid of OpenVPN"
        raise NotReadyError("OpenVPN's descriptors can be copied", str(error), advice) from error


def _open_tun_device() -> int:
    try:
        return os.open(TUN_PATH, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        advice = "load the tun module, and let the container have the device"
        raise NotReadyError(f"{TUN_PATH} opens", str(error), advice) from error
