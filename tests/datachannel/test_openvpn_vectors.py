"""Packets exchanged with a stock OpenVPN, kept with their keys by scripts/make_vectors.py."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dataplane.datachannel.key_direction import KeyDirection
from dataplane.vocabulary import Cipher, Column, KeySlot, Mode

if TYPE_CHECKING:
    from dataplane.datachannel.aead import DataKey
    from tests.datachannel.conftest import Maker

VECTORS = sorted((Path(__file__).parent / "vectors").glob("*.json"))
CIPHERS = {"CIPHER_AES_GCM": Cipher.AES_GCM, "CIPHER_CHACHA20_POLY1305": Cipher.CHACHA20_POLY1305}
CLIENT = ("198.51.100.2", 1194)


def key_of(make: Maker, vector: dict[str, Any], *, as_server: bool) -> DataKey:
    """The key as the server installed it, or as its client did: with the directions exchanged."""
    ours, theirs = ("encrypt", "decrypt") if as_server else ("decrypt", "encrypt")
    directions = [
        KeyDirection(bytes.fromhex(vector[f"{name}_key"]), bytes.fromhex(vector[f"{name}_nonce_tail"]))
        for name in (ours, theirs)
    ]
    return make.implementation.data_key(vector["key_id"], CIPHERS[vector["alg"]], *directions)


def test_all_four_ciphers_are_kept() -> None:
    assert {json.loads(path.read_text())["cipher"] for path in VECTORS} == {
        "AES-128-GCM",
        "AES-192-GCM",
        "AES-256-GCM",
        "CHACHA20-POLY1305",
    }


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_packets_sealed_by_openvpn_open(make: Maker, path: Path) -> None:
    vector = json.loads(path.read_text())
    row, device_row = make.row(), make.row()
    channel = make.implementation.data_channel(Mode.MP, device_row)
    address = IPv4Address(vector["client_address"]).packed
    peer = make.implementation.peer(
        peer_id=vector["peer_id"], uid=1, socket_id=1, remote=CLIENT, row=row, vpn_ipv4=address
    )
    channel.add_peer(peer, 0)
    channel.install_key(vector["peer_id"], KeySlot.PRIMARY, key_of(make, vector, as_server=True), 0)
    packets = [bytes.fromhex(packet) for packet in vector["from_openvpn"]]

    opened = [payload for _, payload in channel.open_batch(1, [(packet, CLIENT, None) for packet in packets], 1)]

    echoes = [payload for payload in opened if payload[9] == 1]
    assert len(echoes) >= 5
    assert all(payload[12:16] == address for payload in opened)
    assert {payload[16:20] for payload in echoes} == {IPv4Address(vector["server_address"]).packed}
    assert row[Column.LINK_RX_PACKETS] == len(packets)
    assert row[Column.LINK_RX_BYTES] == sum(map(len, packets))
    assert sum(device_row) == 0


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_packets_that_openvpn_opened_are_sealed_alike(make: Maker, path: Path) -> None:
    """Opening what was sent and sealing it again gives the very bytes that OpenVPN accepted."""
    vector = json.loads(path.read_text())
    opener, sealer = key_of(make, vector, as_server=False), key_of(make, vector, as_server=True)
    assert len(vector["to_openvpn"]) >= 5
    for text in vector["to_openvpn"]:
        packet = bytes.fromhex(text)
        payload = opener.open(packet)
        assert payload is not None
        assert sealer.seal(int.from_bytes(packet[1:4], "big"), payload) == packet
