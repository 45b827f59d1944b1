"""What the engine is asked for by SocketService's requests."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from ovpn.dataplane.v1 import socket_pb2

from dataplane.api import decode_socket
from dataplane.engine.types import SocketSpec
from dataplane.transport.socket_options import SocketOptions
from dataplane.vocabulary import FragmentationPolicy
from tests.api.conftest import socket_message

TOKEN = "0123456789abcdef" * 2
OTHER_TOKEN = "fedcba9876543210" * 2


def test_an_ipv6_socket_is_taken_as_asked_for() -> None:
    request = socket_pb2.CreateSocketRequest(
        socket=socket_message(address="2001:DB8::1", port=65535, ipv6_only=True), network_namespace="/n"
    )
    expected = SocketSpec("d", "s", IPv6Address("2001:db8::1"), 65535, ipv6_only=True, network_namespace="/n")
    assert decode_socket.decode_creation(request) == expected


def test_an_ipv4_socket_is_taken_as_asked_for() -> None:
    request = socket_pb2.CreateSocketRequest(socket=socket_message(address="0.0.0.0", port=0))
    assert decode_socket.decode_creation(request) == SocketSpec("d", "s", IPv4Address(0), 0, ipv6_only=False)


def test_all_options_of_a_socket_are_taken() -> None:
    socket = socket_message(
        address="fe80::1",
        mark=0xFFFFFFFF,
        bind_to_interface="eth0",
        receive_buffer_bytes=4096,
        send_buffer_bytes=2**30 - 1,
        copy_dscp=True,
        fragmentation=socket_pb2.FRAGMENTATION_POLICY_DONT_FRAGMENT,
    )
    expected = SocketOptions(0xFFFFFFFF, "eth0", 4096, 2**30 - 1, True, FragmentationPolicy.DONT_FRAGMENT)
    spec = decode_socket.decode_creation(socket_pb2.CreateSocketRequest(socket=socket))
    assert (spec.address, spec.options) == (IPv6Address("fe80::1"), expected)


def test_a_policy_that_is_not_given_is_that_of_the_kernel_drivers() -> None:
    request = socket_pb2.CreateSocketRequest(socket=socket_message(fragmentation=0))
    assert decode_socket.decode_creation(request).options.fragmentation is FragmentationPolicy.MAY_FRAGMENT


def test_an_adoption_has_device_name_and_token() -> None:
    request = socket_pb2.AdoptSocketRequest(device="d", name="s", socket_token=TOKEN)
    assert decode_socket.decode_adoption(request) == ("d", "s", TOKEN, "")


def test_an_adoption_may_have_a_control_outlet() -> None:
    request = socket_pb2.AdoptSocketRequest(device="d", name="s", socket_token=TOKEN, control_token=OTHER_TOKEN)
    assert decode_socket.decode_adoption(request) == ("d", "s", TOKEN, OTHER_TOKEN)
