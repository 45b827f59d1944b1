"""The MSS of real TCP connections through a tunnel whose other end is stock OpenVPN."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import device_pb2, device_pb2_grpc

from dataplane.tun.network_namespace import in_network_namespace
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.netns import Namespace
from lab.openvpn import SERVER_VPN_IPV4, SERVER_VPN_IPV6
from lab.pki import Authority
from lab.tunnel import Plan, Tunnel, build

pytestmark = pytest.mark.root

MSS = 1000
"""Less than what stock OpenVPN's own mssfix makes of it."""
TIMESTAMPS = 12
"""Bytes of each segment that Linux's TCP options take."""
PAYLOAD = bytes(range(256)) * 256


def tcp_in(namespace: Namespace, family: int) -> socket.socket:
    tcp = in_network_namespace(str(Path("/run/netns") / namespace.name), lambda: socket.socket(family))
    tcp.settimeout(10)
    return tcp


def segment_sizes(tunnel: Tunnel, address: str = SERVER_VPN_IPV4) -> tuple[int, int]:
    """What client and server send in a segment of a connection between them, over which some data go both ways."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with tcp_in(tunnel.server.namespace, family) as listener, tcp_in(tunnel.client.namespace, family) as client:
        listener.bind((address, 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.settimeout(10)
            sizes = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) for end in (client, server)]
            for sender, receiver in ((client, server), (server, client)):
                sender.sendall(PAYLOAD)
                with receiver.makefile("rb") as stream:
                    assert stream.read(len(PAYLOAD)) == PAYLOAD
            return sizes[0] + TIMESTAMPS, sizes[1] + TIMESTAMPS


@pytest.mark.parametrize("role", ["server", "client"])
def test_mss_of_the_shim_holds_both_ways_until_it_is_changed(
    lab: Lab, authority: Authority, data_plane: DataPlane, role: str
) -> None:
    plan = Plan(data_plane=data_plane, offloaded=(role,), shim_options=("--mss", str(MSS)))
    tunnel = build(lab, authority, plan)
    assert segment_sizes(tunnel) == (MSS, MSS)
    assert segment_sizes(tunnel, SERVER_VPN_IPV6) == (MSS - 20, MSS - 20)

    (device,) = data_plane.devices()
    device.tcp_mss_ipv4 = MSS - 100
    stub = device_pb2_grpc.DeviceServiceStub(data_plane.channel)
    stub.UpdateDevice(device_pb2.UpdateDeviceRequest(device=device, update_mask=FieldMask(paths=["tcp_mss_ipv4"])))
    assert segment_sizes(tunnel) == (MSS - 100, MSS - 100)
