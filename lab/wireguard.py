"""wireguard-go as the two ends of a tunnel.

Knows its command line and its UAPI (https://www.wireguard.com/xplatform/: lines of key=value over a Unix socket,
answered by errno=0 and an empty line). Must not know what the tunnel is for.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from lab.lab import Lab
from lab.netns import Link, Namespace
from lab.openvpn import SERVER_VPN_IPV4
from lab.processes import Process
from lab.traffic import wait_reachable
from lab.waiting import wait_until

PORT: Final = 51820
CLIENT_VPN_IPV4: Final = "10.8.0.2"
UAPI_SECONDS: Final = 5

# The UAPI socket is /var/run/wireguard/DEVICE.sock and cannot be put elsewhere. `ip netns exec` has given the process
# mounts of its own, so there /run may be another directory.
WITH_OWN_RUN_DIRECTORY: Final = 'mount --bind "$0" /run && exec "$@"'


@dataclass(frozen=True, slots=True)
class WireGuardEnd:
    """One started wireguard-go with its device."""

    namespace: Namespace
    process: Process
    device: str
    key: X25519PrivateKey
    uapi: Path

    def configure(self, peer: X25519PrivateKey, allowed_ipv4: str, endpoint: str = "") -> None:
        """Tells it its key and its only peer; `endpoint` is that peer's address, if it is not to wait for him."""
        lines = [
            "set=1",
            f"private_key={self.key.private_bytes_raw().hex()}",
            f"listen_port={PORT}",
            f"public_key={peer.public_key().public_bytes_raw().hex()}",
            *([f"endpoint={endpoint}:{PORT}"] if endpoint else []),
            f"allowed_ip={allowed_ipv4}/32",
        ]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(UAPI_SECONDS)
            connection.connect(str(self.uapi))
            connection.sendall("".join(f"{line}\n" for line in [*lines, ""]).encode())
            answer = connection.recv(1024).decode()
        if answer.strip() != "errno=0":
            raise RuntimeError(f"wireguard-go answered {answer!r}")


@dataclass(frozen=True, slots=True)
class WireGuardTunnel:
    """Two connected ends."""

    server: WireGuardEnd
    client: WireGuardEnd


def connect(lab: Lab, program: Path, link: Link, label: str = "") -> WireGuardTunnel:
    """Starts both ends, the server at end a of the link, and waits until the server answers the client inside."""
    server = _start(lab, program, link.a, "server", SERVER_VPN_IPV4, label)
    client = _start(lab, program, link.b, "client", CLIENT_VPN_IPV4, label)
    server.configure(client.key, CLIENT_VPN_IPV4)
    client.configure(server.key, SERVER_VPN_IPV4, link.ipv4(1))
    wait_reachable(lab, client.namespace, SERVER_VPN_IPV4)
    return WireGuardTunnel(server, client)


def _start(  # noqa: PLR0913, PLR0917 - each is a different thing
    lab: Lab, program: Path, namespace: Namespace, device: str, address: str, label: str
) -> WireGuardEnd:
    run = lab.sockets / f"{label}{device}"
    run.mkdir()
    argv = ["sh", "-c", WITH_OWN_RUN_DIRECTORY, str(run), str(program), "--foreground", device]
    process = lab.start(namespace, argv, f"{label}{device}")
    uapi = run / "wireguard" / f"{device}.sock"
    wait_until(lambda: uapi.exists() or process.exit_code is not None, "wireguard-go's socket")
    namespace.ip("address", "add", f"{address}/24", "dev", device)
    namespace.ip("link", "set", device, "up")
    return WireGuardEnd(namespace, process, device, X25519PrivateKey.generate(), uapi)
