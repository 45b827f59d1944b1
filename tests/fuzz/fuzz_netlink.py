"""Fuzzes the translator: any datagram in, whole messages out, and nothing raised.

Usage: python tests/fuzz/fuzz_netlink.py -max_total_time=60 [CORPUS]
"""

from __future__ import annotations

import struct
import sys
from ipaddress import IPv4Address

import atheris

with atheris.instrument_imports(include=["controlplane_shim"]):
    from controlplane_shim.netlink.message import AckOptions, split
    from controlplane_shim.operations import (
        Done,
        DumpPeers,
        Failed,
        Family,
        GetKey,
        GetPeer,
        KeyFound,
        KeyInfo,
        Outcome,
        PeerFound,
        PeerInfo,
        PeersFound,
        Remote,
    )
    from controlplane_shim.translate.translator import Request, Translator

PORT_ID = 42
TRANSLATOR = Translator()
DEVICES = {Family.OVPN_DCO_V2: {12: True, 13: False}, Family.OVPN: {12: True, 13: False}}
PEER = PeerInfo(
    peer_id=3,
    tx_id=3,
    remote=Remote(IPv4Address("192.0.2.7"), 1194),
    local=None,
    local_port=1194,
    vpn_ipv4=IPv4Address("10.8.0.2"),
    vpn_ipv6=None,
    keepalive_interval=10,
    keepalive_timeout=120,
    vpn_rx_bytes=1,
    vpn_tx_bytes=2,
    vpn_rx_packets=3,
    vpn_tx_packets=4,
    link_rx_bytes=5,
    link_tx_bytes=6,
    link_rx_packets=7,
    link_tx_packets=8,
)


def outcome_of(request: Request) -> Outcome:
    """What a session would come to."""
    if request.error is not None:
        return request.error
    match request.operation:
        case None:
            return Failed(22, "not ours")
        case GetKey():
            return KeyFound(KeyInfo(peer_id=3, slot=1, key_id=5, cipher=2))
        case GetPeer():
            return PeerFound(PEER)
        case DumpPeers():
            return PeersFound((PEER,) * 40)
        case _:
            return Done()


def test_one_input(data: bytes) -> None:
    """The first bytes choose the protocol and spare the fuzzer the header, which it rarely gets right."""
    fuzzed = atheris.FuzzedDataProvider(data)
    protocol = fuzzed.PickValueInList([0, 16, 16, 16])
    type_ = fuzzed.PickValueInList([0x10, 16, 0xD00, 0xD01])
    flags = fuzzed.PickValueInList([0x5, 0x305, 0x605, fuzzed.ConsumeIntInRange(0, 0xFFFF)])
    options = AckOptions(fuzzed.ConsumeBool(), fuzzed.ConsumeBool())
    body = fuzzed.ConsumeBytes(fuzzed.remaining_bytes())
    datagram = struct.pack("=IHHII", 16 + len(body), type_, flags, 7, 0) + body
    for sent in (datagram, body):
        for request in TRANSLATOR.requests(protocol, sent, DEVICES):
            for answer in TRANSLATOR.replies(request, PORT_ID, outcome_of(request), options):
                assert sum(len(message.raw) for message in split(answer)) == len(answer)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
