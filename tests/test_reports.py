from __future__ import annotations

from array import array
from ipaddress import IPv4Address, IPv6Address

from dataplane.datachannel.outcomes import FloatAsked, Floated
from dataplane.datachannel.outcomes import KeyExhausted as Exhausted
from dataplane.datachannel.outcomes import KeyLimitNear as LimitNear
from dataplane.datachannel.peer import Peer
from dataplane.messages import Endpoint, KeyExhausted, KeyLimitNear, PeerExpired, PeerFloatAsked, PeerFloated
from dataplane.reports import event_report, expiry_report
from dataplane.transport.sockaddr import SockAddr
from dataplane.vocabulary import ROW_WORDS, KeyLimit


def peer_at(remote: SockAddr) -> Peer:
    return Peer(peer_id=1, uid=101, socket_id=3, remote=remote, row=array("Q", bytes(ROW_WORDS * 8)))


def test_float_is_reported_with_where_the_peer_is() -> None:
    far = IPv6Address("fe80::1")
    assert event_report(Floated(peer_at((str(far), 1194, 0, 7)))) == PeerFloated(
        1, 101, Endpoint(far.packed, 1194, 7), 3
    )


def test_v4_mapped_address_is_reported_as_ipv4() -> None:
    report = event_report(Floated(peer_at(("::ffff:192.0.2.1", 1194, 0, 0))))
    assert report == PeerFloated(1, 101, Endpoint(IPv4Address("192.0.2.1").packed, 1194), 3)


def test_question_for_a_float_is_reported_with_where_to() -> None:
    peer = peer_at(("192.0.2.1", 1194))
    peer.asked = 4, ("::ffff:192.0.2.2", 1195, 0, 0)
    report = event_report(FloatAsked(peer))
    assert report == PeerFloatAsked(1, 101, Endpoint(IPv4Address("192.0.2.2").packed, 1195), 4)


def test_exhausted_key_is_reported_with_its_key_id() -> None:
    assert event_report(Exhausted(peer_at(("192.0.2.1", 1194)), key_id=5)) == KeyExhausted(1, 101, 5)


def test_limit_that_is_near_is_reported_with_key_id_and_kind() -> None:
    event = LimitNear(peer_at(("192.0.2.1", 1194)), key_id=5, limit=KeyLimit.FORGERIES)
    assert event_report(event) == KeyLimitNear(1, 101, 5, 3)


def test_expiry_is_reported() -> None:
    assert expiry_report(peer_at(("192.0.2.1", 1194))) == PeerExpired(1, 101)
