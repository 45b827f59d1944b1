"""What Linux's connection tracking knows of a datagram, in a network namespace of its own."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest

from controlplane_shim.conntrack import ConnectionTracking, Endpoint
from controlplane_shim.netlink import message
from controlplane_shim.netlink.attributes import NLA_F_NESTED, build

pytestmark = pytest.mark.root

PEER4, LOCAL4, VIRTUAL4 = bytes([192, 0, 2, 9]), bytes([198, 51, 100, 1]), bytes([203, 0, 113, 1])
PEER6, LOCAL6, VIRTUAL6 = (bytes.fromhex("20010db8") + bytes(11) + bytes([last]) for last in (9, 1, 2))
CTA_STATUS, CTA_TIMEOUT = 3, 7
IPS_CONFIRMED = 8

Run = Callable[[Callable[[], Endpoint]], Endpoint]


def flow(family: int, direction: int, source: Endpoint, destination: Endpoint) -> bytes:
    """CTA_TUPLE_ORIG (1) or CTA_TUPLE_REPLY (2)."""
    first = 1 if family == socket.AF_INET else 3
    addresses = build(first, source[0]) + build(first + 1, destination[0])
    ports = build(2, struct.pack(">H", source[1])) + build(3, struct.pack(">H", destination[1]))
    protocol = build(1, bytes([socket.IPPROTO_UDP])) + ports
    return build(direction | NLA_F_NESTED, build(1 | NLA_F_NESTED, addresses) + build(2 | NLA_F_NESTED, protocol))


def track(family: int, peer: Endpoint, sent_to: Endpoint, local: Endpoint) -> None:
    """Makes an entry as netfilter does for what `peer` sent to `sent_to` and was redirected to `local`."""
    body = struct.pack("=BBH", family, 0, 0) + flow(family, 1, peer, sent_to) + flow(family, 2, local, peer)
    body += build(CTA_TIMEOUT, struct.pack(">I", 60)) + build(CTA_STATUS, struct.pack(">I", IPS_CONFIRMED))
    flags = message.NLM_F_REQUEST | message.NLM_F_ACK | message.NLM_F_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(message.build(0x100, flags, 0, 0, body))
        (reply,) = message.split(netlink.recv(4096))
    assert struct.unpack_from("=i", reply.body) == (0,)


@pytest.mark.parametrize(
    ("family", "peer", "local", "virtual"),
    [(socket.AF_INET, PEER4, LOCAL4, VIRTUAL4), (socket.AF_INET6, PEER6, LOCAL6, VIRTUAL6)],
)
def test_the_redirected_destination_is_found(
    in_namespace: Run, family: int, peer: bytes, local: bytes, virtual: bytes
) -> None:
    def ask() -> Endpoint:
        track(family, (peer, 5000), (virtual, 443), (local, 1194))
        with ConnectionTracking() as tracking:
            return tracking.original_destination((peer, 5000), (local, 1194))

    assert in_namespace(ask) == (virtual, 443)


@pytest.mark.parametrize(("peer", "local"), [(PEER4, LOCAL4), (PEER6, LOCAL6)])
def test_an_unknown_flow_goes_where_it_arrived(in_namespace: Run, peer: bytes, local: bytes) -> None:
    def ask() -> Endpoint:
        track(socket.AF_INET, (PEER4, 1), (VIRTUAL4, 443), (LOCAL4, 1194))
        with ConnectionTracking() as tracking:
            return tracking.original_destination((peer, 5000), (local, 1194))

    assert in_namespace(ask) == (local, 1194)


def test_where_nothing_is_tracked_nothing_is_asked(in_namespace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> Endpoint:
        with ConnectionTracking() as tracking:
            monkeypatch.setattr(socket.socket, "send", None, raising=False)
            return tracking.original_destination((PEER4, 5000), (LOCAL4, 1194))

    assert in_namespace(ask) == (LOCAL4, 1194)
