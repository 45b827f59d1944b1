"""From the requests of DeviceService to what the engine is asked for.

Knows the fields of each request and the rules that join several. Must not know the engine's state. Every
function raises InvalidRequest with all violations at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from ovpn.dataplane.v1 import common_pb2, device_pb2

from dataplane.api import validation
from dataplane.api.enums import FLOAT_POLICIES, MODES
from dataplane.api.paging import Page, read_page
from dataplane.api.violations import Violations
from dataplane.engine.types import DeviceChange, DeviceSpec
from dataplane.vocabulary import MTU_DEFAULT, MTU_MAX, MTU_MIN, FloatPolicy, Mode

_MP_SWITCHES: Final = ("client_to_client", "forward_multicast", "follow_kernel_routes")
_TCP_MSS: Final = ("tcp_mss_ipv4", "tcp_mss_ipv6")
_UPDATE_PATHS: Final = (
    "mtu",
    "addresses",
    "admin_up",
    "skip_source_check",
    *_MP_SWITCHES,
    *_TCP_MSS,
    "float_policy",
)
_IPV6_MTU_MIN: Final = 1280
"""RFC 8200, section 5; Linux takes no IPv6 address on an interface with less."""


def decode_creation(request: device_pb2.CreateDeviceRequest) -> DeviceSpec:
    """The device to create. With a tun_token, whose descriptor tells it, interface_name is empty."""
    found = Violations()
    at, device = found.under("device"), request.device
    name = validation.read_name(at, "name", device.name)
    mode = validation.read_enum(at, "mode", device.mode, MODES, common_pb2.DeviceMode.Name)
    addresses = validation.read_interface_addresses(at, "addresses", device.addresses)
    if request.tun_token:
        validation.read_token(found, "tun_token", request.tun_token)
        _refuse_settings_of_an_adopted_tun(at, device)
        interface_name, mtu = "", device.mtu
    else:
        interface_name = validation.read_interface_name(at, "interface_name", device.interface_name, name)
        mtu = device.mtu or MTU_DEFAULT
        if request.delete_on_handoff_close:
            found.add("delete_on_handoff_close", "must be false without tun_token: there is no hand-off connection")
    if mtu:
        _check_mtu(at, mtu, addresses)
    network_namespace = validation.read_namespace(at, "network_namespace", device.network_namespace)
    _check_switches(at, device, mode, _MP_SWITCHES)
    tcp_mss_ipv4 = validation.read_tcp_mss_ipv4(at, "tcp_mss_ipv4", device.tcp_mss_ipv4)
    tcp_mss_ipv6 = validation.read_tcp_mss_ipv6(at, "tcp_mss_ipv6", device.tcp_mss_ipv6)
    float_policy = _read_float_policy(at, device)
    found.raise_if_any()
    assert mode is not None
    return DeviceSpec(
        name,
        interface_name,
        mode,
        mtu,
        addresses,
        device.admin_up,
        network_namespace,
        skip_source_check=device.skip_source_check,
        client_to_client=device.client_to_client,
        forward_multicast=device.forward_multicast,
        follow_kernel_routes=device.follow_kernel_routes,
        tcp_mss_ipv4=tcp_mss_ipv4,
        tcp_mss_ipv6=tcp_mss_ipv6,
        float_policy=float_policy,
    )


def decode_change(request: device_pb2.UpdateDeviceRequest, mode: Mode | None) -> tuple[str, DeviceChange]:
    """Name of the device, which has this mode (None if the name is malformed), and what to change."""
    found = Violations()
    at, device = found.under("device"), request.device
    name = validation.read_name(at, "name", device.name)
    paths = validation.read_mask(found, "update_mask", request.update_mask, _UPDATE_PATHS)
    addresses = validation.read_interface_addresses(at, "addresses", device.addresses) if "addresses" in paths else None
    if "mtu" in paths:
        _check_mtu(at, device.mtu, addresses or ())
    _check_switches(at, device, mode, paths)
    if "tcp_mss_ipv4" in paths:
        validation.read_tcp_mss_ipv4(at, "tcp_mss_ipv4", device.tcp_mss_ipv4)
    if "tcp_mss_ipv6" in paths:
        validation.read_tcp_mss_ipv6(at, "tcp_mss_ipv6", device.tcp_mss_ipv6)
    float_policy = _read_float_policy(at, device) if "float_policy" in paths else None
    found.raise_if_any()
    return name, DeviceChange(
        mtu=device.mtu if "mtu" in paths else None,
        addresses=addresses,
        admin_up=device.admin_up if "admin_up" in paths else None,
        skip_source_check=device.skip_source_check if "skip_source_check" in paths else None,
        client_to_client=device.client_to_client if "client_to_client" in paths else None,
        forward_multicast=device.forward_multicast if "forward_multicast" in paths else None,
        follow_kernel_routes=device.follow_kernel_routes if "follow_kernel_routes" in paths else None,
        tcp_mss_ipv4=device.tcp_mss_ipv4 if "tcp_mss_ipv4" in paths else None,
        tcp_mss_ipv6=device.tcp_mss_ipv6 if "tcp_mss_ipv6" in paths else None,
        float_policy=float_policy,
    )


def decode_name(request: device_pb2.GetDeviceRequest | device_pb2.DeleteDeviceRequest) -> str:
    """Name of the device."""
    found = Violations()
    name = validation.read_name(found, "name", request.name)
    found.raise_if_any()
    return name


def decode_list(request: device_pb2.ListDevicesRequest) -> Page:
    """The page that is asked for."""
    found = Violations()
    page = read_page(found, request, "devices")
    found.raise_if_any()
    return page


def _refuse_settings_of_an_adopted_tun(at: Violations, device: device_pb2.Device) -> None:
    reason = "with tun_token: whoever made the interface has set it"
    for field in ("interface_name", "addresses", "network_namespace"):
        if getattr(device, field):
            at.add(field, f"must be empty {reason}")
    if device.admin_up:
        at.add("admin_up", f"must be false {reason}")


def _check_switches(at: Violations, device: device_pb2.Device, mode: Mode | None, fields: Collection[str]) -> None:
    for field in _MP_SWITCHES:
        if mode is Mode.P2P and field in fields and getattr(device, field):
            at.add(field, "must be false on a P2P device: all packets go to its one peer")


def _read_float_policy(at: Violations, device: device_pb2.Device) -> FloatPolicy:
    number = device.float_policy or device_pb2.FLOAT_POLICY_ALLOW
    policy = validation.read_enum(at, "float_policy", number, FLOAT_POLICIES, device_pb2.FloatPolicy.Name)
    return policy or FloatPolicy.ALLOW


def _check_mtu(at: Violations, mtu: int, addresses: Sequence[IPv4Interface | IPv6Interface]) -> None:
    validation.read_number(at, "mtu", mtu, MTU_MIN, MTU_MAX)
    if MTU_MIN <= mtu < _IPV6_MTU_MIN and any(address.version == 6 for address in addresses):
        at.add("mtu", f"must be {_IPV6_MTU_MIN} or more with an IPv6 address; is {mtu}")
