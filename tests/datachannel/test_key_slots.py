"""The two key slots of a peer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from dataplane.vocabulary import Column, KeySlot

if TYPE_CHECKING:
    from dataplane.datachannel.aead import DataKey
    from dataplane.datachannel.key_slots import KeySlots
    from tests.datachannel.conftest import Maker


@pytest.fixture
def slots(make: Maker) -> KeySlots:
    return make.implementation.key_slots(make.row())


def key(make: Maker, key_id: int, sent: int = 0, highest: int = 0) -> DataKey:
    """A key that sealed and accepted up to these packet-ids."""
    data_key = make.far_end(key_id=key_id).data_key()
    data_key.sent = sent
    data_key.replay_window.accept(highest, 0)
    return data_key


def test_slots_are_empty_at_first(slots: KeySlots) -> None:
    assert slots.primary is None
    assert slots.secondary is None
    assert slots.find(0) is None


def test_installed_key_is_found_by_its_key_id_in_either_slot(make: Maker, slots: KeySlots) -> None:
    first, second = key(make, 1), key(make, 2)
    slots.install(KeySlot.PRIMARY, first)
    slots.install(KeySlot.SECONDARY, second)
    assert slots.find(1) is first
    assert slots.find(2) is second
    assert slots.find(3) is None


def test_primary_is_found_first_when_both_have_the_key_id(make: Maker, slots: KeySlots) -> None:
    first, second = key(make, 1), key(make, 1)
    slots.install(KeySlot.PRIMARY, first)
    slots.install(KeySlot.SECONDARY, second)
    assert slots.find(1) is first
    slots.swap()
    assert slots.find(1) is second


def test_installing_replaces_the_key_in_the_slot(make: Maker, slots: KeySlots) -> None:
    slots.install(KeySlot.PRIMARY, key(make, 1))
    slots.install(KeySlot.PRIMARY, key(make, 2))
    assert slots.find(1) is None
    assert slots.find(2) is slots.primary


def test_swap_exchanges_slots(make: Maker, slots: KeySlots) -> None:
    first, second = key(make, 1), key(make, 2)
    slots.install(KeySlot.PRIMARY, first)
    slots.install(KeySlot.SECONDARY, second)
    slots.swap()
    assert slots.primary is second
    assert slots.secondary is first


def test_swap_with_an_empty_secondary_empties_the_primary(make: Maker, slots: KeySlots) -> None:
    only = key(make, 1)
    slots.install(KeySlot.PRIMARY, only)
    slots.swap()
    assert slots.primary is None
    assert slots.secondary is only


def test_swap_of_empty_slots_is_nothing(slots: KeySlots) -> None:
    slots.swap()
    assert slots.primary is None
    assert slots.secondary is None


def test_delete_empties_one_slot_and_may_be_repeated(make: Maker, slots: KeySlots) -> None:
    first, second = key(make, 1), key(make, 2)
    slots.install(KeySlot.PRIMARY, first)
    slots.install(KeySlot.SECONDARY, second)
    slots.delete(KeySlot.SECONDARY)
    slots.delete(KeySlot.SECONDARY)
    assert slots.primary is first
    assert slots.secondary is None


@pytest.mark.parametrize("slot", list(KeySlot))
def test_deleted_key_is_not_kept(make: Maker, slots: KeySlots, slot: KeySlot) -> None:
    deleted = key(make, 1)
    references = sys.getrefcount(deleted)
    slots.install(slot, deleted)
    assert sys.getrefcount(deleted) > references
    slots.delete(slot)
    assert sys.getrefcount(deleted) == references


def test_sent_columns_follow_the_keys(make: Maker) -> None:
    row = make.row()
    slots = make.implementation.key_slots(row)

    def sent() -> tuple[int, int]:
        return row[Column.SENT_PRIMARY], row[Column.SENT_SECONDARY]

    slots.install(KeySlot.PRIMARY, key(make, 1, sent=11))
    assert sent() == (11, 0)
    slots.install(KeySlot.SECONDARY, key(make, 2, sent=22))
    assert sent() == (11, 22)
    slots.swap()
    assert sent() == (22, 11)
    slots.install(KeySlot.PRIMARY, key(make, 3))
    assert sent() == (0, 11)
    slots.delete(KeySlot.SECONDARY)
    assert sent() == (0, 0)


def test_highest_id_of_the_only_key_is_newest(make: Maker, slots: KeySlots) -> None:
    only = key(make, 1, highest=50)
    slots.install(KeySlot.PRIMARY, only)
    assert slots.is_newest(only, 50)
    assert not slots.is_newest(only, 49)


def test_old_key_is_newest_until_the_new_one_is_heard(make: Maker, slots: KeySlots) -> None:
    old, new = key(make, 1, highest=50), key(make, 2)
    slots.install(KeySlot.PRIMARY, old)
    slots.install(KeySlot.SECONDARY, new)
    assert slots.is_newest(old, 50)
    new.replay_window.accept(1, 0)
    assert not slots.is_newest(old, 50)
    assert slots.is_newest(new, 1)


def test_swap_does_not_change_which_key_is_newer(make: Maker, slots: KeySlots) -> None:
    old, new = key(make, 1, highest=50), key(make, 2, highest=1)
    slots.install(KeySlot.PRIMARY, old)
    slots.install(KeySlot.SECONDARY, new)
    slots.swap()
    assert not slots.is_newest(old, 50)
    assert slots.is_newest(new, 1)


def test_old_key_is_newest_again_when_the_new_one_is_deleted(make: Maker, slots: KeySlots) -> None:
    old, new = key(make, 1, highest=50), key(make, 2, highest=1)
    slots.install(KeySlot.PRIMARY, old)
    slots.install(KeySlot.SECONDARY, new)
    slots.delete(KeySlot.SECONDARY)
    assert slots.is_newest(old, 50)
