"""What the engine is asked for by DeviceService's requests."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import common_pb2, device_pb2

from dataplane.api import decode_device
from dataplane.api.violations import InvalidRequest
from dataplane.engine.types import DeviceChange, DeviceSpec
from dataplane.vocabulary import FloatPolicy, Mode
from tests.api.conftest import device_message

TOKEN = "0123456789abcdef" * 2


def spec_of(token: str = "", **fields: Any) -> DeviceSpec:
    request = device_pb2.CreateDeviceRequest(device=device_message(**fields), tun_token=token)
    return decode_device.decode_creation(request)


def test_a_device_without_settings_gets_the_defaults() -> None:
    assert spec_of() == DeviceSpec(name="d", interface_name="d", mode=Mode.MP, mtu=1428)


def test_all_settings_are_taken() -> None:
    spec = spec_of(
        interface_name="tun0",
        mode=common_pb2.DEVICE_MODE_P2P,
        mtu=68,
        addresses=["10.8.0.1/24"],
        admin_up=True,
        network_namespace="/n",
        tcp_mss_ipv4=88,
        tcp_mss_ipv6=65475,
        float_policy=device_pb2.FLOAT_POLICY_DENY,
    )
    assert spec == DeviceSpec(
        "d",
        "tun0",
        Mode.P2P,
        68,
        (IPv4Interface("10.8.0.1/24"),),
        admin_up=True,
        network_namespace="/n",
        tcp_mss_ipv4=88,
        tcp_mss_ipv6=65475,
        float_policy=FloatPolicy.DENY,
    )


def test_ipv6_addresses_are_read_in_any_form() -> None:
    assert spec_of(addresses=["FD00:0::1/64"]).addresses == (IPv6Interface("fd00::1/64"),)


@pytest.mark.parametrize("mtu", [0, 1500])
def test_an_adopted_tun_has_no_interface_name_and_keeps_its_mtu_unless_told(mtu: int) -> None:
    assert spec_of(TOKEN, mtu=mtu) == DeviceSpec(name="d", interface_name="", mode=Mode.MP, mtu=mtu)


def test_an_adopted_device_may_have_a_name_that_is_no_interface_name() -> None:
    assert spec_of(TOKEN, name="a" * 63).name == "a" * 63


@pytest.mark.parametrize("mtu", [68, 1279])
def test_a_small_mtu_is_fine_without_ipv6(mtu: int) -> None:
    assert spec_of(mtu=mtu, addresses=["10.8.0.1/24"]).mtu == mtu


def test_a_change_holds_what_the_mask_names() -> None:
    device = device_message(mtu=1500, admin_up=True, addresses=["10.8.0.1/24"])
    request = device_pb2.UpdateDeviceRequest(device=device, update_mask=FieldMask(paths=["admin_up"]))
    assert decode_device.decode_change(request, Mode.MP) == ("d", DeviceChange(admin_up=True))
    request.update_mask.paths.extend(["mtu", "addresses"])
    every = DeviceChange(mtu=1500, addresses=(IPv4Interface("10.8.0.1/24"),), admin_up=True)
    assert decode_device.decode_change(request, Mode.MP) == ("d", every)


SWITCHES = ["skip_source_check", "client_to_client", "forward_multicast", "follow_kernel_routes"]
MP_SWITCHES = SWITCHES[1:]


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_is_taken(switch: str) -> None:
    fields: dict[str, Any] = {switch: True}
    spec = spec_of(**fields)
    assert [getattr(spec, name) for name in SWITCHES] == [name == switch for name in SWITCHES]


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("value", [True, False])
def test_a_change_holds_the_switches_that_the_mask_names(switch: str, value: bool) -> None:
    device = device_message(**dict.fromkeys(SWITCHES, value))
    request = device_pb2.UpdateDeviceRequest(device=device, update_mask=FieldMask(paths=[switch]))
    _, change = decode_device.decode_change(request, Mode.MP)
    assert change == DeviceChange(**{switch: value})  # type: ignore[arg-type]
    assert not change.concerns_link


@pytest.mark.parametrize("switch", MP_SWITCHES)
def test_a_p2p_device_has_no_switches_of_many_peers(switch: str) -> None:
    fields: dict[str, Any] = {"mode": common_pb2.DEVICE_MODE_P2P, switch: True}
    with pytest.raises(InvalidRequest, match=f"the first in device.{switch}$"):
        spec_of(**fields)
    request = device_pb2.UpdateDeviceRequest(
        device=device_message(**{switch: True}), update_mask=FieldMask(paths=[switch])
    )
    with pytest.raises(InvalidRequest, match=f"the first in device.{switch}$"):
        decode_device.decode_change(request, Mode.P2P)


def test_a_p2p_device_may_skip_the_source_check_that_it_does_not_make() -> None:
    assert spec_of(mode=common_pb2.DEVICE_MODE_P2P, skip_source_check=True).skip_source_check


def test_a_change_may_take_a_limit_of_segments_away() -> None:
    device = device_message(tcp_mss_ipv6=1380)
    request = device_pb2.UpdateDeviceRequest(device=device, update_mask=FieldMask(paths=["tcp_mss_ipv4"]))
    assert decode_device.decode_change(request, Mode.MP) == ("d", DeviceChange(tcp_mss_ipv4=0))
    request.update_mask.paths.append("tcp_mss_ipv6")
    assert decode_device.decode_change(request, Mode.MP) == ("d", DeviceChange(tcp_mss_ipv4=0, tcp_mss_ipv6=1380))


@pytest.mark.parametrize(
    ("number", "policy"),
    [
        (device_pb2.FLOAT_POLICY_UNSPECIFIED, FloatPolicy.ALLOW),
        (device_pb2.FLOAT_POLICY_ALLOW, FloatPolicy.ALLOW),
        (device_pb2.FLOAT_POLICY_ASK, FloatPolicy.ASK),
    ],
)
def test_a_policy_for_floats_that_is_not_given_allows_them(number: int, policy: FloatPolicy) -> None:
    assert spec_of(float_policy=number).float_policy is policy
    device = device_message(float_policy=number)
    request = device_pb2.UpdateDeviceRequest(device=device, update_mask=FieldMask(paths=["float_policy"]))
    _, change = decode_device.decode_change(request, Mode.P2P)
    assert change == DeviceChange(float_policy=policy)
    assert not change.concerns_link
