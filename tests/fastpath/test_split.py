"""The compiled splitting, against the readable one and against the packets that the sender would have built."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataplane.fastpath.split import split, split_into
from dataplane.tun.split import split as readable_split
from dataplane.tun.virtio import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER_SIZE,
    NEEDS_CSUM,
    PACKET_MAX,
    VirtioHeader,
)
from tests.tun.packets import ACK, CWR, ECE, FIN, PSH, TCP, UDP, Packet, packets, patched, words_of_options

PLACE = 2048
GSO_TYPES = {(TCP, 4): GSO_TCPV4, (TCP, 6): GSO_TCPV6, (UDP, 4): GSO_UDP_L4, (UDP, 6): GSO_UDP_L4}
KINDS = [Packet(version=version, protocol=protocol) for version in (4, 6) for protocol in (TCP, UDP)]


def virtio_of(packet: Packet, segment_size: int) -> VirtioHeader:
    """What the kernel would put before this packet."""
    return VirtioHeader(
        flags=NEEDS_CSUM,
        gso_type=GSO_TYPES[packet.protocol, packet.version],
        hdr_len=packet.header_size,
        gso_size=segment_size,
        csum_start=packet.transport,
        csum_offset=16 if packet.protocol == TCP else 6,
    )


def frame_of(packet: Packet, segment_size: int) -> bytes:
    return virtio_of(packet, segment_size).pack() + packet.pack()


def segments_of(packet: Packet, segment_size: int) -> list[bytes]:
    """The packets in which its sender would have sent it without offload."""
    starts = range(0, max(1, len(packet.payload)), segment_size)
    return [
        packet.with_(
            payload=packet.payload[start : start + segment_size],
            identification=(packet.identification + index) & 0xFFFF,
            sequence=(packet.sequence + start) & 0xFFFFFFFF,
            flags=packet.flags & ~((CWR if index else 0) | (0 if start == starts[-1] else FIN | PSH)),
        ).pack()
        for index, start in enumerate(starts)
    ]


EDGES = st.sampled_from([0, 1, 2, 3, 19, 20, 39, 40, 0x7FFF, 0xFFFE, 0xFFFF])
HEADER_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "flags": st.integers(0, 255),
        "gso_type": st.sampled_from([GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, 2, 3, 0x7F, GSO_ECN | GSO_TCPV4]),
        "hdr_len": EDGES,
        "gso_size": EDGES,
        "csum_start": EDGES | st.integers(0, 130),
        "csum_offset": EDGES | st.integers(0, 130),
    },
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Frames as the kernel gives them; then a few things about them are changed."""
    packet = draw(packets()).with_(
        payload=draw(st.binary(max_size=40)), ip_options=draw(st.just(b"") | words_of_options(10))
    )
    if packet.version == 6:
        packet = packet.with_(ip_options=b"")
    header = virtio_of(packet, draw(st.integers(1, 20)))._replace(**draw(st.just({}) | HEADER_CHANGES))
    data = packet.pack()
    for at, value in draw(st.lists(st.tuples(st.integers(0, 64), st.binary(min_size=1, max_size=2)), max_size=2)):
        data = patched(data, min(at, len(data) - len(value)), value)
    cut = draw(st.sampled_from([0, 0, 0, 1]) | st.integers(0, len(data)))
    return header.pack() + data[: len(data) - cut]


@given(frame=frames())
def test_frames_give_what_the_readable_splitting_gives(frame: bytes) -> None:
    assert split(frame) == readable_split(frame)


@given(frame=st.binary(max_size=120))
def test_any_bytes_give_what_the_readable_splitting_gives(frame: bytes) -> None:
    assert split(frame) == readable_split(frame)


@pytest.mark.parametrize("kind", KINDS)
def test_each_byte_of_the_headers_may_have_any_value(kind: Packet) -> None:
    frame = frame_of(kind.with_(payload=bytes(50)), 20)
    for at in range(HEADER_SIZE + kind.header_size):
        for value in range(256):
            changed = patched(frame, at, bytes([value]))
            assert split(changed) == readable_split(changed), (at, value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_may_end_anywhere(kind: Packet) -> None:
    frame = frame_of(kind.with_(payload=bytes(50)), 20)
    for size in range(len(frame)):
        assert split(frame[:size]) == readable_split(frame[:size]), size


@pytest.mark.parametrize("words", range(16))
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_an_ipv4_header_has_five_words_at_least(protocol: int, words: int) -> None:
    whole = Packet(protocol=protocol, ip_options=bytes(4 * max(words - 5, 0)), payload=bytes(range(90)))
    header = virtio_of(whole, 20)._replace(csum_start=4 * words).pack()
    frame = header + patched(whole.pack(), 0, bytes([0x40 | words]))
    assert (split(frame) is None) == (words < 5)
    assert split(frame) == readable_split(frame)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checksum_of_zero_is_written_as_0xffff(kind: Packet) -> None:
    checksum = kind.transport + (16 if kind.protocol == TCP else 6)
    packet = kind.with_(payload=bytes(2)).pack()
    # The payload takes what the checksum would have been.
    whole = kind.with_(payload=packet[checksum : checksum + 2])
    (segment,) = split(frame_of(whole, 20))
    assert segment[checksum : checksum + 2] == b"\xff\xff"
    assert [segment] == readable_split(frame_of(whole, 20))


@given(
    packet=packets(),
    options=words_of_options(10),
    payload=st.binary(max_size=60),
    segment_size=st.integers(1, 20) | st.just(0xFFFF),
)
def test_segments_are_what_the_sender_would_have_built(
    packet: Packet, options: bytes, payload: bytes, segment_size: int
) -> None:
    whole = packet.with_(payload=payload, ip_options=options if packet.version == 4 else b"")
    assert split(frame_of(whole, segment_size)) == segments_of(whole, segment_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("segment_size", [1000, 32_767, 65_535])
def test_the_longest_packet_is_split(kind: Packet, segment_size: int) -> None:
    whole = kind.with_(payload=bytes(range(251)) * 262)
    whole = whole.with_(payload=whole.payload[: PACKET_MAX - whole.header_size])
    assert len(whole.pack()) == PACKET_MAX
    assert split(frame_of(whole, segment_size)) == segments_of(whole, segment_size)


@pytest.mark.parametrize("gso_type", [GSO_NONE, GSO_TCPV4])
def test_a_longer_one_is_malformed(gso_type: int) -> None:
    frame = frame_of(Packet(payload=bytes(100)), 10).ljust(HEADER_SIZE + PACKET_MAX + 1, b"\0")
    frame = patched(frame, 1, bytes([gso_type]))
    assert split(frame) is None
    assert split(frame[:-1]) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_segment_may_hold_one_byte(kind: Packet) -> None:
    whole = kind.with_(payload=bytes(range(256)) * 8, sequence=0xFFFFFF00, identification=0xFF00)
    assert split(frame_of(whole, 1)) == segments_of(whole, 1)


def test_headers_may_have_their_full_length() -> None:
    whole = Packet(ip_options=bytes(range(40)), options=bytes(range(40, 80)), payload=bytes(1000))
    assert whole.header_size == 120
    assert split(frame_of(whole, 7)) == segments_of(whole, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_without_payload_is_one_packet(kind: Packet) -> None:
    assert split(frame_of(kind, 7)) == [kind.pack()]


def test_flags_stand_where_they_belong() -> None:
    whole = Packet(payload=bytes(30), flags=ACK | CWR | ECE | PSH | FIN)
    segments = split(frame_of(whole, 10))
    assert [segment[33] for segment in segments] == [ACK | CWR | ECE, ACK | ECE, ACK | ECE | PSH | FIN]


def test_an_empty_packet_without_offload_is_a_packet() -> None:
    assert split(bytes(HEADER_SIZE)) == [b""]


@given(packet=st.binary(max_size=100), start=st.integers(0, 110), offset=st.integers(0, 110))
@example(packet=bytes(2), start=0, offset=0)
@example(packet=b"\xff\xff", start=0, offset=0)
@example(packet=bytes(100), start=0xFFFF, offset=0xFFFF)
def test_a_checksum_is_completed_where_it_is_asked_for(packet: bytes, start: int, offset: int) -> None:
    frame = VirtioHeader(flags=NEEDS_CSUM, csum_start=start, csum_offset=offset).pack() + packet
    assert split(frame) == readable_split(frame)


def test_nothing_is_written_behind_a_packet() -> None:
    whole = Packet(payload=bytes(range(100)))
    segments = segments_of(whole, 30)
    room = bytearray(b"\xaa" * PLACE * len(segments))
    assert split_into(frame_of(whole, 30), room) == len(segments)
    assert room == b"".join(segment.ljust(PLACE, b"\xaa") for segment in segments)
