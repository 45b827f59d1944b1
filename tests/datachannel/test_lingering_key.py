"""A deleted key that lingers: what it opens, what it never does, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.keepalive import Keepalive
from dataplane.datachannel.key_limits import FORGERIES_MAX, FORGERIES_WARNING
from dataplane.datachannel.outcomes import KeyExhausted, KeyLimitNear, UnknownPeer
from dataplane.datachannel.wire import KEEPALIVE, PACKET_ID_MAX
from dataplane.vocabulary import Column, DropReason, FloatPolicy, KeyLimit, KeySlot
from tests.datachannel.epoch_far_end import EpochFarEnd

if TYPE_CHECKING:
    from tests.datachannel.conftest import FarEnd, Maker, Tunnel

ELSEWHERE = ("203.0.113.9", 4000)
UNTIL = 60_000_000_000


@pytest.fixture
def elder(tunnel: Tunnel) -> FarEnd:
    """The far end of the key of key-id 0, which lingers; that of key-id 1 is primary, and the secondary slot empty."""
    tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    tunnel.channel.swap_keys(1)
    tunnel.channel.let_key_linger(1, UNTIL)
    return tunnel.far


def assert_opens_nothing(make: Maker, tunnel: Tunnel, far: FarEnd) -> None:
    assert tunnel.peer.keys.lingering is None
    assert tunnel.receive(far.seal(make.inbound)) == []


def lingering(tunnel: Tunnel) -> DataKey:
    key = tunnel.peer.keys.lingering
    assert key is not None
    return key  # type: ignore[return-value] # no tunnel that asks for it has epochs


def test_it_opens_what_is_on_its_way_beside_the_new_key(make: Maker, tunnel: Tunnel) -> None:
    old, new = tunnel.far, tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    on_its_way = [old.seal(make.inbound + bytes([number])) for number in range(3)]
    tunnel.channel.swap_keys(1)
    tunnel.channel.let_key_linger(1, UNTIL)
    opened = tunnel.receive(on_its_way[0], new.seal(make.inbound), *on_its_way[1:], now_ns=UNTIL - 1)
    assert opened == [make.inbound + b"\0", make.inbound, make.inbound + b"\1", make.inbound + b"\2"]
    assert tunnel.peer.row[Column.LINK_RX_PACKETS] == 4
    assert tunnel.peer.row[Column.LAST_RX_NS] == UNTIL - 1
    assert tunnel.drops == {}


def test_it_ends_when_its_time_is_over_and_not_before(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    assert tunnel.channel.next_deadline_ns() == UNTIL
    tunnel.channel.run_timers(UNTIL - 1)
    assert tunnel.receive(elder.seal(make.inbound)) == [make.inbound]
    tunnel.channel.run_timers(UNTIL)
    assert_opens_nothing(make, tunnel, elder)
    tunnel.wait_for_keys()
    assert tunnel.drops == {DropReason.RX_UNKNOWN_KEY_ID: 1}
    assert tunnel.channel.next_deadline_ns() is None


def test_it_ends_in_time_between_keepalives(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    second = 1_000_000_000
    tunnel.channel.set_keepalive(1, 7, 0, 0)
    for number in range(1, 9):
        assert tunnel.channel.next_deadline_ns() == number * 7 * second
        assert len(tunnel.channel.run_timers(number * 7 * second).keepalives) == 1
    assert tunnel.channel.next_deadline_ns() == UNTIL
    assert tunnel.channel.run_timers(UNTIL).keepalives == []
    assert_opens_nothing(make, tunnel, elder)


def use_up(tunnel: Tunnel) -> None:
    key = tunnel.peer.keys.primary
    assert key is not None
    key.sent = PACKET_ID_MAX
    tunnel.send(b"\x45" + bytes(15) + bytes([10, 8, 0, 2]))


@pytest.mark.parametrize(
    "empty",
    [
        lambda tunnel: tunnel.channel.delete_key(1, KeySlot.PRIMARY),
        lambda tunnel: tunnel.channel.swap_keys(1),
        use_up,
    ],
    ids=["deleted", "swapped", "used up"],
)
def test_it_ends_when_the_primary_slot_is_emptied(
    make: Maker, tunnel: Tunnel, elder: FarEnd, empty: Callable[[Tunnel], None]
) -> None:
    empty(tunnel)
    assert tunnel.peer.keys.primary is None
    assert_opens_nothing(make, tunnel, elder)
    tunnel.install(1, KeySlot.PRIMARY, key_id=2)
    assert_opens_nothing(make, tunnel, elder)


def test_a_key_that_was_used_up_beside_it_does_not_come_back(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    tunnel.install(1, KeySlot.SECONDARY, key_id=2)
    use_up(tunnel)
    tunnel.channel.let_key_linger(1, UNTIL)
    assert tunnel.peer.keys.primary is None
    assert_opens_nothing(make, tunnel, elder)
    assert tunnel.channel.take_events() == [KeyExhausted(tunnel.peer, 1)]


@pytest.mark.parametrize("order", [[KeySlot.PRIMARY, KeySlot.SECONDARY], [KeySlot.SECONDARY, KeySlot.PRIMARY]])
def test_peer_whose_keys_are_all_taken_away_opens_nothing(make: Maker, tunnel: Tunnel, order: list[KeySlot]) -> None:
    far_ends = [tunnel.far, tunnel.install(1, KeySlot.SECONDARY, key_id=1)]
    for slot in order:
        if slot is KeySlot.PRIMARY:
            tunnel.channel.delete_key(1, slot)
        else:
            tunnel.channel.let_key_linger(1, UNTIL)
    for far in far_ends:
        assert_opens_nothing(make, tunnel, far)


def test_a_deletion_without_linger_ends_it(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    tunnel.channel.delete_key(1, KeySlot.SECONDARY)
    assert_opens_nothing(make, tunnel, elder)


def test_the_same_request_again_changes_nothing(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    tunnel.channel.let_key_linger(1, 2 * UNTIL)
    assert tunnel.receive(elder.seal(make.inbound)) == [make.inbound]
    assert tunnel.channel.next_deadline_ns() == UNTIL


def test_the_next_one_takes_its_place_and_ends_at_its_own_time(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    second = tunnel.install(1, KeySlot.SECONDARY, key_id=2)
    tunnel.channel.let_key_linger(1, 2 * UNTIL)
    assert tunnel.receive(elder.seal(make.inbound), second.seal(make.inbound)) == [make.inbound]
    tunnel.channel.run_timers(UNTIL)
    assert tunnel.receive(second.seal(make.inbound)) == [make.inbound]
    assert tunnel.channel.next_deadline_ns() == 2 * UNTIL
    tunnel.channel.run_timers(2 * UNTIL)
    assert_opens_nothing(make, tunnel, second)


def test_its_slot_is_empty_for_all_else(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    keys = tunnel.peer.keys
    assert keys.secondary is None
    assert tunnel.peer.row[Column.SENT_SECONDARY] == 0
    third = tunnel.install(1, KeySlot.SECONDARY, key_id=2)
    tunnel.channel.swap_keys(1)
    assert third.open(*tunnel.send(make.outbound))[2] == make.outbound
    assert tunnel.receive(elder.seal(make.inbound)) == [make.inbound]


def test_a_key_in_a_slot_goes_before_it(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    namesake = tunnel.install(1, KeySlot.SECONDARY, key_id=0)
    assert tunnel.receive(namesake.seal(make.inbound), elder.seal(make.inbound)) == [make.inbound]
    assert tunnel.drops == {DropReason.RX_DECRYPT_FAILED: 1}
    tunnel.channel.swap_keys(1)
    assert tunnel.receive(namesake.seal(make.inbound), elder.seal(make.inbound)) == [make.inbound]


def test_it_keeps_its_replay_window(make: Maker, tunnel: Tunnel) -> None:
    old = tunnel.far
    seen = old.seal(make.inbound)
    tunnel.receive(seen)
    tunnel.install(1, KeySlot.SECONDARY, key_id=1)
    tunnel.channel.swap_keys(1)
    tunnel.channel.let_key_linger(1, UNTIL)
    assert tunnel.receive(seen, old.seal(make.inbound)) == [make.inbound]
    assert tunnel.drops == {DropReason.RX_REPLAYED: 1}


def test_it_keeps_its_limit_of_forgeries(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    lingering(tunnel).forged = FORGERIES_WARNING - 1
    forged = elder.seal(make.inbound)[:-1] + b"\0"
    tunnel.receive(forged)
    assert tunnel.channel.take_events() == [KeyLimitNear(tunnel.peer, 0, KeyLimit.FORGERIES)]
    lingering(tunnel).forged = FORGERIES_MAX + 1
    assert tunnel.receive(elder.seal(make.inbound)) == []
    assert tunnel.drops == {DropReason.RX_DECRYPT_FAILED: 1, DropReason.RX_FORGERY_LIMIT: 1}


def test_a_key_with_epochs_lingers_too(make: Maker, tunnel: Tunnel) -> None:
    far = EpochFarEnd(make.implementation.epoch_key, key_id=5)
    tunnel.channel.install_key(1, KeySlot.SECONDARY, far.data_key(), 0)
    tunnel.channel.let_key_linger(1, UNTIL)
    opened = tunnel.receive(far.seal(make.inbound, 1, 1), far.seal(make.inbound, 2, 1), far.seal(make.inbound, 1, 1))
    assert opened == [make.inbound] * 2
    assert tunnel.drops == {DropReason.RX_REPLAYED: 1}
    tunnel.channel.run_timers(UNTIL)
    assert tunnel.receive(far.seal(make.inbound, 2, 2)) == []


def test_its_packets_come_in_from_elsewhere_but_move_no_peer(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    home = tunnel.peer.remote
    assert tunnel.receive(elder.seal(make.inbound), elder.seal(KEEPALIVE), source=ELSEWHERE) == [make.inbound]
    assert tunnel.peer.remote == home
    tunnel.channel.set_float_policy(FloatPolicy.ASK)
    assert tunnel.receive(elder.seal(make.inbound), source=ELSEWHERE) == []
    assert tunnel.channel.take_events() == []
    assert tunnel.drops == {DropReason.RX_FLOAT_REFUSED: 1}


def test_it_goes_with_its_peer(make: Maker, tunnel: Tunnel, elder: FarEnd) -> None:
    tunnel.channel.remove_peer(1)
    assert tunnel.channel.next_deadline_ns() is None
    tunnel.peer = tunnel.add_peer(1, "10.8.0.2")
    tunnel.install(1, KeySlot.PRIMARY, key_id=1)
    assert_opens_nothing(make, tunnel, elder)
    with pytest.raises(UnknownPeer):
        tunnel.channel.let_key_linger(9, UNTIL)


def test_it_goes_with_a_peer_that_expires(tunnel: Tunnel) -> None:
    expiring = tunnel.add_peer(2, "10.8.0.3", keepalive=Keepalive(0, 60))
    tunnel.install(2, KeySlot.PRIMARY, key_id=0)
    tunnel.install(2, KeySlot.SECONDARY, key_id=1)
    tunnel.channel.let_key_linger(2, UNTIL)
    assert tunnel.channel.run_timers(UNTIL).expired == [expiring]
    assert tunnel.channel.next_deadline_ns() is None


@pytest.mark.parametrize(
    "end",
    [
        lambda channel: channel.run_timers(UNTIL),
        lambda channel: channel.delete_key(1, KeySlot.PRIMARY),
        lambda channel: channel.delete_key(1, KeySlot.SECONDARY),
    ],
    ids=["in time", "with the primary", "deleted"],
)
def test_nobody_keeps_it_when_it_has_ended(make: Maker, tunnel: Tunnel, end: Callable[..., object]) -> None:
    key = make.far_end(key_id=3).data_key()
    references = sys.getrefcount(key)
    tunnel.channel.install_key(1, KeySlot.SECONDARY, key, 0)
    tunnel.channel.let_key_linger(1, UNTIL)
    assert sys.getrefcount(key) > references
    end(tunnel.channel)
    assert sys.getrefcount(key) == references
