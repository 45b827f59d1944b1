"""A worker whose deleted keys linger, on both datapaths: as a rekey of OpenVPN, and as the end of a client."""

from __future__ import annotations

import pytest

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.key_direction import KeyDirection
from dataplane.messages import DeleteKey, InstallKey, SwapKeys
from dataplane.vocabulary import LINGER_MAX_NS, Cipher, DropReason, KeySlot
from dataplane.worker import loop
from tests.worker.conftest import Device, FarPeer

pytestmark = pytest.mark.root

NEW_KEY = InstallKey(1, KeySlot.SECONDARY, 1, Cipher.AES_GCM, b"n" * 32, b"n" * 8, b"m" * 32, b"m" * 8)


def new_far_key() -> DataKey:
    return DataKey(1, Cipher.AES_GCM, KeyDirection(b"m" * 32, b"m" * 8), KeyDirection(b"n" * 32, b"n" * 8))


def say_with(device: Device, far: FarPeer, key: DataKey, payload: bytes) -> None:
    sealed = key.seal(1, device.packet_from(far, payload))
    assert sealed is not None
    far.send_raw(sealed)


def rekey(device: Device, linger_ns: int) -> FarPeer:
    """Peer 1, which has its second key now; the first one was deleted. Its other end seals with that still."""
    far = device.add_peer(1)
    for command in (NEW_KEY, SwapKeys(1), DeleteKey(1, KeySlot.SECONDARY, linger_ns)):
        device.worker.do(command)
    return far


def test_what_was_sealed_with_the_old_key_still_arrives(device: Device) -> None:
    far = rekey(device, LINGER_MAX_NS)
    far.say(b"old")
    say_with(device, far, new_far_key(), b"new")
    far.say(b"old again")
    assert [device.application.recv(100) for _ in range(3)] == [b"old", b"new", b"old again"]


def test_nothing_opens_when_the_time_is_over(device: Device) -> None:
    far = rekey(device, linger_ns=1)
    for _ in range(loop._COMMANDS_A_ROUND):  # so that a round begins, with its timers
        device.worker.settle()
    far.say(b"old")
    say_with(device, far, new_far_key(), b"new")
    assert device.application.recv(100) == b"new"
    assert device.drops(1) == {DropReason.RX_UNKNOWN_KEY_ID: 1}


def test_without_linger_nothing_opens(device: Device) -> None:
    far = rekey(device, linger_ns=0)
    far.say(b"old")
    assert device.drops(1) == {DropReason.RX_UNKNOWN_KEY_ID: 1}


@pytest.mark.parametrize("order", [[KeySlot.PRIMARY, KeySlot.SECONDARY], [KeySlot.SECONDARY, KeySlot.PRIMARY]])
def test_peer_whose_keys_are_all_deleted_passes_nothing(device: Device, order: list[KeySlot]) -> None:
    far = device.add_peer(1)
    device.worker.do(NEW_KEY)
    for slot in order:
        device.worker.do(DeleteKey(1, slot, LINGER_MAX_NS if slot is KeySlot.SECONDARY else 0))
    far.say(b"old")
    say_with(device, far, new_far_key(), b"new")
    device.say(b"answer", to=far.vpn_ipv4)
    assert device.drops(1, count=3) == {DropReason.RX_UNKNOWN_KEY_ID: 2, DropReason.TX_NO_KEY: 1}
