"""What all contenders share: two namespaces and the link between them, an authority and the daemons.

Knows what is set up once. Must not know the contenders. The link is veth, its MTU 1,500 bytes; no traffic goes
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import wireguard_package
from lab.dataplane import DataPlane
from lab.interrupts import uninterrupted
from lab.lab import Lab
from lab.pki import Authority
from lab.waiting import wait_until

WIREGUARD_DIRECTORY: Final = Path(__file__).parent.parent / "build/wireguard-go"
BUFFER_BYTES: Final = 4 << 20


class Site:
    """A lab with a server's and a client's namespace, and a daemon for each datapath."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.authority = Authority(lab.directory)
        self.server, self.client = lab.namespace("server"), lab.namespace("client")
        self.link = lab.link(self.server, self.client)
        # By name, a datapath that is not there would not start.
        self._data_planes = {
            "compiled": DataPlane(lab, "compiled-daemon", datapath="auto"),
            "python": DataPlane(lab, "python-daemon", datapath="python"),
        }

    def data_plane(self, datapath: str) -> DataPlane:
        """The daemon for "compiled" or "python", without devices; ask it whether it has the former."""
        data_plane = self._data_planes[datapath]
        wait_until(lambda: not data_plane.devices(), "no device in the daemon")
        return data_plane

    def wireguard_go(self) -> Path:
        """The program. Raises PackageUnavailable."""
        return wireguard_package.fetch(WIREGUARD_DIRECTORY)


@contextmanager
def large_socket_buffers() -> Iterator[None]:
    """Lets OpenVPN have the buffers that it is tuned with: it asks for them without the privilege to exceed the limit.

    The limit (net.core.rmem_max, wmem_max) is the machine's, not a namespace's; it is put back at the end.
    """
    limits = [Path("/proc/sys/net/core", name) for name in ("rmem_max", "wmem_max")]
    before = {limit: limit.read_text() for limit in limits}
    raised = [limit for limit in limits if int(before[limit]) < BUFFER_BYTES]
    try:
        for limit in raised:
            limit.write_text(str(BUFFER_BYTES))
        yield
    finally:
        with uninterrupted():
            for limit in raised:
                limit.write_text(before[limit])
