from __future__ import annotations

from typing import Any

import pytest

from controlplane_shim.netlink.attributes import Nest
from controlplane_shim.netlink.ovpn.tables import FAMILY, Key, Peer

PEER_NUMBERS = {
    "ID": 1,
    "REMOTE_IPV4": 2,
    "REMOTE_IPV6": 3,
    "REMOTE_IPV6_SCOPE_ID": 4,
    "REMOTE_PORT": 5,
    "SOCKET": 6,
    "SOCKET_NETNSID": 7,
    "VPN_IPV4": 8,
    "VPN_IPV6": 9,
    "LOCAL_IPV4": 10,
    "LOCAL_IPV6": 11,
    "LOCAL_PORT": 12,
    "KEEPALIVE_INTERVAL": 13,
    "KEEPALIVE_TIMEOUT": 14,
    "DEL_REASON": 15,
    "VPN_RX_BYTES": 16,
    "VPN_TX_BYTES": 17,
    "VPN_RX_PACKETS": 18,
    "VPN_TX_PACKETS": 19,
    "LINK_RX_BYTES": 20,
    "LINK_TX_BYTES": 21,
    "LINK_RX_PACKETS": 22,
    "LINK_TX_PACKETS": 23,
    "TX_ID": 24,
}
KEY_NUMBERS = {"PEER_ID": 1, "SLOT": 2, "KEY_ID": 3, "CIPHER_ALG": 4, "ENCRYPT_DIR": 5, "DECRYPT_DIR": 6}


def numbers(nest: Nest) -> dict[str, int]:
    rows: tuple[Any, ...] = nest.table
    return {row.name: row.number for row in rows}


def test_attributes_have_the_numbers_of_the_uapi_header() -> None:
    assert numbers(Peer.ANY) == PEER_NUMBERS
    assert numbers(Key.NEW) == KEY_NUMBERS
    assert numbers(Key.ENCRYPT_DIR) == numbers(Key.DECRYPT_DIR) == {"CIPHER_KEY": 1, "NONCE_TAIL": 2}


@pytest.mark.parametrize(
    ("nest", "taken"),
    [
        (Peer.NEW, {1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 24}),
        (Peer.SET, {1, 2, 3, 4, 5, 8, 9, 10, 11, 13, 14, 24}),
        (Peer.DEL, {1}),
        (Key.GET, {1, 2, 3, 4}),
        (Key.SWAP, {1}),
        (Key.DEL, {1, 2}),
    ],
)
def test_each_command_takes_the_attributes_of_its_specification(nest: Nest, taken: set[int]) -> None:
    assert set(numbers(nest).values()) == taken


def test_the_family_offers_eight_commands_of_which_one_dumps() -> None:
    flags = {operation.number: operation.flags for operation in FAMILY.operations}
    assert flags == {1: 0xB, 2: 0xB, 3: 0xF, 4: 0xB, 6: 0xB, 7: 0xB, 8: 0xB, 10: 0xB}


def test_the_family_has_ids_that_the_kernel_gives_nobody() -> None:
    assert (FAMILY.name, FAMILY.version) == ("ovpn", 1)
    assert FAMILY.family_id > 1023
    assert FAMILY.groups == (("peers", 0xD01),)
