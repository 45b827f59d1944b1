"""The peers of one device, as the engine knows them, and the indexes over them.

Knows who is there, by peer-id, by address inside the tunnel and by networks behind it, and which statistics row each
has. Must not know the worker, nor what changes a peer.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from dataplane.engine import errors
from dataplane.engine.counters import peer_counters, wall_clock_ns
from dataplane.engine.rows import RowAllocator
from dataplane.engine.types import IPAddress, IPNetwork, KeyView, PeerCounters, PeerSpec, PeerView
from dataplane.statistics_page import StatisticsPage
from dataplane.vocabulary import COUNTER_BITS, Cipher, Column, DataFormat, KeySlot


@dataclass(frozen=True, slots=True)
class InstalledKey:
    """What the engine keeps of a key: no key bytes."""

    key_id: int
    cipher: Cipher
    key_bits: int
    data_format: DataFormat


@dataclass(slots=True, eq=False)
class Peer:
    """A peer. uid: its number towards the worker. final_words: its last counters, once it is gone."""

    spec: PeerSpec
    uid: int
    row: int
    page: StatisticsPage
    create_revision: int = 0
    create_time_ns: int = 0
    keys: dict[KeySlot, InstalledKey] = field(default_factory=dict)
    final_words: tuple[int, ...] | None = None

    def words(self) -> tuple[int, ...]:
        """Its row of the statistics page, as it is or was at the end."""
        return self.page.snapshot(self.row) if self.final_words is None else self.final_words

    def view(self) -> PeerView:
        """What is told of it."""
        words = self.words()
        return PeerView(
            spec=self.spec,
            counters=peer_counters(words),
            create_revision=self.create_revision,
            create_time_ns=self.create_time_ns,
            last_receive_time_ns=wall_clock_ns(words[Column.LAST_RX_NS]),
            last_send_time_ns=wall_clock_ns(words[Column.LAST_TX_NS]),
        )

    def key_view(self, slot: KeySlot) -> KeyView | None:
        """What is told of the key in a slot; None if there is none."""
        key = self.keys.get(slot)
        if key is None:
            return None
        column = Column.SENT_PRIMARY if slot is KeySlot.PRIMARY else Column.SENT_SECONDARY
        send_epoch, sent = 0, self.words()[column]
        if key.data_format is DataFormat.EPOCH:
            send_epoch, sent = divmod(sent, 1 << COUNTER_BITS)
        return KeyView(slot, key.key_id, key.cipher, key.key_bits, sent, key.data_format, send_epoch)


class PeerTable:
    """All peers of a device. capacity: how many there can be, for each has a row of the page."""

    def __init__(self, device: str, page: StatisticsPage) -> None:
        self._device = device
        self.capacity = page.rows - 1
        self._page = page
        self._rows = RowAllocator(page)
        self._by_id: dict[int, Peer] = {}
        self._sorted_ids: list[int] = []
        self._by_vpn_address: dict[IPAddress, int] = {}
        self._by_route: dict[IPNetwork, int] = {}
        self._of_socket: Counter[str] = Counter()
        self._last_uid = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Peer]:
        """All peers there are now, by peer_id; the table may change meanwhile."""
        return iter([self._by_id[peer_id] for peer_id in self._sorted_ids])

    def __contains__(self, peer_id: int) -> bool:
        return peer_id in self._by_id

    def get(self, peer_id: int) -> Peer:
        """The peer with this id. Raises EngineError PEER_NOT_FOUND."""
        peer = self._by_id.get(peer_id)
        if peer is None:
            raise errors.peer_not_found(self._device, peer_id)
        return peer

    def meant_by(self, peer_id: int, uid: int) -> Peer | None:
        """The peer that the worker means; None if that one is gone."""
        peer = self._by_id.get(peer_id)
        return peer if peer is not None and peer.uid == uid else None

    def owner_of(self, vpn_address: IPAddress) -> int | None:
        """The peer_id of the peer that has this address inside the tunnel."""
        return self._by_vpn_address.get(vpn_address)

    def owner_of_route(self, network: IPNetwork) -> int | None:
        """The peer_id of the peer whose spec names this network."""
        return self._by_route.get(network)

    def count_of_socket(self, socket: str) -> int:
        """How many peers use a socket."""
        return self._of_socket[socket]

    def of_socket(self, socket: str) -> list[Peer]:
        """The peers that use a socket, by peer_id."""
        return [peer for peer in self if peer.spec.socket == socket] if self._of_socket[socket] else []

    def page(self, after: int, limit: int | None) -> list[Peer]:
        """Peers with a peer_id greater than `after`, by peer_id, `limit` at most."""
        start = bisect_right(self._sorted_ids, after)
        end = None if limit is None else start + limit
        return [self._by_id[peer_id] for peer_id in self._sorted_ids[start:end]]

    def draft(self, spec: PeerSpec) -> Peer:
        """A peer that is not in the table yet, with a uid and a zeroed row; then add() or discard() it."""
        self._last_uid += 1
        return Peer(spec=spec, uid=self._last_uid, row=self._rows.take(), page=self._page)

    def discard(self, draft: Peer) -> None:
        """Gives back the row of a draft."""
        self._rows.free(draft.row)

    def add(self, peer: Peer) -> None:
        """Puts a drafted peer into the table."""
        self._by_id[peer.spec.peer_id] = peer
        insort(self._sorted_ids, peer.spec.peer_id)
        self._index(peer.spec)

    def respecify(self, peer: Peer, spec: PeerSpec) -> None:
        """Gives a peer a new spec, with the same peer_id."""
        self._unindex(peer.spec)
        peer.spec = spec
        self._index(spec)

    def remove(self, peer: Peer) -> PeerCounters:
        """Takes a peer out, whose row the worker writes no more; gives the final counters and frees the row."""
        del self._by_id[peer.spec.peer_id]
        del self._sorted_ids[bisect_right(self._sorted_ids, peer.spec.peer_id) - 1]
        self._unindex(peer.spec)
        peer.final_words = peer.words()
        self._rows.free(peer.row)
        return peer_counters(peer.final_words)

    def _index(self, spec: PeerSpec) -> None:
        self._of_socket[spec.socket] += 1
        self._by_vpn_address.update(dict.fromkeys(spec.vpn_addresses, spec.peer_id))
        self._by_route.update(dict.fromkeys(spec.routes, spec.peer_id))

    def _unindex(self, spec: PeerSpec) -> None:
        self._of_socket[spec.socket] -= 1
        for address in spec.vpn_addresses:
            del self._by_vpn_address[address]
        for network in spec.routes:
            del self._by_route[network]
