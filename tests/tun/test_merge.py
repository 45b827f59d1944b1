from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataplane.tun.merge import Frame, merge
from dataplane.tun.split import split
from dataplane.tun.virtio import HEADER_SIZE, PACKET_MAX, VirtioHeader
from tests.tun.packets import (
    ACK,
    CWR,
    ECE,
    FIN,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    URG,
    Packet,
    packets,
    patched,
    slow_checksum,
    traffic,
)

TCP4 = Packet(payload=bytes(8))
TCP6 = TCP4.with_(version=6)
UDP4 = TCP4.with_(protocol=UDP)
UDP6 = TCP6.with_(protocol=UDP)
KINDS = [TCP4, TCP6, UDP4, UDP6]


def next_of(packet: Packet) -> Packet:
    """The packet that goes on where this one ended."""
    return packet.with_(
        sequence=(packet.sequence + len(packet.payload)) & 0xFFFFFFFF,
        identification=(packet.identification + 1) & 0xFFFF,
    )


def stream(first: Packet, *sizes: int) -> list[Packet]:
    """Packets in a row with payloads of these sizes."""
    result = [first.with_(payload=bytes(sizes[0]))]
    for size in sizes[1:]:
        result.append(next_of(result[-1]).with_(payload=bytes(size)))
    return result


def merged(result: list[Packet]) -> list[tuple[int, ...]]:
    """Which packets share a frame."""
    return groups(merge([packet.pack() for packet in result], tcp=True, udp=True))


def groups(frames: list[Frame]) -> list[tuple[int, ...]]:
    return [frame.indexes for frame in frames]


def without_identification(packet: bytes) -> bytes:
    """With DF the identification means nothing; and the checksum of the header depends on it."""
    return packet[:4] + packet[6:10] + packet[12:] if packet[:1] == b"\x45" and packet[6:8] == b"\x40\0" else packet


# What holds for whatever comes


@given(traffic=traffic(), tcp=st.booleans(), udp=st.booleans())
def test_every_packet_is_in_one_frame_and_frames_are_in_order_of_their_first(
    traffic: list[bytes], tcp: bool, udp: bool
) -> None:
    indexes = groups(merge(traffic, tcp=tcp, udp=udp))
    assert sorted(index for group in indexes for index in group) == list(range(len(traffic)))
    assert all(list(group) == sorted(group) for group in indexes)
    assert [group[0] for group in indexes] == sorted(group[0] for group in indexes)


@given(traffic=traffic())
def test_splitting_gives_the_packets_back(traffic: list[bytes]) -> None:
    for frame in merge(traffic, tcp=True, udp=True):
        segments = split(frame.data)
        assert segments is not None
        originals = [traffic[index] for index in frame.indexes]
        assert list(map(without_identification, segments)) == list(map(without_identification, originals))


@given(traffic=traffic())
def test_packets_of_a_flow_keep_their_order(traffic: list[bytes]) -> None:
    flows: dict[bytes, list[int]] = {}
    for frame in merge(traffic, tcp=True, udp=True):
        for index in frame.indexes:
            packet = traffic[index]
            if len(packet) >= 48:
                ends = packet[9:10] + packet[12:24] if packet[0] == 0x45 else packet[6:7] + packet[8:44]
                flows.setdefault(packet[:1] + ends, []).append(index)
    assert all(indexes == sorted(indexes) for indexes in flows.values())


@given(packet=packets(), payload=st.binary(min_size=1, max_size=100), size=st.integers(1, 100))
@example(packet=Packet(flags=ACK | CWR | ECE | FIN | PSH), payload=bytes(100), size=30)
@example(packet=Packet(sequence=0xFFFFFFFF, identification=0xFFFF, options=bytes(40)), payload=bytes(9), size=1)
def test_merging_gives_back_what_was_split(packet: Packet, payload: bytes, size: int) -> None:
    size = max(size, -(-len(payload) // 64))
    packet = packet.with_(payload=payload, flags=packet.flags & ~(SYN | RST | URG) | ACK)
    lone = merge([packet.pack()], tcp=True, udp=True)[0].data
    offset = 16 if packet.protocol == TCP else 6
    kind = 5 if packet.protocol == UDP else 1 if packet.version == 4 else 4
    kind |= 0x80 if packet.protocol == TCP and packet.flags & CWR else 0
    header = VirtioHeader(1, kind, packet.header_size, size, packet.transport, offset)
    segments = split(header.pack() + lone[HEADER_SIZE:])
    assert segments is not None
    (frame,) = merge(segments, tcp=True, udp=True)
    if len(segments) == 1:
        assert frame.data == bytes(HEADER_SIZE) + packet.pack()
        return
    # All but the checksum, of which the kernel wants the part that the pseudo header adds.
    expected = packet.pack()
    part = len(expected) - packet.transport
    addresses = expected[12:20] if packet.version == 4 else expected[8:40]
    pseudo = slow_checksum(addresses + packet.protocol.to_bytes(2, "big") + part.to_bytes(2, "big")) ^ 0xFFFF
    field = packet.transport + offset
    assert frame.data == header.pack() + patched(expected, field, pseudo.to_bytes(2, "big"))


# What is joined


@pytest.mark.parametrize("kind", KINDS)
def test_packets_in_a_row_share_a_frame(kind: Packet) -> None:
    assert merged(stream(kind, 8, 8, 8, 3)) == [(0, 1, 2, 3)]


def test_flows_that_are_interleaved_are_told_apart() -> None:
    rows = [stream(kind.with_(ports=ports), 8, 8) for kind in KINDS for ports in ((7, 9), (7, 8), (6, 9))]
    interleaved = [row[number] for number in (0, 1) for row in rows]
    count = len(rows)
    assert merged(interleaved) == [(number, number + count) for number in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_packet_without_its_like_goes_as_it_came(kind: Packet) -> None:
    (frame,) = merge([kind.pack()], tcp=True, udp=True)
    assert frame.data == bytes(HEADER_SIZE) + kind.pack()


@pytest.mark.parametrize(("tcp", "udp"), [(False, False), (True, False), (False, True), (True, True)])
def test_only_what_the_device_can_take_is_joined(tcp: bool, udp: bool) -> None:
    row = [packet.pack() for packet in [*stream(TCP4, 8, 8), *stream(UDP6, 8, 8)]]
    expected = ([(0, 1)] if tcp else [(0,), (1,)]) + ([(2, 3)] if udp else [(2,), (3,)])
    assert groups(merge(row, tcp=tcp, udp=udp)) == expected


def test_numbers_wrap() -> None:
    assert merged(stream(TCP4.with_(sequence=0xFFFFFFFC, identification=0xFFFF), 8, 8)) == [(0, 1)]


def test_identification_means_nothing_with_df() -> None:
    first, second = stream(TCP4.with_(flags_and_offset=0x4000), 8, 8)
    assert merged([first, second.with_(identification=4711)]) == [(0, 1)]


@pytest.mark.parametrize("mark", [PSH, FIN, PSH | FIN])
def test_end_of_a_burst_is_the_end_of_its_frame(mark: int) -> None:
    first, second, third = stream(TCP4, 8, 8, 8)
    assert merged([first, second.with_(flags=ACK | mark), third]) == [(0, 1), (2,)]
    assert merged([first.with_(flags=ACK | mark), second, third]) == [(0,), (1, 2)]


def test_mark_of_congestion_begins_a_frame() -> None:
    first, second, third = stream(TCP4, 8, 8, 8)
    assert merged([first, second.with_(flags=ACK | CWR), third]) == [(0,), (1, 2)]


def test_shorter_packet_ends_a_frame_and_a_longer_one_begins_another() -> None:
    assert merged(stream(UDP4, 8, 4, 4, 8)) == [(0, 1), (2,), (3,)]


def test_frame_has_64_packets_at_most() -> None:
    assert merged(stream(TCP4, *[1] * 65)) == [tuple(range(64)), (64,)]


@pytest.mark.parametrize("kind", KINDS)
def test_frame_is_no_longer_than_a_packet_can_be(kind: Packet) -> None:
    space = PACKET_MAX - kind.header_size
    assert merged(stream(kind, 40000, space - 40000)) == [(0, 1)]
    assert merged(stream(kind, 40000, space - 40000 + 1)) == [(0,), (1,)]


def test_65th_flow_closes_the_others() -> None:
    flows = [UDP4.with_(ports=(port, 9)) for port in range(1, 66)]
    assert merged([*flows[:64], next_of(flows[0])])[0] == (0, 64)
    later = [*flows, next_of(flows[0]), next_of(flows[64])]
    assert merged(later) == [*((number,) for number in range(64)), (64, 66), (65,)]


# What is not

CHANGES: list[dict[str, object]] = [
    {"flags": ACK | SYN},
    {"flags": ACK | RST},
    {"flags": ACK | URG},
    {"flags": 0},
    {"flags": ACK | ECE},
    {"sequence": 9},
    {"acknowledgement": 1},
    {"reserved": 1},
    {"window": 1},
    {"urgent": 1},
    {"options": b"\1\1\1\0"},
    {"payload": b""},
    {"payload": bytes(9)},
    {"tos": 4},
    {"ttl": 63},
]
CHANGES_4: list[dict[str, object]] = [
    {"identification": 2},
    {"flags_and_offset": 0x4000},
    {"flags_and_offset": 0x2000},
    {"flags_and_offset": 0x8000},
    {"flags_and_offset": 1},
    {"ip_options": bytes(4)},
]


@pytest.mark.parametrize("change", CHANGES + CHANGES_4)
def test_ipv4_segment_that_differs_goes_alone(change: dict[str, object]) -> None:
    first, second = stream(TCP4, 8, 8)
    assert merged([first, second.with_(**change)]) == [(0,), (1,)]


@pytest.mark.parametrize("change", [*CHANGES, {"flow_label": 1}])
def test_ipv6_segment_that_differs_goes_alone(change: dict[str, object]) -> None:
    first, second = stream(TCP6, 8, 8)
    assert merged([first, second.with_(**change)]) == [(0,), (1,)]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_packet_goes_alone_and_closes_its_flow(kind: Packet) -> None:
    first, second, third = (packet.pack() for packet in stream(kind, 8, 8, 8))
    damaged = second[:-1] + b"\1"
    assert groups(merge([first, damaged, third], tcp=True, udp=True)) == [(0,), (1,), (2,)]


def test_wrong_checksum_of_the_ipv4_header_goes_alone() -> None:
    first, second = (packet.pack() for packet in stream(UDP4, 8, 8))
    assert groups(merge([first, patched(second, 10, b"\0\1")], tcp=True, udp=True)) == [(0,), (1,)]


@pytest.mark.parametrize("kind", [UDP4, UDP6])
def test_udp_without_a_checksum_goes_alone(kind: Packet) -> None:
    row = [patched(packet.pack(), packet.transport + 6, b"\0\0") for packet in stream(kind, 8, 8)]
    assert groups(merge(row, tcp=True, udp=True)) == [(0,), (1,)]


@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [
        (TCP4, 2, b"\0\x2f"),  # total length
        (TCP6, 4, b"\0\x1b"),  # payload length
        (TCP4, 0, b"\x55"),  # version
        (TCP4, 9, b"\1"),  # protocol
        (TCP6, 6, b"\0"),  # next header
        (TCP4, 32, b"\x40"),  # size of the TCP header
        (TCP4, 32, b"\xf0"),
        (UDP4, 24, b"\0\x0f"),  # UDP length
    ],
)
def test_packet_whose_headers_do_not_fit_goes_alone(kind: Packet, at: int, value: bytes) -> None:
    first, second = (packet.pack() for packet in stream(kind, 8, 8))
    assert groups(merge([first, patched(second, at, value)], tcp=True, udp=True)) == [(0,), (1,)]


@pytest.mark.parametrize("kind", KINDS)
def test_packet_cut_anywhere_goes_alone_as_it_is(kind: Packet) -> None:
    first, second = (packet.pack() for packet in stream(kind, 8, 8))
    for size in range(len(second)):
        frames = merge([first, second[:size]], tcp=True, udp=True)
        assert [frame.data[HEADER_SIZE:] for frame in frames] == [first, second[:size]]


def test_packet_that_overtook_another_closes_the_flow() -> None:
    first, second, third = stream(TCP4, 8, 8, 8)
    assert merged([first, third, second]) == [(0,), (1,), (2,)]


def test_other_flows_do_not_close_a_flow() -> None:
    row = stream(TCP4, 8, 8, 8)
    others = [TCP4.with_(ports=(1, 1), flags=SYN), TCP4.with_(protocol=1)]
    assert merged([row[0], others[0], row[1], others[1], row[2]]) == [(0, 2, 4), (1,), (3,)]
