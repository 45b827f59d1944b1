"""A client that knows nothing but the address learns the contract by reflection and sees a live tunnel."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from lab import traffic
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.openvpn import SERVER_VPN_IPV4
from lab.pki import Authority
from lab.tunnel import Plan, build

pytestmark = pytest.mark.root


class ReflectionClient:
    """Calls methods by name with dictionaries, as grpcurl does."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._database)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def call(self, service: str, method: str, **fields: object) -> dict[str, Any]:
        descriptor = self._pool.FindServiceByName(service).methods_by_name[method]
        request, reply = GetMessageClass(descriptor.input_type), GetMessageClass(descriptor.output_type)
        call = self._channel.unary_unary(
            f"/{service}/{method}", request_serializer=request.SerializeToString, response_deserializer=reply.FromString
        )
        return MessageToDict(call(request(**fields), timeout=10), preserving_proto_field_name=True)


@pytest.fixture
def client(data_plane: DataPlane) -> ReflectionClient:
    return ReflectionClient(data_plane.channel)


def test_reflection_lists_every_service(client: ReflectionClient) -> None:
    services = {"DeviceService", "SocketService", "PeerService", "KeyService", "EventService", "ServerService"}
    standard = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert client.services() >= {f"ovpn.dataplane.v1.{name}" for name in services} | standard


def test_a_client_by_reflection_lists_devices_peers_and_counters_of_a_live_tunnel(
    lab: Lab, authority: Authority, data_plane: DataPlane, client: ReflectionClient
) -> None:
    tunnel = build(lab, authority, Plan(data_plane=data_plane, offloaded=("server",), clients=2))
    for end in tunnel.clients:
        assert traffic.ping(lab, end.namespace, SERVER_VPN_IPV4, count=20).lost == 0

    (device,) = client.call("ovpn.dataplane.v1.DeviceService", "ListDevices")["devices"]
    assert (device["mode"], device["state"]) == ("DEVICE_MODE_MP", "DEVICE_STATE_READY")
    assert device["peer_count"] == 2
    peers = client.call("ovpn.dataplane.v1.PeerService", "ListPeers", device=device["name"])["peers"]
    found = {peer["vpn_ipv4"]: peer["remote"]["address"] for peer in peers}
    ends = zip(tunnel.clients, tunnel.links, strict=True)
    assert found == {end.vpn_addresses()[0]: link.ipv4(2) for end, link in ends}
    for peer in peers:
        assert int(peer["counters"]["vpn_rx"]["packets"]) >= 20
        assert int(peer["counters"]["link_tx"]["bytes"]) >= 20 * (84 + 24)
