from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.datachannel.wire import DATAGRAM_MAX
from dataplane.fastpath.tcp_framing import Queue, packets_in
from dataplane.transport.tcp_framing import PACKET_MAX, PACKET_MIN, QUEUE_BYTES, FrameCutter, FrameQueue, frame_of

PACKETS = st.lists(st.binary(min_size=PACKET_MIN, max_size=50), max_size=8)
STREAMS = st.one_of(
    st.binary(max_size=100),
    st.builds(lambda packets, rest: b"".join(map(frame_of, packets)) + rest, PACKETS, st.binary(max_size=60)),
)
DATA, CONTROL, IN_ORDER = b"data", b"ctrl", b"ordr"


def test_longest_packet_is_the_data_channels() -> None:
    assert PACKET_MAX == DATAGRAM_MAX


@given(PACKETS, st.data())
def test_packets_come_out_whole_however_the_stream_is_split(packets: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame_of, packets))
    cuts = data.draw(st.lists(st.integers(0, len(stream))))
    cutter = FrameCutter()
    places = [0, *sorted(cuts), len(stream)]
    assert [packet for start, end in pairwise(places) for packet in cutter.feed(stream[start:end])] == packets
    assert not cutter.is_broken


@pytest.mark.parametrize("size", [0, PACKET_MIN - 1, PACKET_MAX + 1, 0xFFFF])
def test_length_of_no_packet_breaks_the_stream_for_good(size: int) -> None:
    cutter = FrameCutter()
    assert cutter.feed(frame_of(b"good") + size.to_bytes(2, "big") + frame_of(b"behind")) == [b"good"]
    assert cutter.is_broken
    assert cutter.feed(frame_of(b"more")) == []


@pytest.mark.parametrize("size", [PACKET_MIN, PACKET_MAX])
def test_shortest_and_longest_packet_are_taken(size: int) -> None:
    assert FrameCutter().feed(frame_of(bytes(size))) == [bytes(size)]
    assert packets_in(frame_of(bytes(size))) == ([bytes(size)], size + 2, False)


@given(STREAMS)
def test_compiled_cutter_finds_the_same_packets(stream: bytes) -> None:
    cutter = FrameCutter()
    expected = cutter.feed(stream)
    packets, _, is_broken = packets_in(stream)
    assert (packets, is_broken) == (expected, cutter.is_broken)


Step = tuple[bytes, int] | int
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([DATA, CONTROL, IN_ORDER]), st.integers(PACKET_MIN, 60)),
        st.integers(0, 200),
    ),
    max_size=40,
)
"""A packet of this source and size is added, or the stream takes so many bytes, if there are so many."""


def numbered(source: bytes, number: int, size: int) -> bytes:
    return source + number.to_bytes(4, "big") + bytes(size)


def add(queue: FrameQueue | Queue, packet: bytes) -> None:
    """Adds a packet as its source wants."""
    if packet[:4] == DATA:
        queue.add_data(packet)
    else:
        queue.add_control(packet, in_order=packet[:4] == IN_ORDER)


def streams_of(queues: list[FrameQueue | Queue], steps: list[Step]) -> tuple[list[bytes], list[bytes]]:
    """What each queue gave, and the packets that were added."""
    streams = [b""] * len(queues)
    added = []
    for number, step in enumerate([*steps, 1 << 20]):
        if isinstance(step, tuple):
            packet = numbered(step[0], number, step[1])
            added.append(packet)
        for index, queue in enumerate(queues):
            if isinstance(step, tuple):
                add(queue, packet)
                continue
            waiting = b"".join(queue.pieces())
            queue.took(min(step, len(waiting)))
            streams[index] += waiting[:step]
    return streams, added


@given(STEPS)
def test_no_frame_is_torn_and_each_source_keeps_its_order(steps: list[Step]) -> None:
    queue = FrameQueue()
    (stream,), added = streams_of([queue], steps)
    cutter = FrameCutter()
    packets = cutter.feed(stream)
    assert queue.is_empty
    assert not cutter.is_broken
    for sources in ({DATA}, {CONTROL, IN_ORDER}, {DATA, IN_ORDER}):
        assert [packet for packet in packets if packet[:4] in sources] == [
            packet for packet in added if packet[:4] in sources
        ]


@given(STEPS)
def test_compiled_queue_gives_the_same_stream(steps: list[Step]) -> None:
    (expected, stream), _ = streams_of([FrameQueue(), Queue()], steps)
    assert stream == expected


@pytest.mark.parametrize("kind", [FrameQueue, Queue])
def test_control_packet_waits_for_the_frame_that_was_begun_and_for_no_other(kind: type[FrameQueue | Queue]) -> None:
    queue = kind()
    for _ in range(3):
        queue.add_data(DATA)
    queue.took(1)
    queue.add_control(CONTROL)
    assert b"".join(queue.pieces()) == frame_of(DATA)[1:] + frame_of(CONTROL) + 2 * frame_of(DATA)


@pytest.mark.parametrize("kind", [FrameQueue, Queue])
def test_control_packet_in_order_stays_behind_data_and_those_that_follow_behind_it(
    kind: type[FrameQueue | Queue],
) -> None:
    queue = kind()
    for packet in (DATA, CONTROL, IN_ORDER, DATA, CONTROL, DATA):
        add(queue, packet)
    expected = [CONTROL, DATA, IN_ORDER, DATA, CONTROL, DATA]
    assert b"".join(queue.pieces()) == b"".join(map(frame_of, expected))


@pytest.mark.parametrize("kind", [FrameQueue, Queue])
def test_control_packets_overtake_again_when_the_one_in_order_is_gone(kind: type[FrameQueue | Queue]) -> None:
    queue = kind()
    for packet in (DATA, IN_ORDER, DATA):
        add(queue, packet)
    queue.took(len(frame_of(DATA)) + 1)
    add(queue, CONTROL)
    expected = frame_of(IN_ORDER)[1:] + frame_of(CONTROL) + frame_of(DATA)
    assert b"".join(queue.pieces()) == expected


@pytest.mark.parametrize("kind", [FrameQueue, Queue])
def test_queue_admits_so_many_bytes_and_no_more(kind: type[FrameQueue | Queue]) -> None:
    queue = kind()
    size = 2 + 1022
    for _ in range(QUEUE_BYTES // size):
        assert queue.admits(size)
        queue.add_data(bytes(1022))
    assert not queue.admits(1)
    queue.took(size)
    assert queue.admits(size)
    assert not queue.admits(size + 1)


def test_memory_of_a_full_queue_is_bounded_and_given_back() -> None:
    queue = Queue()
    for _ in range(10_000):
        while queue.admits(1402):
            queue.add_data(bytes(1400))
        queue.took(5000)
    assert queue.capacity() < 3 * QUEUE_BYTES
    queue.took(sum(map(len, queue.pieces())))
    assert queue.is_empty
    assert queue.capacity() == 0
