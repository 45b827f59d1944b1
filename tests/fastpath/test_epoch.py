"""The compiled key with epochs, against the readable one: whatever happens to both, they do the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.datachannel.epoch import EpochKey
from dataplane.datachannel.key_limits import FORGERIES_MAX, FORGERIES_WARNING
from dataplane.fastpath.aead import DataKey
from tests.datachannel.epoch_far_end import EpochFarEnd

COUNTER_MAX = (1 << 48) - 1
LAST = 65518


class Both:
    """Both ends of one thing: what is done to one is done to the other."""

    def __init__(self, suite: int, first: int) -> None:
        self.far = EpochFarEnd(EpochKey, suite, first=first)
        self.keys = [self.far.data_key(), EpochFarEnd(DataKey, suite, first=first).data_key()]

    def seal(self, size: int) -> None:
        one, other = (key.seal(9, bytes(size)) for key in self.keys)
        assert one == other
        self.looks_alike()

    def receive(self, epoch: int, counter: int, now_s: int, *, is_forged: bool, size: int) -> None:
        datagram = self.far.seal(bytes(40), epoch, counter)[: 68 - size]
        if is_forged:
            datagram = datagram[:-1] + bytes([datagram[-1] ^ 1])
        one, other = (self.take(key, datagram, now_s * 10_000_000_000) for key in self.keys)
        assert one == other
        self.looks_alike()

    @staticmethod
    def take(key: EpochKey, datagram: bytes, now_ns: int) -> tuple[object, ...]:
        refusal = key.refusal(datagram)
        payload = None if refusal is not None else key.open(datagram)
        return refusal, payload, None if payload is None else key.accept(key.packet_id_of(datagram), now_ns)

    def near_a_limit(self, name: str, value: int) -> None:
        for key in self.keys:
            setattr(key, name, key.sent >> 48 << 48 | value if name == "sent" else value)

    def looks_alike(self) -> None:
        one, other = ((key.sent, key.usage, key.forged, key.replay_window.highest) for key in self.keys)
        assert one == other
        assert self.keys[0].take_warning() is self.keys[1].take_warning()


SEAL = st.tuples(st.just("seal"), st.integers(0, 100))
LIMIT = st.tuples(
    st.just("limit"),
    st.sampled_from(
        [
            ("sent", COUNTER_MAX - 1),
            ("sent", COUNTER_MAX),
            ("usage", (1 << 36) - 3),
            ("usage", (1 << 36) - 1),
            ("forged", FORGERIES_WARNING - 1),
            ("forged", FORGERIES_WARNING),
            ("forged", FORGERIES_MAX),
        ]
    ),
)
RECEIVE = st.tuples(
    st.just("receive"),
    st.tuples(
        st.integers(0, 40),
        st.one_of(st.integers(0, 4), st.integers(2000, 2100), st.just(COUNTER_MAX)),
        st.integers(0, 9),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([0, 0, 0, 41]),
    ),
)


@settings(max_examples=150)
@given(
    suite=st.integers(0, 3),
    first=st.sampled_from([1, 1, 0xEFFE, LAST - 18, LAST]),
    steps=st.lists(st.one_of(SEAL, LIMIT, RECEIVE), max_size=25),
)
def test_both_do_the_same(suite: int, first: int, steps: list[tuple[str, object]]) -> None:
    both = Both(suite, first)
    for kind, value in steps:
        match kind, value:
            case "seal", int(size):
                both.seal(size)
            case "limit", (str(name), int(limit)):
                both.near_a_limit(name, limit)
            case "receive", (int(ahead), int(counter), int(now_s), bool(is_forged), int(size)):
                epoch = min(first + ahead - 1, 65535)
                both.receive(max(epoch, first), counter, now_s, is_forged=is_forged, size=size)
