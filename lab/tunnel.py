"""The usual arrangement: a server, clients each on a link of its own, all connected. Knows what goes with what."""

from __future__ import annotations

from dataclasses import dataclass

from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.netns import Link
from lab.openvpn import OpenVpn, Server, Settings, start_client, start_server
from lab.pki import Authority
from lab.traffic import wait_reachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to build. `data_plane` serves the ends that are `offloaded`; the others run stock OpenVPN."""

    settings: Settings = Settings()
    data_plane: DataPlane | None = None
    offloaded: frozenset[str] = frozenset()
    """Any of "server" and "client"."""
    clients: int = 1
    server_extra: tuple[str, ...] = ()
    client_extra: tuple[str, ...] = ()

    def front(self, role: str, label: str) -> list[str] | None:
        """The program in front of OpenVPN in this role, None for stock OpenVPN."""
        return self.data_plane.front(f"shim-{label}") if self.data_plane and role in self.offloaded else None


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A connected server and its clients; client n is on link n."""

    lab: Lab
    server: Server
    clients: list[OpenVpn]
    links: list[Link]

    @property
    def client(self) -> OpenVpn:
        """The only client."""
        (client,) = self.clients
        return client


def build(lab: Lab, authority: Authority, plan: Plan, *, label: str = "") -> Tunnel:
    """Starts all ends and waits until each client's side of the tunnel is up and the server answers in it."""
    server_label = f"{label}server"
    server_namespace = lab.namespace(server_label)
    client_labels = [f"{label}client{number}" for number in range(plan.clients)]
    links = [lab.link(server_namespace, lab.namespace(name)) for name in client_labels]
    server = start_server(
        lab,
        server_namespace,
        authority.server(server_label),
        plan.settings,
        front=plan.front("server", server_label),
        extra=plan.server_extra,
        label=server_label,
    )
    server.wait_initialized()
    clients = [
        start_client(
            lab,
            link.b,
            authority.client(name),
            plan.settings,
            link.ipv6(1) if plan.settings.outer_ipv6 else link.ipv4(1),
            front=plan.front("client", name),
            extra=plan.client_extra,
            label=name,
        )
        for name, link in zip(client_labels, links, strict=True)
    ]
    for client in clients:
        client.wait_initialized()
        wait_reachable(lab, client.namespace, server.vpn_addresses()[0])
    return Tunnel(lab, server, clients, links)
