"""The compiled merging, against the readable one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataplane.fastpath.merge import PacketMerger
from dataplane.fastpath.split import split
from dataplane.tun.merge import OPEN_RUNS_MAX, RUN_PACKETS_MAX
from dataplane.tun.merge import merge as readable_merge
from dataplane.tun.virtio import HEADER_SIZE, PACKET_MAX
from tests.tun.packets import ACK, CWR, ECE, FIN, ODDITIES, PSH, RST, SYN, TCP, UDP, URG, Packet, patched, traffic

MERGE_PACKETS = 1024
DF = 0x4000
RESERVED = 0x8000
KINDS = [Packet(version=version, protocol=protocol) for version in (4, 6) for protocol in (TCP, UDP)]

Merged = list[tuple[bytes, int, int, int]]
"""Of each frame: its bytes, its first packet, how many there are and the sum of their sizes."""


def merge(packets: list[bytes], *, tcp: bool = True, udp: bool = True, virtio_header: bool = True) -> Merged:
    """What a new Merger makes of them."""
    return merge_with(PacketMerger(tcp=tcp, udp=udp, virtio_header=virtio_header), packets)


def merge_with(merger: PacketMerger, packets: list[bytes]) -> Merged:
    copies = [bytearray(packet) for packet in packets]
    merger.merge(copies)
    frames: Merged = merger.frames()
    return frames


def readable(packets: list[bytes], *, tcp: bool = True, udp: bool = True) -> Merged:
    """What it should be."""
    return [
        (frame.data, frame.indexes[0], len(frame.indexes), sum(len(packets[index]) for index in frame.indexes))
        for frame in readable_merge(packets, tcp=tcp, udp=udp)
    ]


def counts(frames: Merged) -> list[int]:
    """How many packets are in each."""
    return [count for _, _, count, _ in frames]


def train(first: Packet, sizes: list[int]) -> list[Packet]:
    """Packets that follow each other, with payloads of these sizes."""
    result = []
    for number, size in enumerate(sizes):
        result.append(first.with_(payload=bytes([number & 0xFF]) * size))
        first = first.with_(
            sequence=(first.sequence + size) & 0xFFFFFFFF, identification=(first.identification + 1) & 0xFFFF
        )
    return result


def packed(packets: list[Packet]) -> list[bytes]:
    return [packet.pack() for packet in packets]


@st.composite
def trains(draw: st.DrawFn) -> list[Packet]:
    """Segments of one flow, in order, as a sender with offload makes them; one may be unlike the others."""
    first = draw(st.sampled_from(KINDS)).with_(
        ports=(draw(st.integers(1, 3)), 9),
        flags_and_offset=draw(st.sampled_from([0, 0, DF, RESERVED])),
        sequence=draw(st.sampled_from([0, 0xFFFFFFFF, 0xFFFFFFF0])),
        identification=draw(st.sampled_from([0, 0xFFFF, 0xFFF0])),
        flags=draw(st.sampled_from([ACK] * 4 + [ACK | flag for flag in (ECE, CWR, PSH, FIN, SYN, RST, URG)] + [0])),
        options=bytes(draw(st.sampled_from([0, 0, 12, 40]))),
    )
    size = draw(st.sampled_from([1, 2, 9]))
    tail = draw(st.sampled_from([size, size, 1, size + 1]))
    result = train(first, [size] * draw(st.sampled_from([1, 2, 3, 8, 64, 66])) + [tail])
    if first.flags & CWR:
        result = [result[0], *(packet.with_(flags=ACK) for packet in result[1:])]
    which = draw(st.integers(0, len(result) - 1))
    flags = st.sampled_from([ACK | flag for flag in (PSH, FIN, PSH | FIN, CWR, ECE, SYN, URG)])
    odd = draw(st.just({}) | st.sampled_from(ODDITIES) | st.fixed_dictionaries({"flags": flags}))
    return [*result[:which], result[which].with_(**odd), *result[which + 1 :]]


@st.composite
def batches(draw: st.DrawFn) -> list[bytes]:
    """Trains woven into each other; then a few packets are moved, lost, doubled, damaged or cut."""
    woven: list[bytes] = []
    for one in draw(st.lists(trains(), min_size=1, max_size=4)):
        every = draw(st.integers(1, 3))
        for number, packet in enumerate(packed(one)):
            woven.insert(min(number * every, len(woven)), packet)
    for change in draw(st.lists(st.sampled_from(["move", "lose", "double", "flip", "cut", "garbage"]), max_size=3)):
        at = draw(st.integers(0, len(woven) - 1))
        packet = woven[at]
        if change == "move":
            woven.insert(draw(st.integers(0, len(woven) - 1)), woven.pop(at))
        elif change == "lose" and len(woven) > 1:
            del woven[at]
        elif change == "double":
            woven.insert(at, packet)
        elif change == "flip" and packet:
            byte = draw(st.integers(0, len(packet) - 1))
            woven[at] = patched(packet, byte, bytes([packet[byte] ^ 1 << draw(st.integers(0, 7))]))
        elif change == "cut":
            woven[at] = packet[: draw(st.integers(0, len(packet)))]
        elif change == "garbage":
            woven[at] = draw(st.binary(max_size=80))
    return woven


@given(packets=batches() | traffic())
def test_packets_become_the_frames_that_the_readable_merging_makes(packets: list[bytes]) -> None:
    assert merge(packets) == readable(packets)


@given(packets=batches() | traffic(), tcp=st.booleans(), udp=st.booleans())
def test_only_what_is_allowed_is_merged(packets: list[bytes], tcp: bool, udp: bool) -> None:
    assert merge(packets, tcp=tcp, udp=udp) == readable(packets, tcp=tcp, udp=udp)


@given(packets=batches() | traffic())
def test_without_virtio_header_packets_stay_as_they_are(packets: list[bytes]) -> None:
    frames = merge(packets, virtio_header=False)
    assert frames == [(packet, index, 1, len(packet)) for index, packet in enumerate(packets)]


@given(packets=st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_become_the_frames_that_the_readable_merging_makes(packets: list[bytes]) -> None:
    assert merge(packets) == readable(packets)


@given(many=st.lists(batches(), min_size=2, max_size=4))
def test_a_merger_knows_nothing_of_the_batch_before(many: list[list[bytes]]) -> None:
    merger = PacketMerger(tcp=True, udp=True)
    for packets in many:
        assert merge_with(merger, packets) == readable(packets)


@given(packets=batches())
def test_frames_split_into_the_packets_they_were_made_of(packets: list[bytes]) -> None:
    for frame, first, count, _ in merge(packets):
        segments = split(frame)
        assert len(segments) == count
        if count == 1:
            assert segments == [packets[first]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_run_splits_into_its_packets(kind: Packet) -> None:
    packets = packed(train(kind.with_(sequence=0xFFFFFC00, identification=0xFFF0), [100] * 40 + [7]))
    ((frame, first, count, size),) = merge(packets)
    assert split(frame) == packets
    assert (first, count, size) == (0, 41, sum(map(len, packets)))


@given(
    flows=st.integers(OPEN_RUNS_MAX - 1, OPEN_RUNS_MAX + 3),
    rounds=st.integers(2, 3),
    odd=st.dictionaries(st.integers(0, 3 * OPEN_RUNS_MAX), st.sampled_from(["damaged", "last", "other"]), max_size=6),
)
@example(flows=65, rounds=2, odd={0: "damaged"})
@example(flows=65, rounds=2, odd={64: "damaged"})
@example(flows=65, rounds=2, odd={64: "last"})
@example(flows=66, rounds=3, odd={0: "damaged", 1: "last", 2: "other"})
def test_so_many_flows_are_followed_as_the_readable_merging_follows(
    flows: int, rounds: int, odd: dict[int, str]
) -> None:
    """A packet whose checksum is wrong begins no run, which counts when there are nearly too many."""
    packets = []
    for number in range(flows * rounds):
        flow = Packet(
            protocol=(TCP, UDP)[number % flows % 2], ports=(number % flows, 9), identification=number // flows
        )
        packet = flow.with_(payload=bytes(4), sequence=number // flows * 4)
        if odd.get(number) == "last":
            packet = packet.with_(flags=ACK | PSH)
        elif odd.get(number) == "other":
            packet = packet.with_(flags=ACK | SYN)
        data = packet.pack()
        packets.append(patched(data, len(data) - 1, b"\x01") if odd.get(number) == "damaged" else data)
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", ODDITIES, ids=str)
def test_a_difference_in_the_headers_matters_as_in_the_readable_merging(kind: Packet, odd: dict[str, object]) -> None:
    first, second, *others = train(kind, [8] * 4)
    packets = packed([first, second.with_(**odd), *others])
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("kind", KINDS)
def test_flows_that_collide_are_kept_apart(kind: Packet) -> None:
    """What one address has more, the other has less: to all sums, checksums among them, that is the same."""
    source, destination = (12, 16) if kind.version == 4 else (8, 24)
    packets = []
    for packet in packed(train(kind, [10] * 3)):
        word = int.from_bytes(packet[source : source + 2], "big")
        for number in range(OPEN_RUNS_MAX):
            more, less = (value.to_bytes(2, "big") for value in (word + number, word - number))
            packets.append(patched(patched(packet, source, more), destination, less))
    assert counts(merge(packets)) == [3] * OPEN_RUNS_MAX
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_with_so_many_packets(kind: Packet) -> None:
    packets = packed(train(kind, [1] * (RUN_PACKETS_MAX * 2 + 1)))
    assert counts(merge(packets)) == [RUN_PACKETS_MAX, RUN_PACKETS_MAX, 1]
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("surplus", [0, 1])
def test_a_run_is_no_longer_than_an_ip_packet(kind: Packet, surplus: int) -> None:
    room = PACKET_MAX - kind.header_size
    packets = packed(train(kind, [10_000] * (room // 10_000) + [room % 10_000 + surplus]))
    assert counts(merge(packets)) == ([7] if surplus == 0 else [6, 1])
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_packets_pass_as_they_are(kind: Packet) -> None:
    packets = packed(train(kind, [PACKET_MAX - kind.header_size] * 2))
    assert [frame for frame, *_ in merge(packets)] == [bytes(HEADER_SIZE) + packet for packet in packets]


@pytest.mark.parametrize("kind", KINDS)
def test_packets_without_payload_pass_as_they_are(kind: Packet) -> None:
    packets = packed(train(kind, [8, 8, 0, 8, 8]))
    assert counts(merge(packets)) == [2, 1, 2]
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("version", [4, 6])
def test_headers_may_have_their_full_length(version: int) -> None:
    packets = packed(train(Packet(version=version, options=bytes(range(40))), [5] * 10))
    assert counts(merge(packets)) == [10]
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("words", range(16))
def test_a_tcp_header_has_five_words_at_least_and_payload_behind_it(version: int, words: int) -> None:
    first = Packet(version=version, payload=bytes(40))
    packets: list[bytes] = []
    for sequence in (0, 60 - 4 * words):
        # The urgent pointer makes up for the header size, so that the checksum stays right.
        urgent = -(words - 5 << 12) % 0xFFFF
        packet = first.with_(sequence=sequence, identification=len(packets)).pack()
        packet = patched(packet, first.transport + 18, urgent.to_bytes(2, "big"))
        packets.append(patched(packet, first.transport + 12, bytes([words << 4])))
    assert counts(merge(packets)) == ([2] if 5 <= words < 15 else [1, 1])
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_a_damaged_packet_costs_only_itself(kind: Packet, which: int) -> None:
    packets = packed(train(kind, [8] * 4))
    packets[which] = patched(packets[which], len(packets[which]) - 1, b"\xff")
    frames = merge(packets)
    assert frames == readable(packets)
    assert bytes(HEADER_SIZE) + packets[which] in [frame for frame, *_ in frames]
    assert sorted(counts(frames)) == [[1, 3], [1, 1, 2]][which in (1, 2)]


@pytest.mark.parametrize(("kind", "frames"), [(KINDS[0], [2]), (KINDS[1], [1, 1])], ids=["TCP", "UDP"])
def test_a_checksum_of_zero_can_be_written_in_two_ways_but_in_udp_means_none(kind: Packet, frames: list[int]) -> None:
    """In ones' complement 0xffff is 0 as well."""
    checksum, payload = kind.transport + (16 if kind.protocol == TCP else 6), kind.header_size
    packets = []
    for packet, zero in zip(packed(train(kind, [2] * 2)), (b"\xff\xff", b"\0\0"), strict=True):
        # The payload takes what the checksum would have been.
        total = sum(int.from_bytes(packet[at : at + 2], "big") for at in (checksum, payload))
        packets.append(patched(patched(packet, payload, (total % 0xFFFF).to_bytes(2, "big")), checksum, zero))
    assert counts(merge(packets)) == frames
    assert merge(packets) == readable(packets)


@pytest.mark.parametrize("kind", KINDS)
def test_packets_may_end_anywhere_in_their_headers(kind: Packet) -> None:
    """Also where the IP header says that this is all."""
    whole = kind.with_(options=bytes(40), payload=b"a").pack()
    length = 2 if kind.version == 4 else 4
    for size in range(len(whole)):
        said = max(size - (0 if kind.version == 4 else 40), 0).to_bytes(2, "big")
        short = patched(whole, length, said)[:size]
        assert merge([short, short]) == readable([short, short])


def test_a_full_merger_takes_no_more() -> None:
    packets = packed(train(Packet(), [1] * MERGE_PACKETS))
    frames = merge(packets)
    assert counts(frames) == [RUN_PACKETS_MAX] * (MERGE_PACKETS // RUN_PACKETS_MAX)
    assert all(after - before == RUN_PACKETS_MAX for (_, before, *_), (_, after, *_) in pairwise(frames))
    with pytest.raises(ValueError, match="full"):
        merge([*packets, packets[0]])


def test_a_full_merger_holds_as_many_frames() -> None:
    packets = [b""] * MERGE_PACKETS
    assert counts(merge(packets)) == [1] * MERGE_PACKETS
