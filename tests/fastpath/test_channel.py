"""The compiled data channel beside the readable one: whatever is done to both, nothing differs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dataplane.datachannel.datagram import Datagram, SockAddr
from dataplane.datachannel.early_packets import HOLD_NS
from dataplane.datachannel.keepalive import Keepalive
from dataplane.datachannel.outcomes import Floated, KeyExhausted
from dataplane.datachannel.wire import KEEPALIVE, PACKET_ID_MAX
from dataplane.vocabulary import PEER_ID_UNDEF, DropReason, FloatPolicy, KeySlot, Mode
from tests.datachannel.implementations import compiled, readable
from tests.fastpath.side import Side, of_peers, seal

SECOND = 1_000_000_000
ENDPOINTS: list[SockAddr] = [
    ("198.51.100.1", 1194),
    ("198.51.100.1", 1195),
    ("203.0.113.9", 1194),
    ("::ffff:198.51.100.1", 1194, 0, 0),
    ("2001:db8::1", 1194, 0, 0),
    ("fe80::1", 1194, 0, 2),
    ("fe80::1", 1194, 0, 3),
]
IPV4 = [ip_address(text).packed for text in ("10.8.0.2", "10.8.0.3", "10.8.0.4")]
IPV6 = [ip_address(text).packed for text in ("fd00::2", "fd00::3", "fd00:0:0:1::2")]
LOCALS = [None, ip_address("192.0.2.1").packed, ip_address("2001:db8::99").packed]

PEER_IDS = st.sampled_from([1, 1, 1, 2, 2, 0x010203])
WIRE_PEER_IDS = st.sampled_from([1, 1, 1, 1, 2, 2, PEER_ID_UNDEF, 7])
KEY_IDS = st.sampled_from([0, 0, 1, 1, 7])
SLOTS = st.sampled_from(KeySlot)
LINGERS = st.sampled_from([1, HOLD_NS, 60 * SECOND])
SECRETS = st.sampled_from([0, 0, 0, 1])
SOCKETS = st.sampled_from([7, 7, 7, 8])
SECONDS = st.sampled_from([0, 0, 0, 2, 40])
SOURCES = st.sampled_from([*ENDPOINTS[:1] * 4, *ENDPOINTS])
VPN_IPV4 = st.sampled_from([None, *IPV4])
VPN_IPV6 = st.sampled_from([None, *IPV6])


def inner(source: bytes, destination: bytes, rest: bytes = b"") -> bytes:
    """An IPv4 or IPv6 packet; of two families it takes that of the destination."""
    if len(destination) == 4:
        return b"\x45" + bytes(11) + source[:4].ljust(4, b"\0") + destination + rest
    return b"\x60" + bytes(7) + source.ljust(16, b"\0") + destination + rest


ADDRESSES = st.sampled_from([*IPV4, *IPV6, bytes(4), bytes(16)])
PACKETS = st.one_of(
    st.builds(inner, st.just(IPV4[0]), st.just(IPV4[0]), st.binary(max_size=40)),
    st.builds(inner, st.sampled_from(IPV6), st.sampled_from(IPV6), st.binary(max_size=40)),
    st.builds(inner, ADDRESSES, ADDRESSES, st.binary(max_size=40)),
    st.just(KEEPALIVE),
    st.binary(max_size=60),
)


@dataclass(frozen=True)
class Sealed:
    """A datagram to be made with the key of (key_id, secret); move: its packet-id, from the last of that key on."""

    wire_peer_id: int
    key_id: int
    secret: int
    move: int
    payload: bytes
    flipped: int | None  # place of a changed bit, modulo the length


@dataclass(frozen=True)
class Replayed:
    """One of the datagrams that were made before."""

    index: int


MADE = st.one_of(
    st.builds(
        Sealed,
        WIRE_PEER_IDS,
        KEY_IDS,
        SECRETS,
        st.sampled_from([1, 1, 1, 1, 2, 70, 2048, 5000, 0, -1, -2, -2047, -2048]),
        PACKETS,
        st.one_of(st.none(), st.none(), st.none(), st.integers(0, 2000)),
    ),
    st.builds(Sealed, st.just(1), st.just(0), st.just(0), st.just(1), PACKETS, st.none()),
    st.builds(Replayed, st.integers(0, 50)),
    st.binary(max_size=60),
)
ARRIVALS = st.lists(st.tuples(MADE, SOURCES, st.sampled_from(LOCALS)), max_size=6)


class Twins(RuleBasedStateMachine):
    """Both sides, and the far ends of all keys."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = SECOND
        self.made: list[bytes] = []
        self.packet_ids: dict[tuple[int, int], int] = {}

    def both(self, call: Callable[[Side], object]) -> None:
        one, other = (side.do(call) for side in self.sides)
        assert one == other

    @initialize(mode=st.sampled_from([Mode.MP, Mode.MP, Mode.P2P]), interval_s=SECONDS, timeout_s=SECONDS)
    def begin(self, mode: Mode, interval_s: int, timeout_s: int) -> None:
        self.sides = [Side(implementation(), mode) for implementation in (readable, compiled)]
        self.add_peer(1, 7, ENDPOINTS[0], None, IPV4[0], IPV6[0], interval_s, timeout_s)
        self.install_key(1, KeySlot.PRIMARY, 0, 0, None)

    @invariant()
    def nothing_differs(self) -> None:
        one, other = (side.looks() for side in self.sides)
        assert one == other

    # Commands

    @rule(
        peer_id=PEER_IDS,
        socket_id=SOCKETS,
        remote=SOURCES,
        local=st.sampled_from(LOCALS),
        vpn_ipv4=VPN_IPV4,
        vpn_ipv6=VPN_IPV6,
        interval_s=SECONDS,
        timeout_s=SECONDS,
    )
    def add_peer(
        self,
        peer_id: int,
        socket_id: int,
        remote: SockAddr,
        local: bytes | None,
        vpn_ipv4: bytes | None,
        vpn_ipv6: bytes | None,
        interval_s: int,
        timeout_s: int,
    ) -> None:
        def call(side: Side) -> None:
            side.add_peer(
                self.now_ns,
                peer_id=peer_id,
                socket_id=socket_id,
                remote=remote,
                local=local,
                vpn_ipv4=vpn_ipv4,
                vpn_ipv6=vpn_ipv6,
                keepalive=Keepalive(interval_s, timeout_s),
            )

        self.both(call)

    @rule(peer_id=PEER_IDS, really=st.sampled_from([False, False, False, True]))
    def remove_peer(self, peer_id: int, really: bool) -> None:
        if really:
            self.both(lambda side: side.channel.remove_peer(peer_id).uid)

    @rule(policy=st.sampled_from([FloatPolicy.ALLOW, *FloatPolicy]))
    def set_float_policy(self, policy: FloatPolicy) -> None:
        self.both(lambda side: side.channel.set_float_policy(policy))

    @rule(peer_id=PEER_IDS, interval_s=SECONDS, timeout_s=SECONDS)
    def set_keepalive(self, peer_id: int, interval_s: int, timeout_s: int) -> None:
        self.both(lambda side: side.channel.set_keepalive(peer_id, interval_s, timeout_s, self.now_ns))

    @rule(peer_id=PEER_IDS, remote=SOURCES, local=st.sampled_from(LOCALS), socket_id=st.none() | SOCKETS)
    def set_remote(self, peer_id: int, remote: SockAddr, local: bytes | None, socket_id: int | None = None) -> None:
        self.both(lambda side: side.channel.set_remote(peer_id, remote, local, socket_id))

    @rule(peer_id=PEER_IDS, vpn_ipv4=VPN_IPV4, vpn_ipv6=VPN_IPV6)
    def set_vpn_addresses(self, peer_id: int, vpn_ipv4: bytes | None, vpn_ipv6: bytes | None) -> None:
        self.both(lambda side: side.channel.set_vpn_addresses(peer_id, vpn_ipv4, vpn_ipv6))

    @rule(
        peer_id=PEER_IDS,
        slot=SLOTS,
        key_id=KEY_IDS,
        secret=SECRETS,
        left=st.one_of(st.none(), st.none(), st.integers(0, 4)),
    )
    def install_key(self, peer_id: int, slot: KeySlot, key_id: int, secret: int, left: int | None) -> None:
        def call(side: Side) -> object:
            key = side.key(key_id, secret, left)
            return of_peers(side.channel.install_key(peer_id, slot, key, self.now_ns))

        self.both(call)

    @rule(
        peer_id=PEER_IDS,
        used=st.lists(st.tuples(st.sampled_from([0, 1]), SOURCES, st.sampled_from([1, 0])), max_size=5),
        slots=st.permutations(list(KeySlot)),
    )
    def rekey(self, peer_id: int, used: list[tuple[int, SockAddr, int]], slots: list[KeySlot]) -> None:
        """Two fresh keys, one after the other; the peer uses both, from wherever it is."""
        self.packet_ids.clear()
        for key_id, slot in enumerate(slots):
            self.install_key(peer_id, slot, key_id, 0, None)
        payload = inner(IPV4[0], IPV4[0])
        for key_id, source, move in used:
            self.receive(7, [(Sealed(peer_id, key_id, 0, move, payload, None), source, None)])

    @rule(remotes=st.lists(SOURCES, max_size=4), removed=st.booleans())
    def meet(self, remotes: list[SockAddr], removed: bool) -> None:
        """Peers come to one place after the other, and may leave; somebody sends from there without a peer-id."""
        for peer_id, remote in enumerate(remotes, start=1):
            self.set_remote(peer_id, remote, None)
        if removed:
            self.remove_peer(1, really=True)
        for socket_id in (7, 8):
            for remote in {*remotes, *ENDPOINTS}:
                self.receive(socket_id, [(Sealed(PEER_ID_UNDEF, 0, 0, 1, KEEPALIVE, None), remote, None)])

    @rule(peer_id=PEER_IDS, linger_ns=LINGERS)
    def let_key_linger(self, peer_id: int, linger_ns: int) -> None:
        self.both(lambda side: side.channel.let_key_linger(peer_id, self.now_ns + linger_ns))

    @rule(
        peer_id=PEER_IDS,
        linger_ns=LINGERS,
        installed=st.none() | st.tuples(SLOTS, KEY_IDS, SECRETS),
        emptied=st.none() | SLOTS,
        used=st.lists(st.tuples(st.sampled_from([0, 0, 1]), SOURCES, st.sampled_from([1, 0])), min_size=1, max_size=4),
    )
    def retire(
        self,
        peer_id: int,
        linger_ns: int,
        installed: tuple[KeySlot, int, int] | None,
        emptied: KeySlot | None,
        used: list[tuple[int, SockAddr, int]],
    ) -> None:
        """Of two fresh keys the elder lingers; the peer uses both, perhaps after another change of its keys."""
        self.rekey(peer_id, [], [KeySlot.SECONDARY, KeySlot.PRIMARY])
        self.let_key_linger(peer_id, linger_ns)
        if installed is not None:
            self.install_key(peer_id, *installed, None)
        if emptied is not None:
            self.delete_key(peer_id, emptied)
        for key_id, source, move in used:
            self.receive(7, [(Sealed(peer_id, key_id, 0, move, inner(IPV4[0], IPV4[0]), None), source, None)])

    @rule(peer_id=PEER_IDS)
    def swap_keys(self, peer_id: int) -> None:
        self.both(lambda side: side.channel.swap_keys(peer_id))

    @rule(peer_id=PEER_IDS, slot=SLOTS)
    def delete_key(self, peer_id: int, slot: KeySlot) -> None:
        self.both(lambda side: side.channel.delete_key(peer_id, slot))

    # Packets

    @rule(socket_id=SOCKETS, arrivals=ARRIVALS)
    def receive(self, socket_id: int, arrivals: list[tuple[Sealed | Replayed | bytes, SockAddr, bytes | None]]) -> None:
        datagrams: list[Datagram] = [(self.datagram(made), source, local) for made, source, local in arrivals]
        self.both(lambda side: of_peers(side.channel.open_batch(socket_id, datagrams, self.now_ns)))

    def datagram(self, made: Sealed | Replayed | bytes) -> bytes:
        if isinstance(made, bytes):
            return made
        if isinstance(made, Replayed):
            return self.made[made.index % len(self.made)] if self.made else b""
        last = self.packet_ids.get((made.key_id, made.secret), 0)
        packet_id = min(max(last + made.move, 0), PACKET_ID_MAX)
        self.packet_ids[made.key_id, made.secret] = max(last, packet_id)
        head = (9 << 27 | made.key_id << 24 | made.wire_peer_id).to_bytes(4, "big") + packet_id.to_bytes(4, "big")
        datagram = bytearray(seal(head, made.key_id, made.secret, made.payload))
        if made.flipped is not None:
            datagram[made.flipped // 8 % len(datagram)] ^= 1 << made.flipped % 8
        self.made.append(bytes(datagram))
        return bytes(datagram)

    @rule(peer_id=PEER_IDS, key_id=KEY_IDS, count=st.sampled_from([5, 70]), size=st.sampled_from([0, 20_000]))
    def flood(self, peer_id: int, key_id: int, count: int, size: int) -> None:
        """Many of one packet, which is early if there is no such key."""
        datagram = self.datagram(Sealed(peer_id, key_id, 0, 1, inner(IPV4[0], IPV4[1], bytes(size)), None))
        batch: list[Datagram] = [(datagram, ENDPOINTS[0], None)] * count
        self.both(lambda side: of_peers(side.channel.open_batch(7, batch, self.now_ns)))

    @rule(packets=st.lists(PACKETS, max_size=6))
    def send(self, packets: list[bytes]) -> None:
        self.both(lambda side: of_peers(side.channel.seal_batch(packets, self.now_ns)))

    @rule(length=st.integers(0, 65535), reason=st.sampled_from(DropReason))
    def count(self, length: int, reason: DropReason) -> None:
        def call(side: Side) -> None:
            side.channel.delivered(side.peers[-1], length)
            side.peers[-1].drop(reason)
            side.channel.drop_on_device(reason)

        self.both(call)

    # Time and events

    @rule(pause_ns=st.sampled_from([0, 1, HOLD_NS // 2, HOLD_NS, 2 * SECOND, 31 * SECOND]))
    def run_timers(self, pause_ns: int) -> None:
        self.now_ns += pause_ns
        self.both(lambda side: side.timers(self.now_ns))

    @rule()
    def take_events(self) -> None:
        self.both(lambda side: side.events())

    def teardown(self) -> None:
        if hasattr(self, "sides"):
            self.take_events()


class TestTwins(Twins.TestCase):  # type: ignore[misc, valid-type]
    """Runs the machine."""

    settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_event_that_comes_after_many_floats_is_still_told() -> None:
    """The place for events that wait is bounded; a peer that floats to and fro does not fill it."""
    side = Side(compiled(), Mode.MP)
    side.add_peer(0, peer_id=1, socket_id=7, remote=ENDPOINTS[0], vpn_ipv4=IPV4[0])
    side.channel.install_key(1, KeySlot.PRIMARY, side.key(0, 0, 0), 0)
    for packet_id in range(1, 50):
        head = b"\x48\0\0\1" + packet_id.to_bytes(4, "big")
        side.channel.open_batch(7, [(seal(head, 0, 0, KEEPALIVE), ENDPOINTS[packet_id % 2], None)], 0)
    side.channel.seal_batch([inner(IPV4[1], IPV4[0])], 0)
    assert side.events() == [(Floated, 0, None), (KeyExhausted, 0, 0)]


def test_channel_that_goes_lets_its_peers_go() -> None:
    side = Side(compiled(), Mode.MP)
    side.add_peer(0, peer_id=1, socket_id=7, remote=ENDPOINTS[0], vpn_ipv4=IPV4[0])
    side.channel.open_batch(7, [(b"\x48\0\0\1" + bytes(100), ENDPOINTS[0], None)] * 3, 0)  # kept for their key
    held = sys.getrefcount(side.peers[0])
    del side.channel
    held_without = sys.getrefcount(side.peers[0])
    assert held - held_without == 1


def test_it_loads_without_the_readable_aead() -> None:
    """The worker's memory is the reason."""
    program = "import sys, dataplane.fastpath.channel, dataplane.fastpath.aead; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
