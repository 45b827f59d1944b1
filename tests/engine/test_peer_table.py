"""The table of peers, against a plain dict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dataplane.engine.peer_table import Peer, PeerTable
from dataplane.engine.types import EngineError
from dataplane.statistics_page import StatisticsPage
from tests.engine.conftest import peer_spec

CAPACITY = 8


@pytest.fixture
def table() -> Iterator[PeerTable]:
    fd = StatisticsPage.create_memfd(CAPACITY + 1)
    page = StatisticsPage(fd, CAPACITY + 1)
    yield PeerTable("d", page)
    page.close()
    os.close(fd)


def add(table: PeerTable, peer_id: int) -> Peer:
    peer = table.draft(peer_spec(peer_id))
    table.add(peer)
    return peer


def test_a_draft_is_not_in_the_table(table: PeerTable) -> None:
    draft = table.draft(peer_spec(1))
    assert (1 in table, len(table), table.count_of_socket("s")) == (False, 0, 0)
    table.discard(draft)
    assert [table.draft(peer_spec(peer_id)).row for peer_id in range(CAPACITY)] == list(range(1, CAPACITY + 1))


def test_no_two_peers_have_the_same_uid(table: PeerTable) -> None:
    first = add(table, 1)
    table.remove(first)
    assert add(table, 1).uid != first.uid


def test_a_missing_peer_is_named(table: PeerTable) -> None:
    with pytest.raises(EngineError) as caught:
        table.get(5)
    assert (caught.value.reason, caught.value.metadata) == ("PEER_NOT_FOUND", {"device": "d", "peer_id": "5"})


def test_the_worker_means_a_peer_by_id_and_uid(table: PeerTable) -> None:
    peer = add(table, 1)
    assert table.meant_by(1, peer.uid) is peer
    assert table.meant_by(1, peer.uid + 1) is None
    assert table.meant_by(2, peer.uid) is None


def test_peers_may_go_while_one_iterates(table: PeerTable) -> None:
    for peer_id in (3, 1, 2):
        add(table, peer_id)
    seen = []
    for peer in table:
        seen.append(peer.spec.peer_id)
        table.remove(peer)
    assert (seen, len(table)) == ([1, 2, 3], 0)


class Model(RuleBasedStateMachine):
    """Adds, changes and removes peers at random."""

    peer_ids = st.integers(0, 12)
    addresses = st.integers(0, 12).map(lambda number: IPv4Address("10.0.0.0") + number)

    @initialize()
    def make(self) -> None:
        self.fd = StatisticsPage.create_memfd(CAPACITY + 1)
        self.page = StatisticsPage(self.fd, CAPACITY + 1)
        self.table = PeerTable("d", self.page)
        self.model: dict[int, Peer] = {}

    def teardown(self) -> None:
        self.page.close()
        os.close(self.fd)

    @precondition(lambda self: len(self.model) < CAPACITY)
    @rule(peer_id=peer_ids, address=addresses, sock=st.sampled_from("st"))
    def add(self, peer_id: int, address: IPv4Address, sock: str) -> None:
        if peer_id not in self.model and self.table.owner_of(address) is None:
            peer = self.table.draft(peer_spec(peer_id, sock=sock, vpn_ipv4=str(address)))
            self.table.add(peer)
            assert not any(peer.words())
            self.page.row(peer.row)[0] = peer_id + 1
            self.model[peer_id] = peer

    @rule(peer_id=peer_ids)
    def remove(self, peer_id: int) -> None:
        peer = self.model.pop(peer_id, None)
        if peer is not None:
            assert self.table.remove(peer).vpn_rx_bytes == peer_id + 1
            assert peer.view().counters.vpn_rx_bytes == peer_id + 1

    @rule(peer_id=peer_ids, address=st.none() | addresses)
    def change(self, peer_id: int, address: IPv4Address | None) -> None:
        peer = self.model.get(peer_id)
        if peer is not None and (address is None or self.table.owner_of(address) in {None, peer_id}):
            self.table.respecify(peer, replace(peer.spec, vpn_ipv4=address))

    @invariant()
    def everything_agrees(self) -> None:
        ids = sorted(self.model)
        assert len(self.table) == len(ids)
        assert list(self.table) == [self.model[peer_id] for peer_id in ids]
        assert [peer.spec.peer_id for peer in self.table.page(3, 2)] == [peer_id for peer_id in ids if peer_id > 3][:2]
        assert [peer.spec.peer_id for peer in self.table.page(-1, None)] == ids
        assert len({peer.row for peer in self.model.values()}) == len(ids)
        for number in range(13):
            address = IPv4Address("10.0.0.0") + number
            owners = [peer_id for peer_id, peer in self.model.items() if peer.spec.vpn_ipv4 == address]
            assert self.table.owner_of(address) == (owners[0] if owners else None)
        for sock in "st":
            assert self.table.count_of_socket(sock) == sum(peer.spec.socket == sock for peer in self.model.values())


TestPeerTable = Model.TestCase
