"""From the requests of SocketService to what the engine is asked for.

Knows the fields of each request and the rules that join several. Must not know the engine's state. Every
function raises InvalidRequest with all violations at once.
"""

from __future__ import annotations

from typing import Final

from ovpn.dataplane.v1 import socket_pb2

from dataplane.api import validation
from dataplane.api.paging import Page, read_page
from dataplane.api.violations import Violations
from dataplane.engine.types import SocketSpec

MAX_PORT: Final = 65535


def decode_creation(request: socket_pb2.CreateSocketRequest) -> SocketSpec:
    """The socket to create."""
    found = Violations()
    at, socket = found.under("socket"), request.socket
    device = validation.read_name(at, "device", socket.device)
    name = validation.read_name(at, "name", socket.name)
    address = validation.read_bind_address(at, "address", socket.address)
    port = validation.read_number(at, "port", socket.port, 0, MAX_PORT)
    if socket.ipv6_only and address is not None and address.version == 4:
        at.add("ipv6_only", "must be false with an IPv4 address")
    if socket.protocol not in {socket_pb2.SOCKET_PROTOCOL_UNSPECIFIED, socket_pb2.SOCKET_PROTOCOL_UDP}:
        at.add("protocol", "must be SOCKET_PROTOCOL_UDP or unspecified: hand a connected TCP socket over and adopt it")
    network_namespace = validation.read_namespace(found, "network_namespace", request.network_namespace)
    found.raise_if_any()
    assert address is not None
    return SocketSpec(device, name, address, port, socket.ipv6_only, network_namespace)


def decode_adoption(request: socket_pb2.AdoptSocketRequest) -> tuple[str, str, str, str]:
    """Device, name for the socket, its token, and the token of its control outlet or ""."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    name = validation.read_name(found, "name", request.name)
    token = validation.read_token(found, "socket_token", request.socket_token)
    if request.control_token:
        validation.read_token(found, "control_token", request.control_token)
    found.raise_if_any()
    return device, name, token, request.control_token


def decode_names(request: socket_pb2.GetSocketRequest | socket_pb2.DeleteSocketRequest) -> tuple[str, str]:
    """Device and name of the socket."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    name = validation.read_name(found, "name", request.name)
    found.raise_if_any()
    return device, name


def decode_list(request: socket_pb2.ListSocketsRequest) -> tuple[str, Page]:
    """Device and the page that is asked for."""
    found = Violations()
    device = validation.read_name(found, "device", request.device)
    page = read_page(found, request, f"devices/{device}/sockets")
    found.raise_if_any()
    return device, page
