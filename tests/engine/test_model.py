"""Random sequences of calls, worker events and deaths, against a model of plain sets.

After each step the engine, its worker and the model agree, and the events tell the same story.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from ipaddress import IPv4Address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dataplane.engine.engine import Engine
from dataplane.engine.types import (
    DeviceState,
    EngineError,
    Event,
    KeySwapNeeded,
    PeerChange,
    PeerCreated,
    PeerDeleted,
    WorkerRestarted,
)
from dataplane.messages import KeyExhausted, PeerExpired
from dataplane.vocabulary import DelReason, KeySlot
from tests.descriptors import open_fds
from tests.engine.conftest import (
    LIMITS,
    FakeLauncher,
    FakeResources,
    key_spec,
    make_device,
    next_event,
    peer_spec,
    socket_spec,
)

PEER_IDS = st.integers(0, 6)
SOCKETS = st.sampled_from(["a", "b", "c", "d"])
ADDRESSES = st.integers(0, 8).map(lambda number: IPv4Address("10.0.0.0") + number)
SLOTS = st.sampled_from(list(KeySlot))


class Model(RuleBasedStateMachine):
    """A device, its sockets, peers and keys."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.fds = open_fds()
        self.launcher = FakeLauncher()
        self.sockets: set[str] = set()
        self.peers: dict[int, tuple[str, IPv4Address]] = {}
        self.keys: dict[tuple[int, KeySlot], int] = {}
        self.told: dict[int, int] = {}  # peers by the events alone: peer_id to create_revision
        self.deaths = 0
        self.run(self.set_up())

    async def set_up(self) -> None:
        self.engine = Engine(limits=LIMITS, worker_launcher=self.launcher, resources=FakeResources())
        self.watch = await self.engine.watch().__aenter__()
        await make_device(self.engine)

    def teardown(self) -> None:
        self.run(self.engine.close())
        assert open_fds() <= self.fds
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def run(self, call: Awaitable[object]) -> str:
        """Makes a call; gives the reason if it was refused."""

        async def make() -> str:
            try:
                await call
            except EngineError as error:
                return error.reason
            return ""

        return self.loop.run_until_complete(make())

    @rule(name=SOCKETS)
    def create_socket(self, name: str) -> None:
        expected = ""
        if name in self.sockets:
            expected = "SOCKET_EXISTS"
        elif len(self.sockets) == LIMITS.max_sockets_per_device:
            expected = "SOCKET_LIMIT"
        assert self.run(self.engine.create_socket(socket_spec(name))) == expected
        if not expected:
            self.sockets.add(name)

    @rule(name=SOCKETS)
    def delete_socket(self, name: str) -> None:
        expected = "" if name in self.sockets else "SOCKET_NOT_FOUND"
        assert self.run(self.engine.delete_socket("d", name)) == expected
        self.sockets.discard(name)
        for peer_id in [peer_id for peer_id, (sock, _) in self.peers.items() if sock == name]:
            self.forget(peer_id)

    @rule(peer_id=PEER_IDS, sock=SOCKETS, address=ADDRESSES)
    def create_peer(self, peer_id: int, sock: str, address: IPv4Address) -> None:
        expected = ""
        if sock not in self.sockets:
            expected = "SOCKET_NOT_FOUND"
        elif peer_id in self.peers:
            expected = "PEER_EXISTS"
        elif len(self.peers) == LIMITS.max_peers_per_device:
            expected = "PEER_LIMIT"
        elif address in {used for _, used in self.peers.values()}:
            expected = "VPN_ADDRESS_IN_USE"
        spec = peer_spec(peer_id, sock=sock, vpn_ipv4=str(address))
        assert self.run(self.engine.create_peer(spec)) == expected
        if not expected:
            self.peers[peer_id] = (sock, address)

    @rule(peer_id=PEER_IDS, address=ADDRESSES)
    def update_peer(self, peer_id: int, address: IPv4Address) -> None:
        expected = ""
        if peer_id not in self.peers:
            expected = "PEER_NOT_FOUND"
        elif address in {used for other, (_, used) in self.peers.items() if other != peer_id}:
            expected = "VPN_ADDRESS_IN_USE"
        assert self.run(self.engine.update_peer("d", peer_id, PeerChange(vpn_ipv4=address))) == expected
        if not expected:
            self.peers[peer_id] = (self.peers[peer_id][0], address)

    @rule(peer_id=PEER_IDS)
    def delete_peer(self, peer_id: int) -> None:
        expected = "" if peer_id in self.peers else "PEER_NOT_FOUND"
        assert self.run(self.engine.delete_peer("d", peer_id)) == expected
        self.forget(peer_id)

    @rule(peer_id=PEER_IDS, slot=SLOTS, key_id=st.integers(0, 7))
    def install_key(self, peer_id: int, slot: KeySlot, key_id: int) -> None:
        expected = "" if peer_id in self.peers else "PEER_NOT_FOUND"
        assert self.run(self.engine.install_key(key_spec(peer_id, slot, key_id))) == expected
        if not expected:
            self.keys[peer_id, slot] = key_id

    @rule(peer_id=PEER_IDS)
    def swap_keys(self, peer_id: int) -> None:
        expected = "" if peer_id in self.peers else "PEER_NOT_FOUND"
        assert self.run(self.engine.swap_keys("d", peer_id)) == expected
        swapped = {(peer_id, KeySlot(1 - slot)): self.keys.pop((peer_id, slot), None) for slot in KeySlot}
        self.keys.update({place: key_id for place, key_id in swapped.items() if key_id is not None})

    @rule(peer_id=PEER_IDS, slot=SLOTS)
    def delete_key(self, peer_id: int, slot: KeySlot) -> None:
        expected = "" if peer_id in self.peers else "PEER_NOT_FOUND"
        assert self.run(self.engine.delete_key("d", peer_id, slot)) == expected
        self.keys.pop((peer_id, slot), None)

    @rule(peer_id=PEER_IDS)
    def expire(self, peer_id: int) -> None:
        if peer_id in self.peers:
            self.launcher.worker.say(PeerExpired(peer_id, self.launcher.worker.peers.pop(peer_id).uid))
            self.forget(peer_id)
            self.read_until(PeerDeleted)

    @rule(peer_id=PEER_IDS)
    def exhaust(self, peer_id: int) -> None:
        key_id = self.keys.pop((peer_id, KeySlot.PRIMARY), None)
        if key_id is not None:
            self.launcher.worker.say(KeyExhausted(peer_id, self.launcher.worker.peers[peer_id].uid, key_id))
            self.read_until(KeySwapNeeded)

    @precondition(lambda self: self.deaths < 3)
    @rule()
    def die(self) -> None:
        self.deaths += 1
        self.launcher.worker.kill()
        self.read_until(WorkerRestarted)
        for peer_id in list(self.peers):
            self.forget(peer_id)

    @invariant()
    def engine_and_worker_agree_with_the_model(self) -> None:
        view = self.engine.get_device("d")
        assert (view.state, view.peer_count) == (DeviceState.READY, len(self.peers))
        assert [socket.name for socket in self.engine.list_sockets("d")] == sorted(self.sockets)
        shown = {peer.spec.peer_id: (peer.spec.socket, peer.spec.vpn_ipv4) for peer in self.engine.list_peers("d")}
        assert shown == self.peers
        assert set(self.launcher.worker.peers) == set(self.peers)
        assert len(self.launcher.worker.sockets) == len(self.sockets)
        for peer_id in self.peers:
            for slot in KeySlot:
                try:
                    key_id = self.engine.get_key("d", peer_id, slot).key_id
                except EngineError:
                    assert (peer_id, slot) not in self.keys
                else:
                    assert self.keys[peer_id, slot] == key_id

    @invariant()
    def events_tell_the_same(self) -> None:
        while self.watch.backlog:
            self.read_event()
        assert self.told == {peer.spec.peer_id: peer.create_revision for peer in self.engine.list_peers("d")}

    def read_event(self) -> Event:
        event = self.loop.run_until_complete(next_event(self.watch))
        if isinstance(event, PeerCreated):
            assert event.peer.spec.peer_id not in self.told
            self.told[event.peer.spec.peer_id] = event.revision
        elif isinstance(event, PeerDeleted):
            assert self.told.pop(event.peer_id) == event.create_revision
            assert event.reason is not DelReason.TEARDOWN
        return event

    def read_until(self, kind: type[Event]) -> None:
        while not isinstance(self.read_event(), kind):
            pass

    def forget(self, peer_id: int) -> None:
        self.peers.pop(peer_id, None)
        for slot in KeySlot:
            self.keys.pop((peer_id, slot), None)


Model.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestEngineAgainstModel = Model.TestCase
