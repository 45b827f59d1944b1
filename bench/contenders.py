"""Who is compared: how each contender's tunnel is set up between the two namespaces, and which processes carry it.

Knows options of OpenVPN and what serves which end. Must not know what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from bench.site import Site
from bench.wireguard_package import PackageUnavailable
from lab import tunnel, wireguard
from lab.openvpn import Settings

AES: Final = "AES-256-GCM"
CHACHA20: Final = "CHACHA20-POLY1305"

MTU: Final = ("tun-mtu 1420",)
"""wireguard-go's default: a full packet and every overhead fit into a link of 1,500 bytes."""

TUNED: Final = (*MTU, "sndbuf 4194304", "rcvbuf 4194304", "fast-io")


class Unavailable(Exception):
    """This machine or this installation has no such contender; says why."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A contender's tunnel while it stands; the pids are those of the processes that carry its packets."""

    server_pid: int
    client_pid: int


class Contender(Protocol):
    """One row of the tables."""

    @property
    def name(self) -> str:
        """The row's name."""

    @property
    def full(self) -> bool:
        """Whether it is measured under all loads, or a few only."""

    def connect(self, site: Site, label: str) -> Connected:
        """Sets its tunnel up, by processes of the site's lab whose labels begin with `label`. Raises Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVpn:
    """OpenVPN at both ends; `extra` are further lines of both configurations.

    offloaded: "server", "client" or both: the ends that are under the shim. datapath: what then carries their packets.
    """

    name: str
    extra: tuple[str, ...]
    offloaded: tuple[str, ...] = ()
    datapath: str = ""
    cipher: str = AES
    full: bool = True

    def connect(self, site: Site, label: str) -> Connected:
        """Starts both ends and waits until they are connected."""
        data_plane = site.data_plane(self.datapath) if self.offloaded else None
        if data_plane and data_plane.datapath() != self.datapath:
            raise Unavailable(f"the {self.datapath} datapath is not there")
        plan = tunnel.Plan(
            settings=Settings(cipher=self.cipher),
            data_plane=data_plane,
            offloaded=self.offloaded,
            server_extra=self.extra,
            client_extra=self.extra,
        )
        ends = tunnel.connect(site.lab, site.authority, plan, site.server, [site.link], label)
        workers = data_plane.worker_pids() if data_plane else {}
        return Connected(workers.get("server", ends.server.pid), workers.get("client", ends.client.pid))


@dataclass(frozen=True, slots=True, kw_only=True)
class WireGuardGo:
    """wireguard-go at both ends, with its defaults; its only cipher is ChaCha20-Poly1305."""

    name: str
    full: bool = True

    def connect(self, site: Site, label: str) -> Connected:
        """Starts both ends and waits until they are connected."""
        try:
            program = site.wireguard_go()
        except PackageUnavailable as error:
            raise Unavailable(str(error)) from error
        ends = wireguard.connect(site.lab, program, site.link, label)
        return Connected(ends.server.process.pid, ends.client.process.pid)


STOCK: Final = OpenVpn(name="OpenVPN", extra=())
STOCK_TUNED: Final = OpenVpn(name="OpenVPN tuned", extra=TUNED)
WIREGUARD_GO: Final = WireGuardGo(name="wireguard-go")
OURS_PYTHON: Final = OpenVpn(name="ours, readable Python", extra=MTU, offloaded=("server", "client"), datapath="python")
OURS: Final = OpenVpn(name="ours", extra=MTU, offloaded=("server", "client"), datapath="compiled")
OUR_SERVER: Final = OpenVpn(
    name="our server, OpenVPN tuned client", extra=TUNED, offloaded=("server",), datapath="compiled"
)
STOCK_CHACHA20: Final = OpenVpn(name="OpenVPN, ChaCha20", extra=(), cipher=CHACHA20, full=False)
OURS_CHACHA20: Final = OpenVpn(
    name="ours, ChaCha20", extra=MTU, offloaded=("server", "client"), datapath="compiled", cipher=CHACHA20, full=False
)
OUR_SERVER_CHACHA20: Final = OpenVpn(
    name="our server, OpenVPN tuned client, ChaCha20",
    extra=TUNED,
    offloaded=("server",),
    datapath="compiled",
    cipher=CHACHA20,
    full=False,
)

CONTENDERS: Final[tuple[Contender, ...]] = (
    STOCK,
    STOCK_TUNED,
    WIREGUARD_GO,
    OURS_PYTHON,
    OURS,
    OUR_SERVER,
    STOCK_CHACHA20,
    OURS_CHACHA20,
    OUR_SERVER_CHACHA20,
)
