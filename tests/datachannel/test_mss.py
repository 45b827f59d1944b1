from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.mss import MssLimits, clamped, limits_of
from dataplane.fastpath.mss import clamped as compiled_clamped
from dataplane.vocabulary import KeySlot, Mode
from tests.datachannel.conftest import Maker, Tunnel
from tests.tun.packets import ACK, SYN, UDP, Packet, slow_checksum

LIMITS = MssLimits(1300, 1280)
TIMESTAMPS = b"\x08\x0a" + bytes(8)


def mss(value: int) -> bytes:
    return b"\x02\x04" + value.to_bytes(2, "big")


def opening(version: int, options: bytes, flags: int = SYN) -> Packet:
    return Packet(version=version, flags=flags, options=options)


def is_intact(packet: bytes) -> bool:
    """Whether the checksum of a TCP packet without IPv4 options is right."""
    addresses, part = (packet[12:20], packet[20:]) if packet[0] >> 4 == 4 else (packet[8:40], packet[40:])
    return slow_checksum(addresses + b"\0\6" + len(part).to_bytes(2, "big") + part) == 0


@pytest.mark.parametrize("flags", [SYN, SYN | ACK])
@pytest.mark.parametrize(("version", "limit"), [(4, 1300), (6, 1280)])
def test_greater_option_is_lowered_in_what_opens_a_connection(
    make: Maker, version: int, limit: int, flags: int
) -> None:
    changed = make.implementation.clamped(opening(version, mss(1460), flags).pack(), LIMITS)
    assert changed == opening(version, mss(limit), flags).pack()


@pytest.mark.parametrize("value", [0, 536, 1280])
@pytest.mark.parametrize("version", [4, 6])
def test_option_is_not_raised(make: Maker, version: int, value: int) -> None:
    packet = opening(version, mss(value)).pack()
    assert make.implementation.clamped(packet, LIMITS) == packet


def test_option_is_not_added(make: Maker) -> None:
    packet = opening(4, TIMESTAMPS + b"\x01\x01").pack()
    assert make.implementation.clamped(packet, LIMITS) == packet


@pytest.mark.parametrize(
    "options",
    [
        b"\x01%b\x01\x01\x01",
        b"\x01\x01%b\x01\x01",
        TIMESTAMPS + b"\x01%b\x00",
        b"\x03\x03\x07%b\x00",
        b"\x04\x02\x01%b\x01" + TIMESTAMPS + b"\x03\x03\x07",
    ],
)
def test_option_is_found_wherever_it_stands(make: Maker, options: bytes) -> None:
    changed = make.implementation.clamped(opening(4, options % mss(0xABCD)).pack(), LIMITS)
    assert changed == opening(4, options % mss(1300)).pack()


def test_every_option_counts_for_a_host_may_heed_the_last(make: Maker) -> None:
    changed = make.implementation.clamped(opening(4, mss(1460) + mss(9000)).pack(), LIMITS)
    assert changed == opening(4, mss(1300) + mss(1300)).pack()


def test_ipv4_options_before_tcp_are_passed_over(make: Maker) -> None:
    packet = opening(4, mss(1460)).with_(ip_options=b"\x01" * 8)
    changed = make.implementation.clamped(packet.pack(), LIMITS)
    assert changed == packet.with_(options=mss(1300)).pack()


@pytest.mark.parametrize("extension", [0, 43, 60])
def test_ipv6_extension_headers_before_tcp_are_passed_over(make: Maker, extension: int) -> None:
    def behind_extensions(options: bytes) -> bytes:
        plain = opening(6, options).pack()
        return plain[:6] + bytes([extension]) + plain[7:40] + b"\x3c\0" + bytes(6) + b"\6\1" + bytes(14) + plain[40:]

    assert make.implementation.clamped(behind_extensions(mss(1460)), LIMITS) == behind_extensions(mss(1280))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        opening(4, mss(1460), ACK).pack(),
        opening(4, mss(1460)).with_(flags_and_offset=3).pack(),
        Packet(protocol=UDP, payload=bytes(30)).pack(),
        Packet(version=6, protocol=UDP, payload=bytes(30)).pack(),
        opening(4, mss(1460)).pack()[:-1],
        opening(4, mss(1460)).pack()[:33],
        opening(6, mss(1460)).pack()[:-1],
        opening(6, mss(1460)).pack()[:6] + b"\0" + opening(6, mss(1460)).pack()[7:40],
        opening(4, b"\x00\x00\x00\x00" + mss(1460)).pack(),
        opening(4, b"\x08\x00\x00\x00" + mss(1460)).pack(),
        opening(4, b"\x08\x01\x01\x01" + mss(1460)).pack(),
        opening(4, b"\x08\x09\x01\x01" + mss(1460)).pack(),
        opening(4, b"\x02\x03\x01\x02\x05\x05\x05\x05").pack(),
        opening(4, b"\x01\x01\x02\x04").pack(),
    ],
)
def test_what_opens_nothing_or_is_not_whole_stays_as_it_is(make: Maker, packet: bytes) -> None:
    assert make.implementation.clamped(packet, MssLimits(88, 88)) == packet


@pytest.mark.parametrize(("version", "limits"), [(4, MssLimits(0, 88)), (6, MssLimits(88, 0)), (4, MssLimits())])
def test_limit_of_zero_is_none(make: Maker, version: int, limits: MssLimits) -> None:
    packet = opening(version, mss(1460)).pack()
    assert make.implementation.clamped(packet, limits) == packet


@given(
    version=st.sampled_from([4, 6]),
    before=st.integers(0, 8),
    value=st.integers(0, 0xFFFF),
    limit=st.integers(1, 0xFFFF),
    sequence=st.integers(0, 0xFFFFFFFF),
)
def test_checksum_stays_right(make: Maker, version: int, before: int, value: int, limit: int, sequence: int) -> None:
    options = b"\x01" * before + mss(value)
    packet = opening(version, options + bytes(-len(options) % 4)).with_(sequence=sequence)
    changed = make.implementation.clamped(packet.pack(), MssLimits(limit, limit))
    assert is_intact(changed)
    at = packet.transport + 20 + before
    assert changed[at : at + 4] == mss(min(value, limit))


def test_wrong_checksum_stays_wrong(make: Maker) -> None:
    packet = bytearray(opening(4, mss(1460)).pack())
    packet[25] ^= 1
    assert not is_intact(make.implementation.clamped(bytes(packet), LIMITS))


HEADS = st.sampled_from(
    [
        opening(4, b"").pack()[:32] + b"\xf0\x02" + bytes(6),
        opening(6, b"").pack()[:52] + b"\xf0\x02" + bytes(6),
        opening(6, b"").pack()[:6] + b"\0" + opening(6, b"").pack()[7:40],
        b"",
    ]
)
OPTIONS = st.lists(st.sampled_from([mss(9000), b"\x01", b"\x00", b"\x02", b"\x04", b"\x03\x03\x07", TIMESTAMPS]))


@given(
    head=HEADS, options=OPTIONS, rest=st.binary(max_size=80), limits=st.builds(MssLimits, *[st.integers(0, 2000)] * 2)
)
def test_both_implementations_make_the_same_of_any_bytes(
    head: bytes, options: list[bytes], rest: bytes, limits: MssLimits
) -> None:
    packet = head + b"".join(options) + rest
    assert compiled_clamped(packet, limits) == clamped(packet, limits)


def test_own_limit_overrides_that_of_the_device() -> None:
    assert limits_of((None, None), LIMITS) == LIMITS
    assert limits_of((0, 900), LIMITS) == (0, 900)
    assert limits_of((1400, None), LIMITS) == (1400, 1280)


# In the data channel


def lowered_to(tunnel: Tunnel, version: int = 4) -> tuple[int, int]:
    """What an option of 1460 becomes on its way to the peer and on its way from it."""
    packet = opening(version, mss(1460)).pack()
    (sent,) = tunnel.send(packet)
    _, _, outbound = tunnel.far.open(sent)
    (inbound,) = tunnel.receive(tunnel.far.seal(packet))
    return int.from_bytes(outbound[-2:], "big"), int.from_bytes(inbound[-2:], "big")


@pytest.fixture
def p2p(make: Maker) -> Tunnel:
    return make.tunnel(Mode.P2P)


def test_without_limits_options_pass_as_they_are(p2p: Tunnel) -> None:
    assert lowered_to(p2p) == (1460, 1460)


@pytest.mark.parametrize(("version", "limit"), [(4, 1300), (6, 1280)])
def test_limit_of_the_device_holds_both_ways_and_at_once(p2p: Tunnel, version: int, limit: int) -> None:
    p2p.channel.set_device_mss(LIMITS)
    assert lowered_to(p2p, version) == (limit, limit)
    p2p.channel.set_device_mss(MssLimits())
    assert lowered_to(p2p, version) == (1460, 1460)


def test_limit_of_the_peer_goes_first_until_it_has_none(p2p: Tunnel) -> None:
    p2p.channel.set_mss(1, (1200, 0))
    p2p.channel.set_device_mss(LIMITS)
    assert lowered_to(p2p, 4) == (1200, 1200)
    assert lowered_to(p2p, 6) == (1460, 1460)
    assert p2p.channel.peer(1).own_mss == (1200, 0)
    p2p.channel.set_mss(1, (None, None))
    assert lowered_to(p2p, 4) == (1300, 1300)


def test_limit_of_the_device_holds_for_later_peers(make: Maker) -> None:
    tunnel = make.tunnel(Mode.P2P)
    tunnel.channel.remove_peer(1)
    tunnel.channel.set_device_mss(LIMITS)
    tunnel.add_peer(1)
    tunnel.install(1, KeySlot.PRIMARY, key_id=0)
    assert lowered_to(tunnel) == (1300, 1300)
