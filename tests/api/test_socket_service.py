"""SocketService over a real server: what each call does, and how it refuses."""

from __future__ import annotations

import os
import socket
from typing import Any

import grpc
import pytest
from ovpn.dataplane.v1 import socket_pb2

from dataplane.engine import errors
from tests.api.conftest import Api, changed, device_fd, device_fds, refusal_of, socket_message

TOKEN = "0123456789abcdef" * 2


def create(**fields: Any) -> socket_pb2.CreateSocketRequest:
    return changed(socket_pb2.CreateSocketRequest(socket=socket_message()), **fields)  # type: ignore[no-any-return]


def get(device: str = "d", name: str = "s") -> socket_pb2.GetSocketRequest:
    return socket_pb2.GetSocketRequest(device=device, name=name)


def delete(device: str = "d", name: str = "s", **fields: Any) -> socket_pb2.DeleteSocketRequest:
    return socket_pb2.DeleteSocketRequest(device=device, name=name, **fields)


def adopt(device: str = "d", name: str = "s", token: str = TOKEN, **fields: Any) -> socket_pb2.AdoptSocketRequest:
    return socket_pb2.AdoptSocketRequest(device=device, name=name, socket_token=token, **fields)


@pytest.mark.parametrize(
    ("address", "ipv6_only"),
    [
        ("0.0.0.0", False),
        ("192.0.2.1", False),
        ("127.0.0.1", False),
        ("::", True),
        ("::", False),
        ("2001:db8::1", True),
    ],
)
async def test_a_created_socket_is_returned(api: Api, address: str, ipv6_only: bool) -> None:
    await api.make_device()
    request = create(socket__address=address, socket__ipv6_only=ipv6_only, network_namespace="/run/netns/blue")
    socket = (await api.sockets.CreateSocket(request)).socket
    expected = socket_message(address=address, ipv6_only=ipv6_only, protocol=socket_pb2.SOCKET_PROTOCOL_UDP)
    assert socket == expected
    assert (await api.sockets.GetSocket(get())).socket == socket


async def test_the_options_that_were_got_are_told(api: Api) -> None:
    await api.make_device()
    options: dict[str, Any] = {
        "mark": 7,
        "bind_to_interface": "lo",
        "receive_buffer_bytes": 4096,
        "send_buffer_bytes": 5000,
        "copy_dscp": True,
        "fragmentation": socket_pb2.FRAGMENTATION_POLICY_PATH_MTU,
    }
    request = create(**{f"socket__{name}": value for name, value in options.items()})
    options["protocol"] = socket_pb2.SOCKET_PROTOCOL_UDP
    assert (await api.sockets.CreateSocket(request)).socket == socket_message(**options)


async def test_the_system_may_choose_the_port(api: Api) -> None:
    await api.make_device()
    assert (await api.sockets.CreateSocket(create(socket__port=0))).socket.port == 40000


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"socket__device": ""}, {"socket.device"}),
        ({"socket__device": "a b"}, {"socket.device"}),
        ({"socket__name": ""}, {"socket.name"}),
        ({"socket__name": "n" * 64}, {"socket.name"}),
        ({"socket__address": ""}, {"socket.address"}),
        ({"socket__address": "192.0.2"}, {"socket.address"}),
        ({"socket__address": "192.0.2.01"}, {"socket.address"}),
        ({"socket__address": "x" * 1000}, {"socket.address"}),
        ({"socket__address": "224.0.0.1"}, {"socket.address"}),
        ({"socket__address": "ff02::1"}, {"socket.address"}),
        ({"socket__address": "255.255.255.255"}, {"socket.address"}),
        ({"socket__address": "fe80::1"}, {"socket.address"}),
        ({"socket__address": "fe80::1%eth0"}, {"socket.address"}),
        ({"socket__address": "::ffff:192.0.2.1"}, {"socket.address"}),
        ({"socket__port": 65536}, {"socket.port"}),
        ({"socket__address": "0.0.0.0", "socket__ipv6_only": True}, {"socket.ipv6_only"}),
        ({"socket__bind_to_interface": "eth 0"}, {"socket.bind_to_interface"}),
        ({"socket__bind_to_interface": "e" * 16}, {"socket.bind_to_interface"}),
        ({"socket__receive_buffer_bytes": 4095}, {"socket.receive_buffer_bytes"}),
        ({"socket__send_buffer_bytes": 2**30}, {"socket.send_buffer_bytes"}),
        ({"socket__fragmentation": 4}, {"socket.fragmentation"}),
        ({"network_namespace": "blue"}, {"network_namespace"}),
        ({"network_namespace": "/" + "n" * 255}, {"network_namespace"}),
        (
            {"socket": None, "network_namespace": "blue"},
            {"socket.device", "socket.name", "socket.address", "network_namespace"},
        ),
    ],
)
async def test_a_wrong_field_of_a_creation_is_named_and_nothing_is_made(
    api: Api, fields: dict[str, Any], wrong: set[str]
) -> None:
    await api.make_device()
    before = await api.everything()
    refusal = await refusal_of(api.sockets.CreateSocket(create(**fields)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert set(refusal.violations) == wrong
    assert await api.everything() == before


async def test_a_second_socket_of_the_name_is_refused_and_changes_nothing(api: Api) -> None:
    await api.make_ready()
    before = await api.everything()
    refusal = await refusal_of(api.sockets.CreateSocket(create(socket__port=7)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SOCKET_EXISTS")
    assert refusal.metadata == {"device": "d", "socket": "s"}
    assert await api.everything() == before


async def test_a_missing_device_is_not_found_by_any_call(api: Api) -> None:
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    with client:
        for call in (
            api.sockets.CreateSocket(create()),
            api.sockets.AdoptSocket(adopt(token=token)),
            api.sockets.GetSocket(get()),
            api.sockets.ListSockets(socket_pb2.ListSocketsRequest(device="d")),
            api.sockets.DeleteSocket(delete()),
        ):
            refusal = await refusal_of(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND")


async def test_a_missing_socket_is_not_found(api: Api) -> None:
    await api.make_device()
    for call in (api.sockets.GetSocket(get()), api.sockets.DeleteSocket(delete())):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SOCKET_NOT_FOUND")


@pytest.mark.parametrize(("device", "name", "wrong"), [("", "", {"device", "name"}), ("d", "a/b", {"name"})])
async def test_malformed_names_are_refused_by_get_delete_and_adopt(
    api: Api, device: str, name: str, wrong: set[str]
) -> None:
    for call in (
        api.sockets.GetSocket(get(device, name)),
        api.sockets.DeleteSocket(delete(device, name, allow_missing=True)),
        api.sockets.AdoptSocket(adopt(device, name)),
    ):
        assert set((await refusal_of(call)).violations) == wrong


async def test_a_handed_over_socket_is_adopted(api: Api) -> None:
    await api.make_device()
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    with client:
        socket = (await api.sockets.AdoptSocket(adopt(token=token))).socket
    udp = socket_pb2.SOCKET_PROTOCOL_UDP
    assert socket == socket_message(address="192.0.2.1", adopted=True, protocol=udp)


async def test_an_adopted_socket_tells_that_it_copies_the_dscp(api: Api) -> None:
    await api.make_device()
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    with client:
        assert (await api.sockets.AdoptSocket(adopt(token=token, copy_dscp=True))).socket.copy_dscp
    assert (await api.sockets.GetSocket(get())).socket.copy_dscp


async def hand_over_pair(api: Api) -> tuple[socket.socket, str, str]:
    """A hand-off connection and the tokens of what passes for a UDP socket, and of a control outlet."""
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with client, ours, theirs:
        other_client, control_token = await api.hand_over(ours.fileno())
    return other_client, token, control_token


async def test_a_socket_is_adopted_with_its_control_outlet(api: Api) -> None:
    await api.make_device()
    client, token, control_token = await hand_over_pair(api)
    with client:
        adopted = (await api.sockets.AdoptSocket(adopt(token=token, control_token=control_token))).socket
    assert adopted.has_control_outlet
    assert (await api.sockets.GetSocket(get())).socket == adopted


async def test_a_malformed_control_token_is_refused(api: Api) -> None:
    await api.make_device()
    refusal = await refusal_of(api.sockets.AdoptSocket(adopt(control_token="short")))
    assert set(refusal.violations) == {"control_token"}


async def test_an_unknown_control_token_spends_the_other_one(api: Api) -> None:
    await api.make_device()
    client, token, control_token = await hand_over_pair(api)
    with client:
        before = device_fds()
        refusal = await refusal_of(api.sockets.AdoptSocket(adopt(token=token, control_token=TOKEN)))
        assert refusal.reason == "HANDOFF_TOKEN_UNKNOWN"
        assert device_fds() == before - 1
        refusal = await refusal_of(api.sockets.AdoptSocket(adopt(token=TOKEN, control_token=control_token)))
        assert refusal.reason == "HANDOFF_TOKEN_UNKNOWN"
        refusal = await refusal_of(api.sockets.AdoptSocket(adopt(token=control_token)))
        assert refusal.reason == "HANDOFF_TOKEN_UNKNOWN"


@pytest.mark.parametrize("token", ["", "short", TOKEN.upper(), TOKEN + "0", TOKEN + "\n"])
async def test_a_malformed_token_is_refused(api: Api, token: str) -> None:
    await api.make_device()
    assert set((await refusal_of(api.sockets.AdoptSocket(adopt(token=token)))).violations) == {"socket_token"}


async def test_an_unknown_token_is_not_found_and_not_repeated(api: Api) -> None:
    await api.make_device()
    refusal = await refusal_of(api.sockets.AdoptSocket(adopt()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "HANDOFF_TOKEN_UNKNOWN")
    assert TOKEN not in str(refusal)


async def test_a_refused_adoption_spends_the_token_and_closes_the_descriptor(api: Api) -> None:
    await api.make_device()
    client, token = await api.hand_over(fd := device_fd())
    os.close(fd)
    with client:
        before = device_fds()
        api.resources.refusal = errors.socket_not_bound("no port")
        refusal = await refusal_of(api.sockets.AdoptSocket(adopt(token=token)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SOCKET_NOT_BOUND")
        assert device_fds() == before - 1
        assert (await refusal_of(api.sockets.AdoptSocket(adopt(token=token)))).reason == "HANDOFF_TOKEN_UNKNOWN"


async def test_sockets_are_listed_by_name_page_by_page(api: Api) -> None:
    await api.make_device()
    for name in ("c", "a", "b"):
        await api.sockets.CreateSocket(create(socket__name=name))
    first = await api.sockets.ListSockets(socket_pb2.ListSocketsRequest(device="d", page_size=2))
    assert [socket.name for socket in first.sockets] == ["a", "b"]
    last = await api.sockets.ListSockets(
        socket_pb2.ListSocketsRequest(device="d", page_size=2, page_token=first.next_page_token)
    )
    assert ([socket.name for socket in last.sockets], last.next_page_token) == (["c"], "")


async def test_a_token_of_another_devices_list_is_refused(api: Api) -> None:
    for device in ("d", "e"):
        await api.make_device(device)
        for name in ("a", "b"):
            await api.sockets.CreateSocket(create(socket__device=device, socket__name=name))
    page = await api.sockets.ListSockets(socket_pb2.ListSocketsRequest(device="d", page_size=1))
    request = socket_pb2.ListSocketsRequest(device="e", page_size=1, page_token=page.next_page_token)
    assert set((await refusal_of(api.sockets.ListSockets(request))).violations) == {"page_token"}


async def test_the_peers_of_a_deleted_socket_are_gone(api: Api) -> None:
    await api.make_ready()
    await api.make_peer()
    assert (await api.sockets.GetSocket(get())).socket.peer_count == 1
    await api.sockets.DeleteSocket(delete())
    assert api.engine.get_device("d").peer_count == 0
    assert not api.launcher.worker.sockets


async def test_deleting_what_is_missing_may_be_allowed(api: Api) -> None:
    await api.sockets.DeleteSocket(delete(allow_missing=True))
    await api.make_device()
    await api.sockets.DeleteSocket(delete(allow_missing=True))
