from __future__ import annotations

from typing import Any

import pytest

from controlplane_shim.netlink.attributes import Nest
from controlplane_shim.netlink.ovpn_dco_v2 import tables


def numbers(nest: Nest) -> dict[str, int]:
    rows: tuple[Any, ...] = nest.table
    return {row.name: row.number for row in rows}


@pytest.mark.parametrize(
    ("nest", "number", "expected"),
    [
        (
            tables.NewPeer.NEST,
            2,
            {"PEER_ID": 1, "SOCKADDR_REMOTE": 2, "SOCKET": 3, "IPV4": 4, "IPV6": 5, "LOCAL_IP": 6},
        ),
        (tables.SetPeer.NEST, 3, {"PEER_ID": 1, "KEEPALIVE_INTERVAL": 2, "KEEPALIVE_TIMEOUT": 3}),
        (tables.DelPeer.NEST, 4, {"REASON": 1, "PEER_ID": 2}),
        (
            tables.NewKey.NEST,
            5,
            {"PEER_ID": 1, "KEY_SLOT": 2, "KEY_ID": 3, "CIPHER_ALG": 4, "ENCRYPT_KEY": 5, "DECRYPT_KEY": 6},
        ),
        (tables.NewKey.ENCRYPT_KEY, 5, {"CIPHER_KEY": 1, "NONCE_TAIL": 2}),
        (tables.NewKey.DECRYPT_KEY, 6, {"CIPHER_KEY": 1, "NONCE_TAIL": 2}),
        (tables.SwapKeys.NEST, 6, {"PEER_ID": 1}),
        (tables.DelKey.NEST, 7, {"PEER_ID": 1, "KEY_SLOT": 2}),
        (tables.GetPeer.NEST, 8, {"PEER_ID": 1}),
    ],
)
def test_attributes_have_the_numbers_of_the_uapi_header(nest: Nest, number: int, expected: dict[str, int]) -> None:
    assert (nest.number, numbers(nest)) == (number, expected)


def test_a_request_has_the_ifindex_and_one_nest_a_command() -> None:
    rows: tuple[Any, ...] = tables.TOP_LEVEL
    assert [row.number for row in rows] == list(range(1, tables.FAMILY.max_attribute + 1))


def test_the_family_offers_seven_commands_of_which_one_dumps() -> None:
    flags = {operation.number: operation.flags for operation in tables.FAMILY.operations}
    assert flags == {1: 0xB, 2: 0xB, 3: 0xB, 4: 0xB, 5: 0xB, 6: 0xB, 7: 0xF}


def test_the_family_has_an_id_that_the_kernel_gives_nobody() -> None:
    assert (tables.FAMILY.name, tables.FAMILY.version) == ("ovpn-dco-v2", 1)
    assert tables.FAMILY.family_id > 1023
    assert [name for name, _ in tables.FAMILY.groups] == ["peers"]
