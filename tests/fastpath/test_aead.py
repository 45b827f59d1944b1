"""The compiled data key, against the readable one: the same bytes come out of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.aead import DataKey as ReadableKey
from dataplane.datachannel.key_direction import KeyDirection
from dataplane.datachannel.wire import OVERHEAD, PACKET_ID_MAX
from dataplane.fastpath.aead import DataKey, lose_cipher, open_many, seal_many
from dataplane.vocabulary import Cipher

PEER_IDS = st.integers(0, 0xFFFFFF)
KEY_IDS = st.integers(0, 7)
SIZES = st.one_of(st.integers(0, 2000), st.sampled_from([65_000, 65_463, 65_483, 65_535]))


def stream(seed: int, size: int) -> bytes:
    """Bytes that depend on the seed."""
    return hashlib.shake_256(seed.to_bytes(8, "big")).digest(size)


PAYLOADS = st.builds(stream, st.integers(0, 2**64 - 1), SIZES)


@dataclass(frozen=True)
class Suite:
    """A cipher with one of its key lengths."""

    cipher: Cipher
    key_length: int

    def directions(self, seed: int = 0) -> tuple[KeyDirection, KeyDirection]:
        """Of the client: encrypt, decrypt."""
        material = stream(seed, 2 * (self.key_length + 8))
        cut = self.key_length + 8
        return tuple(  # type: ignore[return-value]
            KeyDirection(half[:-8], half[-8:]) for half in (material[:cut], material[cut:])
        )

    def client(self, key_id: int = 0) -> DataKey:
        """One end of a key."""
        return DataKey(key_id, self.cipher, *self.directions())

    def server(self, key_id: int = 0) -> DataKey:
        """The other end."""
        return DataKey(key_id, self.cipher, *reversed(self.directions()))

    def readable_client(self, key_id: int = 0) -> ReadableKey:
        """The same as client(), readable."""
        return ReadableKey(key_id, self.cipher, *self.directions())

    def readable_server(self, key_id: int = 0) -> ReadableKey:
        """The same as server(), readable."""
        return ReadableKey(key_id, self.cipher, *reversed(self.directions()))


ALL = [
    Suite(Cipher.AES_GCM, 16),
    Suite(Cipher.AES_GCM, 24),
    Suite(Cipher.AES_GCM, 32),
    Suite(Cipher.CHACHA20_POLY1305, 32),
]
SUITES = st.sampled_from(ALL)
every_suite = pytest.mark.parametrize("suite", ALL, ids=lambda suite: f"{suite.cipher.name}-{8 * suite.key_length}")


@given(suite=SUITES, key_id=KEY_IDS, peer_id=PEER_IDS, payloads=st.lists(PAYLOADS, max_size=4))
def test_both_seal_to_the_same_bytes(suite: Suite, key_id: int, peer_id: int, payloads: list[bytes]) -> None:
    key, readable = suite.client(key_id), suite.readable_client(key_id)
    for payload in payloads:
        assert key.seal(peer_id, payload) == readable.seal(peer_id, payload)
        assert key.sent == readable.sent


@given(suite=SUITES, key_id=KEY_IDS, peer_id=PEER_IDS, sent=st.integers(0, PACKET_ID_MAX - 1), payload=PAYLOADS)
def test_each_opens_what_the_other_sealed(suite: Suite, key_id: int, peer_id: int, sent: int, payload: bytes) -> None:
    key, readable = suite.client(key_id), suite.readable_client(key_id)
    key.sent = readable.sent = sent
    sealed, sealed_readably = key.seal(peer_id, payload), readable.seal(peer_id, payload)
    assert sealed is not None
    assert sealed_readably is not None
    assert suite.readable_server(key_id).open(sealed) == payload
    assert suite.server(key_id).open(sealed_readably) == payload


@given(suite=SUITES, payload=PAYLOADS, data=st.data())
def test_packet_with_any_byte_changed_opens_on_neither(suite: Suite, payload: bytes, data: st.DataObject) -> None:
    datagram = bytearray(suite.client().seal(1, payload))
    at = data.draw(st.one_of(st.integers(0, OVERHEAD - 1), st.integers(0, len(datagram) - 1)))
    datagram[at] ^= data.draw(st.integers(1, 255))
    assert suite.server().open(bytes(datagram)) is None
    assert suite.readable_server().open(bytes(datagram)) is None


@given(suite=SUITES, payload=PAYLOADS, data=st.data())
def test_packet_cut_short_opens_on_neither(suite: Suite, payload: bytes, data: st.DataObject) -> None:
    datagram = suite.client().seal(1, payload + b"!")
    size = data.draw(st.integers(OVERHEAD, len(datagram) - 1))
    assert suite.server().open(datagram[:size]) is None
    assert suite.readable_server().open(datagram[:size]) is None


@given(suite=SUITES, datagram=st.binary(max_size=100))
def test_random_bytes_never_open(suite: Suite, datagram: bytes) -> None:
    assert suite.server().open(datagram) is None


@every_suite
def test_payload_of_no_bytes_goes_through(suite: Suite) -> None:
    datagram = suite.client().seal(1, b"")
    assert len(datagram) == OVERHEAD
    assert suite.server().open(datagram) == b""


@every_suite
def test_forged_packets_do_not_disturb_the_good_ones_between_them(suite: Suite) -> None:
    client, server = suite.client(), suite.server()
    for size in (0, 1, 1400, 15, 16, 17):
        payload = stream(size, size)
        datagram = client.seal(1, payload)
        assert server.open(datagram[:-1] + bytes([datagram[-1] ^ 1])) is None
        assert server.open(datagram) == payload
        assert client.open(datagram) is None


@every_suite
def test_keys_do_not_disturb_each_other(suite: Suite) -> None:
    keys = [suite.client(), suite.server(), *(other.client() for other in ALL)]
    twins = [suite.readable_client(), suite.readable_server(), *(other.readable_client() for other in ALL)]
    for size in range(50):
        for key, twin in zip(keys, twins, strict=True):
            assert key.seal(size, bytes(size)) == twin.seal(size, bytes(size))


@given(suite=SUITES, left=st.integers(0, 3))
def test_both_end_with_the_last_packet_id(suite: Suite, left: int) -> None:
    key, readable = suite.client(), suite.readable_client()
    key.sent = readable.sent = PACKET_ID_MAX - left
    for _ in range(5):
        assert key.seal(1, b"payload") == readable.seal(1, b"payload")
        assert key.sent == readable.sent
    assert key.sent == PACKET_ID_MAX


@every_suite
def test_batch_is_sealed_as_its_packets_one_by_one(suite: Suite) -> None:
    payloads = [stream(number, 1400) for number in range(45)]
    datagrams = bytearray(b"".join(bytes(OVERHEAD) + payload for payload in payloads))
    readable = suite.readable_client()
    assert seal_many(suite.client(), 9, datagrams, 1424) == 45
    assert datagrams == b"".join(readable.seal(9, payload) or b"" for payload in payloads)
    assert open_many(suite.server(), datagrams, 1424) == 45
    assert [bytes(datagrams[at + OVERHEAD : at + 1424]) for at in range(0, 45 * 1424, 1424)] == payloads


@every_suite
def test_key_that_libcrypto_refuses_seals_no_more_and_opens_nothing(suite: Suite) -> None:
    key = suite.client()
    datagram = suite.server().seal(1, b"payload")
    lose_cipher(key)
    assert key.seal(1, b"plaintext") is None
    assert key.sent == PACKET_ID_MAX
    assert key.seal(1, b"plaintext") is None
    assert key.open(datagram) is None


def test_ids_that_are_too_wide_are_refused() -> None:
    key = ALL[0].client()
    with pytest.raises(OverflowError):
        key.seal(1 << 32, b"payload")
    with pytest.raises(OverflowError):
        key.sent = PACKET_ID_MAX + 1
    assert key.sent == 0
