"""Which routes the worker is told, whoever claims them and in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address, ip_network
from typing import Any

import pytest

from dataplane.engine.engine import Engine
from dataplane.engine.types import DeviceChange, EngineError, ErrorKind, PeerChange, PeerView
from dataplane.messages import ROUTES_MAX, Configure, PeerExpired, SetRoutes, SetSwitches
from dataplane.tun.routes import Hop
from dataplane.vocabulary import Mode, RouteTarget
from tests.engine.conftest import (
    FakeLauncher,
    FakeResources,
    device_spec,
    expire_before_removal,
    peer_spec,
    socket_spec,
)

HOST, EVERYONE = RouteTarget.HOST, RouteTarget.EVERYONE
GROUPS = {"224.0.0.0/4": EVERYONE, "255.255.255.255/32": EVERYONE, "ff00::/8": EVERYONE}


async def make_following(engine: Engine, **switches: bool) -> None:
    """A device "d" that follows the kernel's routes, unless switches are given, with a socket."""
    spec = device_spec()
    given: dict[str, Any] = switches or {"follow_kernel_routes": True}
    await engine.create_device(type(spec)(spec.name, spec.interface_name, Mode.MP, spec.mtu, **given))
    await engine.create_socket(socket_spec())


async def update(engine: Engine, peer_id: int, change: PeerChange) -> PeerView:
    return await engine.update_peer("d", peer_id, change)


async def becomes(look: Callable[[], object], wanted: object) -> None:
    """Waits until what is looked at is as wanted."""
    try:
        async with asyncio.timeout(5):
            while look() != wanted:  # noqa: ASYNC110 - what is looked at tells nobody when it changes
                await asyncio.sleep(0.001)
    except TimeoutError:
        assert look() == wanted


def networks(text: str) -> PeerChange:
    return PeerChange(routes=tuple(map(ip_network, text.split())))


# Peer.routes


async def test_a_new_peer_has_its_networks(engine: Engine, launcher: FakeLauncher) -> None:
    await make_following(engine)
    view = await engine.create_peer(peer_spec(1, routes="192.168.7.0/24 fd00:7::/48"))
    assert launcher.worker.routes == {"192.168.7.0/24": 1, "fd00:7::/48": 1}
    assert engine.get_peer("d", 1).spec.routes == view.spec.routes != ()


async def test_networks_are_replaced_as_a_whole_and_only_differences_are_told(
    engine: Engine, launcher: FakeLauncher
) -> None:
    await make_following(engine)
    await engine.create_peer(peer_spec(1, routes="10.1.0.0/16 10.2.0.0/16"))
    await update(engine, 1, networks("10.2.0.0/16 10.3.0.0/16"))
    assert launcher.worker.routes == {"10.2.0.0/16": 1, "10.3.0.0/16": 1}
    last = launcher.worker.commands[-1]
    assert isinstance(last, SetRoutes)
    assert len(last.routes) == 2
    await update(engine, 1, networks(""))
    assert launcher.worker.routes == {}


async def test_many_networks_go_in_several_messages(engine: Engine, launcher: FakeLauncher) -> None:
    await make_following(engine)
    many = [f"10.{number}.0.0/16" for number in range(250)]
    await engine.create_peer(peer_spec(1, vpn_ipv4="10.255.0.1", routes=" ".join(many)))
    assert launcher.worker.routes == dict.fromkeys(many, 1)
    told = [command for command in launcher.worker.commands if isinstance(command, SetRoutes)]
    assert [len(command.routes) for command in told] == [ROUTES_MAX, ROUTES_MAX, 250 - 2 * ROUTES_MAX]


@pytest.mark.parametrize("network", ["10.20.0.0/16", "10.8.0.1/32"])
async def test_a_network_or_address_of_another_peer_is_refused(
    engine: Engine, launcher: FakeLauncher, network: str
) -> None:
    await make_following(engine)
    await engine.create_peer(peer_spec(1, routes="10.20.0.0/16"))
    await engine.create_peer(peer_spec(2))
    before = dict(launcher.worker.routes)
    for attempt in (engine.create_peer(peer_spec(3, routes=network)), update(engine, 2, networks(network))):
        with pytest.raises(EngineError) as caught:
            await attempt
        assert (caught.value.kind, caught.value.reason) == (ErrorKind.ALREADY_EXISTS, "ROUTE_IN_USE")
        assert caught.value.metadata["peer_id"] == "1"
    assert launcher.worker.routes == before


async def test_a_vpn_address_that_is_a_network_of_another_peer_is_refused(engine: Engine) -> None:
    await make_following(engine)
    await engine.create_peer(peer_spec(1, routes="10.8.0.77/32"))
    await engine.create_peer(peer_spec(2))
    for attempt in (
        engine.create_peer(peer_spec(3, vpn_ipv4="10.8.0.77")),
        update(engine, 2, PeerChange(vpn_ipv4=IPv4Address("10.8.0.77"))),
    ):
        with pytest.raises(EngineError) as caught:
            await attempt
        assert caught.value.reason == "ROUTE_IN_USE"


async def test_a_network_is_free_again_once_its_peer_is_gone(engine: Engine, launcher: FakeLauncher) -> None:
    await make_following(engine)
    await engine.create_peer(peer_spec(1, routes="10.20.0.0/16"))
    await engine.delete_peer("d", 1)
    assert launcher.worker.routes == {}
    await engine.create_peer(peer_spec(2, routes="10.20.0.0/16"))
    assert launcher.worker.routes == {"10.20.0.0/16": 2}


# The kernel's routes


async def test_routes_of_before_the_device_lead_to_peers_that_come_later(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {ip_network("10.20.0.0/16"): (IPv4Address("10.8.0.1"),)}
    await make_following(engine)
    assert launcher.worker.routes == {}
    await engine.create_peer(peer_spec(1))
    assert launcher.worker.routes == {"10.20.0.0/16": 1}


async def test_routes_are_followed_as_they_change(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    await make_following(engine)
    await engine.create_peer(peer_spec(1))
    await engine.create_peer(peer_spec(2))
    (feed,) = resources.feeds
    feed.tell("10.20.0.0/16", "10.8.0.1")
    await becomes(lambda: launcher.worker.routes, {"10.20.0.0/16": 1})
    feed.tell("10.20.0.0/16", "10.8.0.99", "10.8.0.2", "10.8.0.1")
    await becomes(lambda: launcher.worker.routes, {"10.20.0.0/16": 2})
    feed.tell("10.20.0.0/16")
    await becomes(lambda: launcher.worker.routes, {})


async def test_a_route_follows_the_vpn_address_of_its_gateway(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {ip_network("10.20.0.0/16"): (IPv4Address("10.8.0.1"),)}
    await make_following(engine)
    await engine.create_peer(peer_spec(1))
    await update(engine, 1, PeerChange(vpn_ipv4=IPv4Address("10.8.0.9")))
    assert launcher.worker.routes == {}
    await engine.create_peer(peer_spec(2))
    await update(engine, 2, PeerChange(vpn_ipv4=IPv4Address("10.8.0.1")))
    assert launcher.worker.routes == {"10.20.0.0/16": 2}


async def test_a_peers_own_network_goes_before_the_kernels_and_leaves_it_behind(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {ip_network("10.20.0.0/16"): (IPv4Address("10.8.0.1"),)}
    await make_following(engine)
    await engine.create_peer(peer_spec(1))
    await engine.create_peer(peer_spec(2, routes="10.20.0.0/16"))
    assert launcher.worker.routes == {"10.20.0.0/16": 2}
    await engine.delete_peer("d", 2)
    await becomes(lambda: launcher.worker.routes, {"10.20.0.0/16": 1})


async def test_an_expired_peer_leaves_its_network_to_the_next(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {ip_network("10.20.0.0/16"): (IPv4Address("10.8.0.1"), IPv4Address("10.8.0.2"))}
    await make_following(engine)
    await engine.create_peer(peer_spec(1))
    await engine.create_peer(peer_spec(2))
    worker = launcher.worker
    uid = worker.peers.pop(1).uid
    worker.routes.clear()  # as a worker does
    worker.say(PeerExpired(1, uid))
    await becomes(lambda: worker.routes, {"10.20.0.0/16": 2})
    await engine.create_peer(peer_spec(1))
    assert worker.routes == {"10.20.0.0/16": 1}


async def test_a_peer_that_expires_while_it_is_deleted_leaves_no_route(engine: Engine, launcher: FakeLauncher) -> None:
    await make_following(engine)
    await engine.create_peer(peer_spec(1, routes="10.20.0.0/16"))
    expire_before_removal(launcher)
    launcher.worker.routes.clear()
    await engine.delete_peer("d", 1)
    await engine.create_peer(peer_spec(1, routes="10.20.0.0/16"))
    assert launcher.worker.routes == {"10.20.0.0/16": 1}


async def test_a_vpn_address_is_no_route_of_the_kernel(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {ip_network("10.8.0.2/32"): (IPv4Address("10.8.0.1"),)}
    await make_following(engine)
    await engine.create_peer(peer_spec(1))
    assert launcher.worker.routes == {"10.8.0.2/32": 1}
    await engine.create_peer(peer_spec(2))
    assert launcher.worker.routes == {}
    await engine.delete_peer("d", 2)
    await becomes(lambda: launcher.worker.routes, {"10.8.0.2/32": 1})


async def test_networks_of_the_interface_itself_lead_to_the_host(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {
        ip_network("10.8.0.0/24"): (Hop.ON_LINK,),
        ip_network("10.8.0.254/32"): (Hop.LOCAL,),
        ip_network("10.8.0.255/32"): (Hop.BROADCAST,),
    }
    await make_following(engine)
    assert launcher.worker.routes == {"10.8.0.0/24": HOST, "10.8.0.254/32": HOST, "10.8.0.255/32": HOST}


async def test_a_device_that_follows_not_asks_the_kernel_nothing(engine: Engine, resources: FakeResources) -> None:
    await make_following(engine, skip_source_check=True)
    assert resources.feeds == []


async def test_following_can_be_begun_and_ended(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {ip_network("10.20.0.0/16"): (IPv4Address("10.8.0.1"),)}
    await make_following(engine, skip_source_check=False)
    await engine.create_peer(peer_spec(1))
    for _ in range(2):
        view = await engine.update_device("d", DeviceChange(follow_kernel_routes=True))
        assert view.follow_kernel_routes
        assert launcher.worker.routes == {"10.20.0.0/16": 1}
        await engine.update_device("d", DeviceChange(follow_kernel_routes=False))
        assert launcher.worker.routes == {}
        assert resources.feeds[-1].is_closed
    assert resources.changes == []


async def test_a_feed_that_fails_is_closed_and_its_routes_go(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {ip_network("10.20.0.0/16"): (IPv4Address("10.8.0.1"),)}
    await make_following(engine)
    await engine.create_peer(peer_spec(1))
    (feed,) = resources.feeds
    feed.error = OSError(5, "Input/output error")
    feed.tell("10.30.0.0/16", "10.8.0.1")
    await becomes(lambda: launcher.worker.routes, {})
    assert feed.is_closed


async def test_a_kernel_that_tells_no_routes_refuses_the_device(
    engine: Engine, resources: FakeResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = EngineError(ErrorKind.PERMISSION_DENIED, "PERMISSION_DENIED", "no")

    def refuse(_: int) -> Any:
        raise refusal

    monkeypatch.setattr(resources, "watch_routes", refuse)
    with pytest.raises(EngineError) as caught:
        await make_following(engine)
    assert caught.value is refusal
    assert engine.list_devices() == []
    await make_following(engine, skip_source_check=True)
    with pytest.raises(EngineError) as caught:
        await engine.update_device("d", DeviceChange(client_to_client=True, mtu=1300))
    assert caught.value is refusal
    assert (engine.get_device("d").client_to_client, resources.changes) == (False, [])


async def test_a_refused_setting_leaves_the_switches_as_they_were(
    engine: Engine, resources: FakeResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_following(engine, skip_source_check=True)
    refusal = EngineError(ErrorKind.FAILED_PRECONDITION, "LINK_SETTING_REFUSED", "no")

    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(resources, "change_link", refuse)
    with pytest.raises(EngineError) as caught:
        await engine.update_device("d", DeviceChange(mtu=68, follow_kernel_routes=True))
    assert caught.value is refusal
    assert not engine.get_device("d").follow_kernel_routes
    assert [feed.is_closed for feed in resources.feeds] == [True]


# Switches


async def test_multicast_and_broadcast_lead_to_everyone_if_forwarded(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {
        ip_network("10.8.0.255/32"): (Hop.BROADCAST,),
        ip_network("10.8.0.254/32"): (Hop.LOCAL,),
        ip_network("10.20.0.0/16"): (IPv4Address("10.8.0.1"),),
    }
    await make_following(engine, forward_multicast=True)
    await engine.create_peer(peer_spec(1))
    assert launcher.worker.routes == GROUPS | {"10.8.0.255/32": EVERYONE, "10.8.0.254/32": HOST}
    await engine.update_device("d", DeviceChange(forward_multicast=False))
    assert launcher.worker.routes == {}


async def test_client_to_client_keeps_the_hosts_addresses_the_hosts(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {ip_network("10.8.0.254/32"): (Hop.LOCAL,)}
    await make_following(engine, client_to_client=True)
    assert launcher.worker.routes == {"10.8.0.254/32": HOST}


async def test_the_worker_is_told_the_switches_and_each_change(engine: Engine, launcher: FakeLauncher) -> None:
    await make_following(engine, skip_source_check=True)
    configure = launcher.worker.commands[0]
    assert isinstance(configure, Configure)
    assert (configure.skip_source_check, configure.client_to_client) == (True, False)
    view = await engine.update_device("d", DeviceChange(skip_source_check=False, client_to_client=True))
    assert SetSwitches(skip_source_check=False, client_to_client=True) in launcher.worker.commands
    assert (view.skip_source_check, view.client_to_client) == (False, True)


async def test_a_new_worker_has_the_switches_and_the_routes_that_need_no_peer(
    engine: Engine, launcher: FakeLauncher, resources: FakeResources
) -> None:
    resources.routes = {
        ip_network("10.8.0.254/32"): (Hop.LOCAL,),
        ip_network("10.20.0.0/16"): (IPv4Address("10.8.0.1"),),
    }
    await make_following(engine, follow_kernel_routes=True, client_to_client=True, forward_multicast=True)
    await engine.create_peer(peer_spec(1))
    launcher.worker.end(1)
    await becomes(lambda: len(launcher.workers), 2)
    await becomes(lambda: launcher.worker.routes, GROUPS | {"10.8.0.254/32": HOST})
    await becomes(lambda: engine.get_device("d").worker_pid, launcher.worker.pid)
    configure = launcher.worker.commands[0]
    assert isinstance(configure, Configure)
    assert configure.client_to_client
    await becomes(lambda: engine.get_device("d").state.name, "READY")
    await engine.create_peer(peer_spec(1, vpn_ipv4="10.8.0.1"))
    assert launcher.worker.routes["10.20.0.0/16"] == 1
