"""The usual arrangement: a server, clients each on a link of its own, all connected. Knows what goes with what."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.netns import Link, Namespace
from lab.openvpn import INSTALLED, SERVER_VPN_IPV4, OpenVpn, Server, Settings, start_client, start_server
from lab.pki import Authority
from lab.traffic import wait_reachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to build. `data_plane` serves the ends that are `offloaded`; the others run stock OpenVPN."""

    settings: Settings = field(default_factory=Settings)
    data_plane: DataPlane | None = None
    offloaded: tuple[str, ...] = ()
    """Any of "server" and "client"."""
    server_program: tuple[str, ...] = INSTALLED
    client_program: tuple[str, ...] = INSTALLED
    clients: int = 1
    server_extra: tuple[str, ...] = ()
    client_extra: tuple[str, ...] = ()
    shim_options: tuple[str, ...] = ()
    """Further ones of `ovpn-shim run`, for all ends that are offloaded."""

    def front(self, lab: Lab, role: str, label: str) -> list[str] | None:
        """The program in front of OpenVPN in this role, None for stock OpenVPN."""
        if self.data_plane is None or role not in self.offloaded:
            return None
        *words, dashes = self.data_plane.front(lab.directory / f"{label}-shim.log")
        return [*words, *self.shim_options, dashes]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A connected server and its clients; client n is on link n."""

    lab: Lab
    plan: Plan
    server: Server
    clients: list[OpenVpn]
    links: list[Link]

    @property
    def client(self) -> OpenVpn:
        """The only client."""
        (client,) = self.clients
        return client


def build(lab: Lab, authority: Authority, plan: Plan, label: str = "") -> Tunnel:
    """Makes a namespace for each end and a link for each client, and connects them.

    `label` keeps this tunnel's names apart from those of another one in the same lab.
    """
    server_namespace = lab.namespace(f"{label}server")
    client_namespaces = [lab.namespace(f"{label}client{number}") for number in range(plan.clients)]
    links = [lab.link(server_namespace, client) for client in client_namespaces]
    return connect(lab, authority, plan, server_namespace, links, label)


def connect(  # noqa: PLR0913, PLR0917 - each is a different thing
    lab: Lab, authority: Authority, plan: Plan, server_namespace: Namespace, links: list[Link], label: str = ""
) -> Tunnel:
    """Starts all ends and waits until each client's side is up and the server answers it inside the tunnel.

    Client n is at end b of link n and connects to the address of its end a: there is the server, or what leads to it.
    """
    server_label = f"{label}server"
    client_labels = [f"{label}client{number}" for number in range(plan.clients)]
    server = start_server(
        lab,
        server_namespace,
        authority.server(server_label),
        plan.settings,
        front=plan.front(lab, "server", server_label),
        program=plan.server_program,
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
            front=plan.front(lab, "client", name),
            program=plan.client_program,
            extra=plan.client_extra,
            label=name,
        )
        for name, link in zip(client_labels, links, strict=True)
    ]
    for client in clients:
        client.wait_initialized()
        wait_reachable(lab, client.namespace, SERVER_VPN_IPV4)
    return Tunnel(lab, plan, server, clients, links)
