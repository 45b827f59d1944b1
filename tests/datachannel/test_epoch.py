"""Data keys with epochs: the bytes, the derivation, and when an epoch follows another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.key_direction import EpochSecret
from dataplane.datachannel.key_limits import FORGERIES_MAX, FORGERIES_WARNING
from dataplane.vocabulary import Cipher, DropReason, KeyLimit
from tests.datachannel.epoch_far_end import SUITES, EpochFarEnd

if TYPE_CHECKING:
    from dataplane.datachannel.epoch import EpochKey
    from tests.datachannel.conftest import Maker

VECTORS = sorted((Path(__file__).parent / "vectors/epoch").glob("*.json"))
CIPHERS = {
    "AES-128-GCM": SUITES[0],
    "AES-192-GCM": SUITES[1],
    "AES-256-GCM": SUITES[2],
    "CHACHA20-POLY1305": SUITES[3],
}
COUNTER_MAX = (1 << 48) - 1
LAST = 65518
USAGE_MAX = (1 << 36) - 1

every_suite = pytest.mark.parametrize("suite", range(4))


@pytest.fixture
def far(make: Maker) -> EpochFarEnd:
    return EpochFarEnd(make.implementation.epoch_key)


def take(key: EpochKey, datagram: bytes, now_ns: int = 1) -> bytes | DropReason:
    """What the receiver does with a packet: its payload, or why it was dropped."""
    refusal = key.refusal(datagram)
    if refusal is not None:
        return refusal
    payload = key.open(datagram)
    if payload is None:
        return DropReason.RX_DECRYPT_FAILED
    return key.accept(key.packet_id_of(datagram), now_ns) or payload


def sealed(key: EpochKey, payload: bytes = b"payload") -> bytes:
    datagram = key.seal(1, payload)
    assert datagram is not None
    return datagram


# OpenVPN's packets


def key_of(make: Maker, vector: dict[str, str], *, as_recorded: bool) -> EpochKey:
    cipher, length = CIPHERS[vector["cipher"]]
    secrets = [EpochSecret(bytes.fromhex(vector[f"{name}_epoch_secret"]), length) for name in ("encrypt", "decrypt")]
    return make.implementation.epoch_key(0, cipher, *(secrets if as_recorded else reversed(secrets)))


def test_all_four_ciphers_are_kept() -> None:
    assert {json.loads(path.read_text())["cipher"] for path in VECTORS} == set(CIPHERS)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
@pytest.mark.parametrize("direction", ["from_openvpn", "to_openvpn"])
def test_packets_of_openvpn_open_over_a_change_of_epochs(make: Maker, path: Path, direction: str) -> None:
    vector = json.loads(path.read_text())
    key = key_of(make, vector, as_recorded=direction == "from_openvpn")
    assert {packet["epoch"] for packet in vector[direction]} == {1, 3}
    for packet in vector[direction]:
        datagram = bytes.fromhex(packet["packet"])
        assert take(key, datagram).hex() == packet["plaintext"]  # type: ignore[union-attr]
        assert key.packet_id_of(datagram) == packet["epoch"] << 48 | packet["counter"]


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_what_openvpn_sealed_is_sealed_alike(make: Maker, path: Path) -> None:
    """Its counters without gaps, and our epoch following its peer's, give the very same bytes."""
    vector = json.loads(path.read_text())
    key = key_of(make, vector, as_recorded=True)
    for packet in vector["to_openvpn"]:
        if key.sent >> 48 < packet["epoch"]:
            jump = next(other for other in vector["from_openvpn"] if other["epoch"] == packet["epoch"])
            assert isinstance(take(key, bytes.fromhex(jump["packet"])), bytes)
        key.sent = packet["epoch"] << 48 | packet["counter"] - 1
        datagram = bytes.fromhex(packet["packet"])
        assert key.seal(int.from_bytes(datagram[1:4], "big"), bytes.fromhex(packet["plaintext"])) == datagram


# The format


@given(
    suite=st.integers(0, 3),
    key_id=st.integers(0, 7),
    peer_id=st.integers(0, 0xFFFFFF),
    payloads=st.lists(st.binary(max_size=2000), max_size=4),
)
def test_far_end_opens_what_is_sealed(
    make: Maker, suite: int, key_id: int, peer_id: int, payloads: list[bytes]
) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, suite, key_id)
    key = far.data_key()
    for counter, payload in enumerate(payloads, start=1):
        datagram = key.seal(peer_id, payload)
        assert datagram is not None
        assert len(datagram) == len(payload) + 28
        assert far.open(datagram) == (peer_id, 1, counter, payload)
        assert key.sent == 1 << 48 | counter


@given(
    suite=st.integers(0, 3),
    epoch=st.integers(1, 17),
    counter=st.integers(1, COUNTER_MAX),
    payload=st.binary(max_size=2000),
)
def test_what_the_far_end_sealed_opens(make: Maker, suite: int, epoch: int, counter: int, payload: bytes) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, suite)
    assert take(far.data_key(), far.seal(payload, epoch, counter)) == payload


@given(suite=st.integers(0, 3), epoch=st.integers(1, 17), payload=st.binary(max_size=100), data=st.data())
def test_changed_packet_never_opens_and_changes_no_epoch(
    make: Maker, suite: int, epoch: int, payload: bytes, data: st.DataObject
) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, suite)
    key = far.data_key()
    datagram = bytearray(far.seal(payload, epoch, 1))
    datagram[data.draw(st.integers(0, len(datagram) - 1))] ^= data.draw(st.integers(1, 255))
    assert take(key, bytes(datagram)) in {DropReason.RX_DECRYPT_FAILED, DropReason.RX_EPOCH_REJECTED}
    assert key.sent == 1 << 48
    assert take(key, far.seal(payload, 1, 1)) == payload


@given(datagram=st.binary(min_size=24, max_size=100))
def test_random_bytes_are_dropped(make: Maker, datagram: bytes) -> None:
    key = EpochFarEnd(make.implementation.epoch_key).data_key()
    assert isinstance(take(key, datagram), DropReason)


def test_packet_shorter_than_the_overhead_is_truncated(far: EpochFarEnd) -> None:
    key = far.data_key()
    datagram = far.seal(b"", 1, 1)
    assert len(datagram) == 28
    assert take(key, datagram[:27]) is DropReason.RX_TRUNCATED
    assert key.open(datagram[:27]) is None
    assert take(key, datagram) == b""


@pytest.mark.parametrize(
    ("cipher", "secret", "key_length"),
    [
        (Cipher.AES_GCM, bytes(31), 32),
        (Cipher.AES_GCM, bytes(33), 32),
        (Cipher.AES_GCM, bytes(32), 20),
        (Cipher.CHACHA20_POLY1305, bytes(32), 16),
    ],
)
def test_material_of_a_wrong_length_is_refused(make: Maker, cipher: Cipher, secret: bytes, key_length: int) -> None:
    good = EpochSecret(bytes(32), 32)
    with pytest.raises(ValueError, match="bytes"):
        make.implementation.epoch_key(0, cipher, EpochSecret(secret, key_length), good)
    with pytest.raises(ValueError, match="bytes"):
        make.implementation.epoch_key(0, cipher, good, EpochSecret(secret, key_length))
    with pytest.raises(ValueError, match="key_id 8"):
        make.implementation.epoch_key(8, cipher, good, good)


def test_secrets_are_in_no_repr(far: EpochFarEnd) -> None:
    secret = EpochSecret(b"\xab" * 32, 32)
    assert "ab" not in repr(secret).replace("abc", "")
    assert repr(far.data_key()).count("(") == 1


# Sending


def test_sender_goes_on_where_the_cipher_may_seal_no_more(far: EpochFarEnd) -> None:
    key = far.data_key()
    sealed(key)
    key.usage = USAGE_MAX - 2
    assert far.open(sealed(key))[1:3] == (1, 2)
    assert key.usage == USAGE_MAX
    assert far.open(sealed(key))[1:3] == (2, 1)
    assert key.usage == 2
    assert key.take_warning() is None


def test_sender_goes_on_where_the_counter_ends(far: EpochFarEnd) -> None:
    key = far.data_key()
    key.sent = 1 << 48 | COUNTER_MAX - 1
    assert far.open(sealed(key))[1:3] == (1, COUNTER_MAX)
    assert far.open(sealed(key))[1:3] == (2, 1)


def test_chacha20_poly1305_has_no_limit_of_usage(make: Maker) -> None:
    key = EpochFarEnd(make.implementation.epoch_key, 3).data_key()
    key.usage = 1 << 60
    sealed(key)
    assert key.sent == 1 << 48 | 1


def test_sender_goes_on_once_when_its_peer_is_attacked(far: EpochFarEnd) -> None:
    key = far.data_key()
    key.forged = FORGERIES_WARNING - 1
    sealed(key)
    assert key.sent == 1 << 48 | 1
    forged = far.seal(b"forged", 1, 1)
    assert take(key, forged[:-1] + bytes([forged[-1] ^ 1])) is DropReason.RX_DECRYPT_FAILED
    assert [far.open(sealed(key))[1:3] for _ in range(2)] == [(2, 1), (2, 2)]
    assert take(key, far.seal(b"follows", 2, 1)) == b"follows"
    assert key.forged == 0
    assert far.open(sealed(key))[1:3] == (2, 3)


def test_epochs_of_sending_near_their_end_are_told_once(make: Maker) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, first=0xEFFF)
    key = far.data_key()
    sealed(key)
    assert key.take_warning() is None
    key.usage = USAGE_MAX
    assert far.open(sealed(key))[1:3] == (0xF000, 1)
    assert key.take_warning() is KeyLimit.PACKET_IDS
    sealed(key)
    assert key.take_warning() is None


@pytest.mark.parametrize(("sent", "usage"), [(COUNTER_MAX, 0), (7, USAGE_MAX)])
def test_key_is_used_up_with_its_last_epoch(make: Maker, sent: int, usage: int) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, first=LAST - 1)
    key = far.data_key()
    key.usage = USAGE_MAX
    assert far.open(sealed(key))[1:3] == (LAST, 1)
    key.sent, key.usage = LAST << 48 | sent, usage
    assert key.seal(1, b"payload") is None
    assert key.end is DropReason.TX_PACKET_ID_EXHAUSTED
    assert key.sent == LAST << 48 | sent


def test_attack_in_the_last_epoch_does_not_end_the_key(make: Maker) -> None:
    key = EpochFarEnd(make.implementation.epoch_key, first=LAST).data_key()
    key.forged = FORGERIES_WARNING
    sealed(key)
    assert key.sent == LAST << 48 | 1


# Receiving


@every_suite
def test_peer_that_goes_on_is_followed(make: Maker, suite: int) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, suite)
    key = far.data_key()
    for epoch in (1, 2, 3, 3 + 16, 3 + 32):
        assert take(key, far.seal(b"in", epoch, 1)) == b"in"
        assert far.open(sealed(key))[1:3] == (epoch, 1)


def test_sender_that_is_ahead_is_not_taken_back(far: EpochFarEnd) -> None:
    key = far.data_key()
    for _ in range(4):
        key.usage = USAGE_MAX
        sealed(key)
    assert take(key, far.seal(b"in", 3, 1)) == b"in"
    assert far.open(sealed(key))[1:3] == (5, 2)


def test_one_epoch_retires_and_those_before_are_rejected(far: EpochFarEnd) -> None:
    key = far.data_key()
    for epoch in (1, 4, 9):
        assert take(key, far.seal(b"in", epoch, 5)) == b"in"
    assert take(key, far.seal(b"late", 4, 6)) == b"late"
    assert take(key, far.seal(b"late", 4, 4)) == b"late"
    for epoch in (0, 1, 3, 5, 8):
        assert take(key, far.seal(b"late", epoch, 7)) is DropReason.RX_EPOCH_REJECTED


def test_every_epoch_has_a_replay_window_of_its_own(far: EpochFarEnd) -> None:
    key = far.data_key()
    first, second = far.seal(b"one", 1, 3000), far.seal(b"two", 2, 1)
    assert [take(key, datagram) for datagram in (first, second)] == [b"one", b"two"]
    assert [take(key, datagram) for datagram in (first, second)] == [DropReason.RX_REPLAYED] * 2
    assert take(key, far.seal(b"late", 1, 2999)) == b"late"
    assert take(key, far.seal(b"late", 1, 900)) is DropReason.RX_TOO_OLD
    assert key.replay_window.highest == 2 << 48 | 1


def test_counter_zero_is_dropped_and_changes_no_epoch(far: EpochFarEnd) -> None:
    key = far.data_key()
    assert take(key, far.seal(b"in", 2, 0)) is DropReason.RX_PACKET_ID_ZERO
    assert take(key, far.seal(b"in", 1, 0)) is DropReason.RX_PACKET_ID_ZERO
    assert far.open(sealed(key))[1:3] == (1, 1)


def test_sixteen_epochs_ahead_are_opened_and_no_more(far: EpochFarEnd) -> None:
    key = far.data_key()
    assert take(key, far.seal(b"in", 18, 1)) is DropReason.RX_EPOCH_REJECTED
    assert take(key, far.seal(b"in", 17, 1)) == b"in"
    assert take(key, far.seal(b"in", 34, 1)) is DropReason.RX_EPOCH_REJECTED
    assert take(key, far.seal(b"in", 33, 1)) == b"in"


def test_epochs_that_could_not_be_followed_are_rejected(make: Maker) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, first=LAST - 1)
    key = far.data_key()
    for epoch in (LAST + 1, LAST + 15, 65535):
        assert take(key, far.seal(b"in", epoch, 1)) is DropReason.RX_EPOCH_REJECTED
    assert take(key, far.seal(b"in", LAST, 1)) == b"in"
    assert take(key, far.seal(b"late", LAST - 1, 1)) == b"late"
    assert take(key, far.seal(b"in", LAST + 1, 1)) is DropReason.RX_EPOCH_REJECTED


def test_forgeries_for_epochs_to_come_do_not_disturb_those_that_come(far: EpochFarEnd) -> None:
    key = far.data_key()
    for epoch in (7, 3, 1, 17, 3, 3):
        forged = far.seal(b"forged", epoch, 1)
        assert take(key, forged[:-1] + bytes([forged[-1] ^ 1])) is DropReason.RX_DECRYPT_FAILED
    assert key.forged == 1
    assert take(key, far.seal(b"in", 3, 1)) == b"in"
    assert key.forged == 3
    assert take(key, far.seal(b"late", 1, 1)) == b"late"
    assert take(key, far.seal(b"in", 7, 1)) == b"in"


def test_epoch_with_too_many_forgeries_is_closed_and_the_next_one_is_not(far: EpochFarEnd) -> None:
    key = far.data_key()
    key.forged = FORGERIES_MAX + 1
    assert take(key, far.seal(b"in", 1, 1)) is DropReason.RX_FORGERY_LIMIT
    assert take(key, far.seal(b"in", 2, 1)) == b"in"
    assert take(key, far.seal(b"late", 1, 1)) is DropReason.RX_FORGERY_LIMIT
