"""Network namespaces and the links between them, by iproute2. Knows `ip`; must not know processes or OpenVPN.

No namespace has a route to anything but its own links, so nothing sent in the laboratory leaves it.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, by the name under which `ip netns` lists it."""

    name: str

    def create(self) -> None:
        """Makes it, with the loopback up."""
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def delete(self) -> None:
        """Removes it and with it every device inside; no error if it is gone."""
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)

    def ip(self, *arguments: str) -> str:
        """Runs `ip` in it."""
        return ip("-netns", self.name, *arguments)

    def tc(self, *arguments: str) -> str:
        """Runs `tc`, of traffic control, in it."""
        return _run("tc", "-netns", self.name, *arguments)

    def command(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` in it (`ip netns exec` becomes that program: same pid)."""
        return ["ip", "netns", "exec", self.name, *argv]

    def pids(self) -> list[int]:
        """The processes inside."""
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]

    def links(self) -> list[str]:
        """Names of the network devices inside, loopback excepted."""
        found: list[dict[str, Any]] = json.loads(self.ip("-json", "link"))
        return sorted(link["ifname"] for link in found if link["ifname"] != "lo")

    def addresses(self, device: str) -> list[str]:
        """Addresses of a device without prefix lengths and without link-local ones, IPv4 first."""
        (found,) = json.loads(self.ip("-json", "address", "show", "dev", device))
        return [info["local"] for info in found["addr_info"] if info["scope"] == "global"]


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair. Number n has 198.18.n.0/24 (RFC 2544) and 2001:db8:0:n::/64 (RFC 3849); a is .1, b is .2."""

    number: int
    a: Namespace
    b: Namespace

    def create(self) -> None:
        """Makes the pair, gives it its addresses and brings it up."""
        names = f"to-{self.number}a", f"to-{self.number}b"
        ip(
            *("link", "add", names[0], "netns", self.a.name, "type", "veth"),
            *("peer", "name", names[1], "netns", self.b.name),
        )
        for host, (namespace, device) in enumerate(zip((self.a, self.b), names, strict=True), start=1):
            namespace.ip("link", "set", device, "addrgenmode", "none", "up")
            self.add_address(namespace, device, host)

    def add_address(self, namespace: Namespace, device: str, host: int) -> None:
        """Adds the addresses with this host part. nodad: an address that is being probed cannot be bound yet."""
        namespace.ip("address", "add", f"{self.ipv4(host)}/24", "dev", device)
        namespace.ip("address", "add", f"{self.ipv6(host)}/64", "dev", device, "nodad")

    def ipv4(self, host: int) -> str:
        """The IPv4 address of this host part (1 is end a, 2 is end b)."""
        return f"198.18.{self.number}.{host}"

    def ipv6(self, host: int) -> str:
        """The IPv6 address of this host part (1 is end a, 2 is end b)."""
        return f"2001:db8:0:{self.number:x}::{host:x}"


def ip(*arguments: str) -> str:
    """Runs `ip` and returns what it printed. Raises RuntimeError with what it complained about."""
    return _run("ip", *arguments)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
