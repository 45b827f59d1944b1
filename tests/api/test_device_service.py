"""DeviceService over a real server: what each call does, and how it refuses."""

from __future__ import annotations

import os
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import common_pb2, device_pb2

from dataplane.engine import errors
from dataplane.engine.types import DeviceChange
from dataplane.vocabulary import Column, DropReason
from tests.api.conftest import Api, changed, device_fd, device_fds, device_message, exchange, refusal_of

TOKEN = "0123456789abcdef" * 2


def create(device: device_pb2.Device | None = None, **fields: Any) -> device_pb2.CreateDeviceRequest:
    return device_pb2.CreateDeviceRequest(device=device or device_message(), **fields)


def update(*paths: str, **fields: Any) -> device_pb2.UpdateDeviceRequest:
    device = changed(device_pb2.Device(name="d"), **fields)
    return device_pb2.UpdateDeviceRequest(device=device, update_mask=FieldMask(paths=paths))


async def test_a_created_device_is_returned_with_defaults_and_state(api: Api) -> None:
    device = (await api.devices.CreateDevice(create())).device
    assert device == device_pb2.Device(
        name="d",
        interface_name="d",
        mode=common_pb2.DEVICE_MODE_MP,
        mtu=1428,
        state=device_pb2.DEVICE_STATE_READY,
        worker_pid=1000,
        float_policy=device_pb2.FLOAT_POLICY_ALLOW,
    )


async def test_a_device_is_created_as_asked_for(api: Api) -> None:
    asked = device_message(
        name="a.B_c-9",
        interface_name="tun7",
        mode=common_pb2.DEVICE_MODE_P2P,
        mtu=1280,
        addresses=["10.8.0.1/24", "fd00::1/64"],
        admin_up=True,
        network_namespace="/run/netns/blue",
        float_policy=device_pb2.FLOAT_POLICY_ASK,
    )
    device = (await api.devices.CreateDevice(create(asked))).device
    assert changed(device, state=None, worker_pid=None) == asked


async def test_output_only_fields_of_a_request_are_ignored(api: Api) -> None:
    asked = device_message(state=device_pb2.DEVICE_STATE_FAILED, peer_count=9, worker_pid=9)
    asked.drops.add(reason="rx_truncated", packets=9)
    device = (await api.devices.CreateDevice(create(asked))).device
    assert (device.state, device.peer_count, device.worker_pid) == (device_pb2.DEVICE_STATE_READY, 0, 1000)
    assert not device.drops


BAD_CREATIONS = [
    ({"device__name": ""}, {"device.name"}),
    ({"device__name": "-d", "device__interface_name": "d"}, {"device.name"}),
    ({"device__name": "a" * 64, "device__interface_name": "d"}, {"device.name"}),
    ({"device__name": "a/b", "device__interface_name": "d"}, {"device.name"}),
    ({"device__name": "ä", "device__interface_name": "d"}, {"device.name"}),
    ({"device__name": "d\n", "device__interface_name": "d"}, {"device.name"}),
    ({"device__name": "a" * 16}, {"device.interface_name"}),
    ({"device__interface_name": "a" * 16}, {"device.interface_name"}),
    ({"device__interface_name": "a b"}, {"device.interface_name"}),
    ({"device__interface_name": "a/b"}, {"device.interface_name"}),
    ({"device__interface_name": "a:b"}, {"device.interface_name"}),
    ({"device__interface_name": "tun%d"}, {"device.interface_name"}),
    ({"device__interface_name": ".."}, {"device.interface_name"}),
    ({"device__mode": 0}, {"device.mode"}),
    ({"device__mode": 3}, {"device.mode"}),
    ({"device__mode": -1}, {"device.mode"}),
    ({"device__mtu": 67}, {"device.mtu"}),
    ({"device__mtu": 65464}, {"device.mtu"}),
    ({"device__tcp_mss_ipv4": 87, "device__tcp_mss_ipv6": 87}, {"device.tcp_mss_ipv4", "device.tcp_mss_ipv6"}),
    ({"device__tcp_mss_ipv4": 65496, "device__tcp_mss_ipv6": 65476}, {"device.tcp_mss_ipv4", "device.tcp_mss_ipv6"}),
    ({"device__float_policy": 4}, {"device.float_policy"}),
    ({"device__float_policy": -1}, {"device.float_policy"}),
    ({"device__mtu": 1279, "device__addresses": ["fd00::1/64"]}, {"device.mtu"}),
    ({"device__addresses": ["10.8.0.1"]}, {"device.addresses[0]"}),
    ({"device__addresses": ["10.8.0.1/24", "10.8.0.1/255.255.255.0"]}, {"device.addresses[1]"}),
    ({"device__addresses": ["10.8.0.1/33"]}, {"device.addresses[0]"}),
    ({"device__addresses": ["fd00::1/129"]}, {"device.addresses[0]"}),
    ({"device__addresses": ["fe80::1%eth0/64"]}, {"device.addresses[0]"}),
    ({"device__addresses": ["224.0.0.1/24"]}, {"device.addresses[0]"}),
    ({"device__addresses": ["127.0.0.1/8"]}, {"device.addresses[0]"}),
    ({"device__addresses": ["0.0.0.0/0"]}, {"device.addresses[0]"}),
    ({"device__addresses": ["::ffff:10.0.0.1/96"]}, {"device.addresses[0]"}),
    ({"device__addresses": ["10.8.0.1/24", "10.8.0.1/16"]}, {"device.addresses[1]"}),
    ({"device__addresses": [f"10.8.0.{i}/24" for i in range(1, 66)]}, {"device.addresses"}),
    ({"device__network_namespace": "blue"}, {"device.network_namespace"}),
    ({"device__network_namespace": "/run/" + "é" * 126}, {"device.network_namespace"}),
    ({"device__network_namespace": "/run\0"}, {"device.network_namespace"}),
    ({"tun_token": "short"}, {"tun_token"}),
    ({"tun_token": TOKEN.upper()}, {"tun_token"}),
    ({"delete_on_handoff_close": True}, {"delete_on_handoff_close"}),
    ({"tun_token": TOKEN, "device__interface_name": "d"}, {"device.interface_name"}),
    ({"tun_token": TOKEN, "device__addresses": ["10.8.0.1/24"]}, {"device.addresses"}),
    ({"tun_token": TOKEN, "device__admin_up": True}, {"device.admin_up"}),
    ({"tun_token": TOKEN, "device__network_namespace": "/n"}, {"device.network_namespace"}),
    ({"tun_token": TOKEN, "device__mtu": 67}, {"device.mtu"}),
]


@pytest.mark.parametrize(("fields", "wrong"), BAD_CREATIONS)
async def test_a_wrong_field_of_a_creation_is_named_and_nothing_is_made(
    api: Api, fields: dict[str, Any], wrong: set[str]
) -> None:
    refusal = await refusal_of(api.devices.CreateDevice(changed(create(), **fields)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert set(refusal.violations) == wrong
    assert await api.everything() == ["0"]


async def test_all_wrong_fields_of_a_creation_are_named_at_once(api: Api) -> None:
    bad = device_pb2.Device(mtu=1, addresses=["x", "10.8.0.1/24", "y"], network_namespace="n", interface_name=":")
    refusal = await refusal_of(api.devices.CreateDevice(create(bad, delete_on_handoff_close=True)))
    assert list(refusal.violations) == [
        "device.name",
        "device.mode",
        "device.addresses[0]",
        "device.addresses[2]",
        "device.interface_name",
        "delete_on_handoff_close",
        "device.mtu",
        "device.network_namespace",
    ]
    assert refusal.metadata == {"field": "device.name", "violations": "8"}


async def test_an_empty_request_is_refused_not_failed(api: Api) -> None:
    refusal = await refusal_of(api.devices.CreateDevice(device_pb2.CreateDeviceRequest()))
    assert set(refusal.violations) == {"device.name", "device.mode"}


async def test_a_second_device_of_the_name_is_refused_and_changes_nothing(api: Api) -> None:
    await api.make_device()
    before = await api.everything()
    refusal = await refusal_of(api.devices.CreateDevice(create(device_message(mtu=1300))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DEVICE_EXISTS")
    assert refusal.domain == "dataplane.ovpn"
    assert refusal.metadata == {"device": "d"}
    assert await api.everything() == before


async def test_what_the_system_refuses_is_told(api: Api) -> None:
    api.resources.refusal = errors.interface_exists("d")
    refusal = await refusal_of(api.devices.CreateDevice(create()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "INTERFACE_EXISTS")
    assert await api.everything() == ["0"]


async def test_a_device_is_created_on_a_handed_over_tun(api: Api) -> None:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    with client:
        device = (await api.devices.CreateDevice(create(device_message(mtu=0), tun_token=token))).device
    assert (device.interface_name, device.mtu) == ("adopted0", 1300)


async def test_a_token_is_good_once(api: Api) -> None:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    with client:
        await api.devices.CreateDevice(create(tun_token=token))
        refusal = await refusal_of(api.devices.CreateDevice(create(device_message(name="e"), tun_token=token)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "HANDOFF_TOKEN_UNKNOWN")


async def test_a_wrong_request_does_not_spend_its_token(api: Api) -> None:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    with client:
        await refusal_of(api.devices.CreateDevice(create(device_message(name=""), tun_token=token)))
        await api.devices.CreateDevice(create(tun_token=token))


async def test_a_refused_adoption_closes_the_descriptor(api: Api) -> None:
    await api.make_device()
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    with client:
        before = device_fds()
        await refusal_of(api.devices.CreateDevice(create(tun_token=token)))
        assert device_fds() == before - 1


async def test_a_token_outlives_its_connection_without_a_lease(api: Api) -> None:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    client.close()
    with api.connect() as other:
        await exchange(other, b"x")  # the close was seen before this
    assert (await api.devices.CreateDevice(create(tun_token=token))).device.name == "d"


async def test_get_returns_the_device_with_its_drops(api: Api) -> None:
    await api.make_device()
    api.launcher.worker.device_row()[Column.DROPS + DropReason.RX_TRUNCATED] = 5
    device = (await api.devices.GetDevice(device_pb2.GetDeviceRequest(name="d"))).device
    assert device.drops == [common_pb2.DropCounter(reason="rx_truncated", packets=5)]


async def test_get_counts_the_peers(api: Api) -> None:
    await api.make_ready()
    await api.make_peer(1)
    await api.make_peer(2)
    assert (await api.devices.GetDevice(device_pb2.GetDeviceRequest(name="d"))).device.peer_count == 2


@pytest.mark.parametrize("name", ["", "a b", "x" * 64])
async def test_a_malformed_name_is_refused_by_get_update_and_delete(api: Api, name: str) -> None:
    for call, field in (
        (api.devices.GetDevice(device_pb2.GetDeviceRequest(name=name)), "name"),
        (api.devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name=name, allow_missing=True)), "name"),
        (api.devices.UpdateDevice(update("admin_up", name=name)), "device.name"),
    ):
        assert set((await refusal_of(call)).violations) == {field}


async def test_a_missing_device_is_not_found(api: Api) -> None:
    for call in (
        api.devices.GetDevice(device_pb2.GetDeviceRequest(name="gone")),
        api.devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name="gone")),
        api.devices.UpdateDevice(update("admin_up", name="gone")),
    ):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND")
        assert refusal.metadata == {"device": "gone"}


async def test_devices_are_listed_by_name_page_by_page(api: Api) -> None:
    for name in ("c", "a", "d", "b"):
        await api.make_device(name)
    names, token = [], ""
    for _ in range(2):
        page = await api.devices.ListDevices(device_pb2.ListDevicesRequest(page_size=2, page_token=token))
        names.append([device.name for device in page.devices])
        token = page.next_page_token
    assert names == [["a", "b"], ["c", "d"]]
    assert token == ""


async def test_a_wrong_page_is_refused(api: Api) -> None:
    request = device_pb2.ListDevicesRequest(page_size=1001, page_token="nonsense")
    assert set((await refusal_of(api.devices.ListDevices(request))).violations) == {"page_size", "page_token"}


async def test_update_changes_what_the_mask_names_and_no_more(api: Api) -> None:
    await api.make_device()
    fields = {"mtu": 1300, "addresses": ["10.9.0.1/24"], "admin_up": True}
    device = (await api.devices.UpdateDevice(update("admin_up", "mtu", **fields))).device
    assert (device.mtu, device.admin_up, list(device.addresses)) == (1300, True, [])
    assert api.resources.changes[-1] == DeviceChange(mtu=1300, admin_up=True)


@pytest.mark.parametrize(
    "switch", ["skip_source_check", "client_to_client", "forward_multicast", "follow_kernel_routes"]
)
async def test_each_switch_is_on_by_an_update_and_off_by_the_next(api: Api, switch: str) -> None:
    await api.make_device()
    before = (await api.devices.GetDevice(device_pb2.GetDeviceRequest(name="d"))).device
    device = (await api.devices.UpdateDevice(update(switch, **{switch: True}))).device
    assert device == changed(before, **{switch: True})
    assert (await api.devices.GetDevice(device_pb2.GetDeviceRequest(name="d"))).device == device
    assert (await api.devices.UpdateDevice(update(switch))).device == before
    assert api.resources.changes == []


async def test_the_policy_for_floats_changes_without_the_interface(api: Api) -> None:
    before = (await api.devices.CreateDevice(create())).device
    device = (await api.devices.UpdateDevice(update("float_policy", float_policy=device_pb2.FLOAT_POLICY_DENY))).device
    assert device == changed(before, float_policy=device_pb2.FLOAT_POLICY_DENY)
    assert list((await api.devices.ListDevices(device_pb2.ListDevicesRequest())).devices) == [device]
    assert (await api.devices.UpdateDevice(update("float_policy"))).device == before
    assert api.resources.changes == []


async def test_the_switches_of_many_peers_are_refused_on_a_p2p_device(api: Api) -> None:
    await api.make_device(mode=common_pb2.DEVICE_MODE_P2P)
    switches = ("client_to_client", "forward_multicast", "follow_kernel_routes")
    refusal = await refusal_of(api.devices.UpdateDevice(update(*switches, **dict.fromkeys(switches, True))))
    assert set(refusal.violations) == {f"device.{switch}" for switch in switches}


async def test_update_may_be_repeated(api: Api) -> None:
    await api.make_device()
    first = await api.devices.UpdateDevice(update("mtu", mtu=1300))
    assert await api.devices.UpdateDevice(update("mtu", mtu=1300)) == first


async def test_update_with_an_empty_list_takes_the_addresses_away(api: Api) -> None:
    await api.devices.CreateDevice(create(device_message(addresses=["10.8.0.1/24"])))
    device = (await api.devices.UpdateDevice(update("addresses"))).device
    assert not device.addresses
    assert api.resources.changes[-1] == DeviceChange(addresses=())


@pytest.mark.parametrize(
    ("paths", "fields", "wrong"),
    [
        ([], {}, {"update_mask"}),
        (["name"], {}, {"update_mask"}),
        (["*"], {}, {"update_mask"}),
        (["mtu", "mtu"], {"mtu": 1300}, {"update_mask"}),
        (["mtu"] * 100, {"mtu": 1300}, {"update_mask"}),
        (["mtu"], {"mtu": 0}, {"device.mtu"}),
        (["mtu"], {"mtu": 65464}, {"device.mtu"}),
        (["tcp_mss_ipv4"], {"tcp_mss_ipv4": 1}, {"device.tcp_mss_ipv4"}),
        (["tcp_mss_ipv6"], {"tcp_mss_ipv6": 65476}, {"device.tcp_mss_ipv6"}),
        (["float_policy"], {"float_policy": 4}, {"device.float_policy"}),
        (["addresses"], {"addresses": ["x"]}, {"device.addresses[0]"}),
        (["mtu", "addresses"], {"mtu": 1000, "addresses": ["fd00::1/64"]}, {"device.mtu"}),
        (["mtu", "mode"], {"mtu": 1, "addresses": ["ignored"]}, {"update_mask", "device.mtu"}),
    ],
)
async def test_a_wrong_update_is_refused_and_changes_nothing(
    api: Api, paths: list[str], fields: dict[str, Any], wrong: set[str]
) -> None:
    await api.make_device()
    before = await api.everything()
    assert set((await refusal_of(api.devices.UpdateDevice(update(*paths, **fields)))).violations) == wrong
    assert await api.everything() == before


async def test_a_deleted_device_is_gone_with_its_worker(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    await api.devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name="d"))
    assert not (await api.devices.ListDevices(device_pb2.ListDevicesRequest())).devices
    assert api.launcher.worker.returncode == 0


async def test_deleting_what_is_missing_may_be_allowed(api: Api) -> None:
    await api.devices.DeleteDevice(device_pb2.DeleteDeviceRequest(name="d", allow_missing=True))
