"""Stock OpenVPN 2.6 as server and client. Knows its options, log and management socket; must not know the service.

A program put in front of it (`front`, such as the shim) is just more words on the command line; without one, OpenVPN
is told to leave the kernel's data channel offload alone.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from lab.lab import Lab
from lab.netns import Namespace
from lab.pki import Credentials
from lab.processes import Process, cpu_seconds
from lab.waiting import wait_until

PORT: Final = 1194
DEVICE: Final = "tun0"
SERVER_VPN_IPV4: Final = "10.8.0.1"
SERVER_VPN_IPV6: Final = "fd00:8::1"
MANAGEMENT_SECONDS: Final = 10
INITIALIZED: Final = "Initialization Sequence Completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the two ends of a tunnel agree upon.

    cipher: as OpenVPN names it. tcp: the transport, else UDP; outer_ipv6: over IPv6. inner_ipv6: addresses of both
    families in the tunnel.
    keepalive: seconds, pushed to the clients. reneg_seconds: the server's; clients start no rekey of their own.
    """

    cipher: str = "AES-256-GCM"
    outer_ipv6: bool = False
    inner_ipv6: bool = True
    keepalive: tuple[int, int] = (10, 60)
    reneg_seconds: int = 3600
    verb: int = 3
    tcp: bool = False

    def proto(self, role: str) -> str:
        """The argument of --proto for "server" or "client"."""
        version = 6 if self.outer_ipv6 else 4
        return f"tcp{version}-{role}" if self.tcp else f"udp{version}"


class OpenVpn:
    """A started OpenVPN. `process` is what was started: OpenVPN itself or the program in front of it."""

    def __init__(self, lab: Lab, namespace: Namespace, process: Process, label: str) -> None:
        self.namespace = namespace
        self.process = process
        self._pid_file, self._management = _pid_file(lab, label), _management_socket(lab, label)

    @property
    def pid(self) -> int:
        """OpenVPN's own pid, once it has written it."""
        return int(wait_until(lambda: self._pid_file.exists() and self._pid_file.read_text(), str(self._pid_file)))

    def wait_initialized(self, *, occurrence: int = 1, timeout_seconds: float = 20) -> None:
        """Waits until it says that the tunnel is up, for the nth time."""
        self.process.wait_for(INITIALIZED, occurrence=occurrence, timeout_seconds=timeout_seconds)

    def vpn_addresses(self) -> list[str]:
        """Its addresses in the tunnel, IPv4 first."""
        return self.namespace.addresses(DEVICE)

    def dco_line(self) -> str:
        """The log line in which it says that the data channel is offloaded, empty if it says no such thing."""
        match = re.search(r"^.*DCO device .* opened.*$", self.process.output(), re.MULTILINE)
        return match.group() if match else ""

    def cpu_seconds(self) -> float:
        """CPU time of OpenVPN itself."""
        return cpu_seconds(self.pid)

    def link_bytes(self) -> tuple[int, int]:
        """A client's own count of OpenVPN packets' bytes, received and sent, control channel included."""
        counts = dict(line.split(",", 1) for line in self._ask("status") if "," in line)
        return int(counts["TCP/UDP read bytes"]), int(counts["TCP/UDP write bytes"])

    def _ask(self, question: str) -> list[str]:
        """The lines of an answer, which ends with END; notices (">…") are left out."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(MANAGEMENT_SECONDS)
            connection.connect(str(self._management))
            with connection.makefile("rw") as stream:
                stream.write(f"{question}\n")
                stream.flush()
                lines = [line.rstrip() for line in takewhile(lambda line: line != "END\n", stream)]
        return [line for line in lines if not line.startswith(">")]


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """A client's line in the server's status. Bytes are those of the link, control channel included."""

    common_name: str
    real_address: str
    vpn_ipv4: str
    vpn_ipv6: str
    bytes_received: int
    bytes_sent: int
    peer_id: int
    cipher: str


class Server(OpenVpn):
    """A started server."""

    def status(self) -> dict[str, ClientStatus]:
        """The clients by common name, as the server sees them now; asked for over its management socket."""
        rows = [line.split("\t") for line in self._ask("status 3") if line.startswith("CLIENT_LIST\t")]
        return {
            row[1]: ClientStatus(
                common_name=row[1],
                real_address=row[2],
                vpn_ipv4=row[3],
                vpn_ipv6=row[4],
                bytes_received=int(row[5]),
                bytes_sent=int(row[6]),
                peer_id=int(row[11]),
                cipher=row[12],
            )
            for row in rows
        }


def start_server(  # noqa: PLR0913 - each is a different thing
    lab: Lab,
    namespace: Namespace,
    credentials: Credentials,
    settings: Settings,
    *,
    front: list[str] | None = None,
    extra: tuple[str, ...] = (),
    label: str = "server",
) -> Server:
    """Starts a server in a namespace. `extra` are further lines of its configuration."""
    lines = [
        "mode server",
        "tls-server",
        f"proto {settings.proto('server')}",
        "topology subnet",
        "server 10.8.0.0 255.255.255.0",
        *(["server-ipv6 fd00:8::/64"] if settings.inner_ipv6 else []),
        "dh none",
        f"port {PORT}",
        f"keepalive {settings.keepalive[0]} {settings.keepalive[1]}",
        f"reneg-sec {settings.reneg_seconds}",
        *extra,
    ]
    return Server(lab, namespace, _start(lab, namespace, credentials, settings, lines, front, label), label)


def start_client(  # noqa: PLR0913 - each is a different thing
    lab: Lab,
    namespace: Namespace,
    credentials: Credentials,
    settings: Settings,
    remote: str,
    *,
    front: list[str] | None = None,
    extra: tuple[str, ...] = (),
    label: str = "client",
) -> OpenVpn:
    """Starts a client of the server at address `remote`. `extra` are further lines of its configuration."""
    lines = [
        "client",
        "nobind",
        f"proto {settings.proto('client')}",
        f"remote {remote} {PORT}",
        "remote-cert-tls server",
        "connect-retry 1 2",
        "reneg-sec 0",
        *extra,
    ]
    return OpenVpn(lab, namespace, _start(lab, namespace, credentials, settings, lines, front, label), label)


def _start(  # noqa: PLR0913, PLR0917 - each is a different thing
    lab: Lab,
    namespace: Namespace,
    credentials: Credentials,
    settings: Settings,
    lines: list[str],
    front: list[str] | None,
    label: str,
) -> Process:
    config = lab.directory / f"{label}.conf"
    common = [
        "dev-type tun",
        f"dev {DEVICE}",
        f"ca {credentials.ca}",
        f"cert {credentials.certificate}",
        f"key {credentials.key}",
        f"data-ciphers {settings.cipher}",
        f"verb {settings.verb}",
        "persist-key",
        "script-security 2",
        f"writepid {_pid_file(lab, label)}",
        f"management {_management_socket(lab, label)} unix",
        *([] if front else ["disable-dco"]),
    ]
    config.write_text("\n".join([*common, *lines]) + "\n")
    argv = [*(front or []), "openvpn", "--config", str(config)]
    return lab.start(namespace, argv, label)


def _pid_file(lab: Lab, label: str) -> Path:
    return lab.directory / f"{label}.pid"


def _management_socket(lab: Lab, label: str) -> Path:
    return lab.sockets / f"{label}.management"
