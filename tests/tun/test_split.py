"""Frames are made by hand, so are the packets that must come out."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataplane.tun.split import split
from dataplane.tun.virtio import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER_SIZE,
    NEEDS_CSUM,
    PACKET_MAX,
    VirtioHeader,
)
from tests.tun.packets import ACK, CWR, FIN, PSH, TCP, UDP, Packet, packets, patched, slow_checksum, words_of_options

PLAIN = VirtioHeader().pack()


def header_for(packet: Packet, gso_size: int) -> VirtioHeader:
    kind = GSO_UDP_L4 if packet.protocol == UDP else GSO_TCPV4 if packet.version == 4 else GSO_TCPV6
    return VirtioHeader(NEEDS_CSUM, kind, 0, gso_size, packet.transport, 16 if packet.protocol == TCP else 6)


def super_frame(packet: Packet, gso_size: int) -> bytes:
    """A frame whose lengths and checksums are as meaningless as they may be."""
    data = packet.pack()
    data = patched(data, 10, b"\xab\xcd") if packet.version == 4 else data
    data = patched(data, 2 if packet.version == 4 else 4, b"\x00\x07")
    return header_for(packet, gso_size).pack() + data


def pieces_of(packet: Packet, size: int) -> list[Packet]:
    """The packets that a frame stands for."""
    payloads = [packet.payload[at : at + size] for at in range(0, len(packet.payload), size)] or [b""]
    last = len(payloads) - 1
    return [
        packet.with_(
            payload=payload,
            identification=(packet.identification + index) & 0xFFFF,
            sequence=(packet.sequence + index * size) & 0xFFFFFFFF,
            flags=packet.flags & ~(0 if index == last else FIN | PSH) & ~(0 if index == 0 else CWR),
        )
        for index, payload in enumerate(payloads)
    ]


# Whole packets


@pytest.mark.parametrize("packet", [b"", b"no IP", Packet(payload=b"hello").pack(), bytes(PACKET_MAX)])
def test_plain_packet_comes_as_it_is(packet: bytes) -> None:
    assert split(PLAIN + packet) == [packet]


@given(packet=packets(), payload=st.binary(max_size=50), ip_options=words_of_options(10))
def test_partial_checksum_is_completed(packet: Packet, payload: bytes, ip_options: bytes) -> None:
    packet = packet.with_(payload=payload, ip_options=ip_options)
    whole = packet.pack()
    header = header_for(packet, 0)._replace(gso_type=0)
    addresses = whole[12:20] if packet.version == 4 else whole[8:40]
    numbers = packet.protocol.to_bytes(2, "big") + (len(whole) - packet.transport).to_bytes(2, "big")
    pseudo_sum = slow_checksum(addresses + numbers) ^ 0xFFFF
    partial = patched(whole, packet.transport + header.csum_offset, pseudo_sum.to_bytes(2, "big"))
    assert split(header.pack() + partial) == [whole]


def test_completed_checksum_is_never_0() -> None:
    header = VirtioHeader(NEEDS_CSUM, csum_start=1, csum_offset=0)
    assert split(header.pack() + b"\0\xff\xff") == [b"\0\xff\xff"]


@pytest.mark.parametrize(("csum_start", "csum_offset"), [(0, 9), (9, 0), (10, 0), (11, 0), (0xFFFF, 0xFFFF)])
def test_partial_checksum_beyond_the_packet_is_malformed(csum_start: int, csum_offset: int) -> None:
    header = VirtioHeader(NEEDS_CSUM, csum_start=csum_start, csum_offset=csum_offset)
    assert split(header.pack() + bytes(10)) is None


def test_partial_checksum_in_the_last_two_bytes_is_completed() -> None:
    header = VirtioHeader(NEEDS_CSUM, csum_start=8, csum_offset=0)
    assert split(header.pack() + bytes(8) + b"\x12\x34") == [bytes(8) + b"\xed\xcb"]


# Segments


@given(
    packet=packets(),
    payload=st.binary(max_size=100),
    gso_size=st.integers(1, 40) | st.just(0xFFFF),
    ip_options=words_of_options(10),
)
@example(packet=Packet(flags=CWR | FIN | PSH | ACK), payload=bytes(9), gso_size=3, ip_options=b"")
@example(packet=Packet(sequence=0xFFFFFFFF, identification=0xFFFF), payload=bytes(3), gso_size=1, ip_options=b"")
def test_segments_are_the_packets_that_the_frame_stands_for(
    packet: Packet, payload: bytes, gso_size: int, ip_options: bytes
) -> None:
    packet = packet.with_(payload=payload, ip_options=ip_options)
    expected = [piece.pack() for piece in pieces_of(packet, gso_size)]
    assert split(super_frame(packet, gso_size)) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("gso_size", [1, 1400])
def test_longest_packet_is_split_whole(version: int, protocol: int, gso_size: int) -> None:
    packet = Packet(version=version, protocol=protocol, options=bytes(40), identification=0xFFF0, sequence=0xFFFFFFF0)
    packet = packet.with_(payload=bytes(PACKET_MAX - packet.header_size))
    segments = split(super_frame(packet, gso_size))
    assert segments is not None
    assert len(segments) == -(-len(packet.payload) // gso_size)
    assert b"".join(segment[packet.header_size :] for segment in segments) == packet.payload
    assert segments[-1] == pieces_of(packet, gso_size)[-1].pack()


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_frame_without_payload_is_one_packet(protocol: int) -> None:
    packet = Packet(protocol=protocol)
    assert split(super_frame(packet, 1400)) == [packet.pack()]


def test_mark_of_congestion_and_missing_flag_of_the_checksum_change_nothing() -> None:
    packet = Packet(payload=bytes(20), flags=ACK | CWR)
    header = header_for(packet, 8)
    marked = header._replace(flags=0, gso_type=header.gso_type | GSO_ECN)
    assert split(marked.pack() + packet.pack()) == split(header.pack() + packet.pack())


def test_ipv6_extension_headers_are_kept_in_each_segment() -> None:
    plain = Packet(version=6, payload=bytes(range(16)))
    extension = bytes([TCP, 0, 1, 4, 0, 0, 0, 0])  # hop-by-hop options: padding only
    data = patched(plain.pack(), 6, b"\0")
    data = data[:40] + extension + data[40:]
    segments = split(header_for(plain, 8)._replace(csum_start=48).pack() + data)
    assert segments is not None
    assert [segment[40:48] for segment in segments] == [extension] * 2
    assert [int.from_bytes(segment[4:6], "big") for segment in segments] == [8 + 20 + 8] * 2
    assert [segment[48:] for segment in segments] == [piece.pack()[40:] for piece in pieces_of(plain, 8)]


# Headers that do not fit

TCP4 = Packet(payload=bytes(20))
TCP6 = TCP4.with_(version=6)
UDP4 = TCP4.with_(protocol=UDP)


@pytest.mark.parametrize(
    ("packet", "changes"),
    [
        (TCP4, {"gso_type": 2}),
        (TCP4, {"gso_type": 3}),
        (TCP4, {"gso_type": 0x7F}),
        (TCP4, {"gso_type": GSO_TCPV6}),
        (TCP6, {"gso_type": GSO_TCPV4}),
        (TCP4, {"gso_size": 0}),
        (TCP4, {"csum_offset": 6}),
        (UDP4, {"csum_offset": 16}),
        (TCP4, {"csum_start": 24}),
        (TCP4, {"csum_start": 16}),
        (TCP6, {"csum_start": 39}),
        (TCP6, {"csum_start": 61}),
        (TCP6, {"csum_start": 0xFFFF}),
    ],
)
def test_header_that_does_not_fit_its_packet_is_malformed(packet: Packet, changes: dict[str, int]) -> None:
    assert split(header_for(packet, 8)._replace(**changes).pack() + packet.pack()) is None


@pytest.mark.parametrize(
    ("packet", "at", "value"),
    [
        (TCP4, 0, 0x55),  # version 5
        (TCP4, 0, 0x44),  # IPv4 header shorter than 20 bytes
        (TCP4, 0, 0x46),  # IPv4 header longer than it was said
        (TCP4, 32, 0x40),  # TCP header shorter than 20 bytes
        (TCP4, 32, 0xB0),  # TCP header longer than the packet
    ],
)
def test_packet_whose_headers_are_no_headers_is_malformed(packet: Packet, at: int, value: int) -> None:
    assert split(header_for(packet, 8).pack() + patched(packet.pack(), at, bytes([value]))) is None


@pytest.mark.parametrize("packet", [TCP4, TCP6, UDP4, UDP4.with_(version=6), TCP4.with_(options=bytes(40))])
def test_frame_that_is_cut_in_its_headers_is_malformed(packet: Packet) -> None:
    frame = super_frame(packet, 8)
    for size in range(HEADER_SIZE + packet.header_size):
        assert split(frame[:size]) is None
    assert split(frame[: HEADER_SIZE + packet.header_size]) is not None


def test_frame_with_a_packet_longer_than_any_is_malformed() -> None:
    assert split(PLAIN + bytes(PACKET_MAX + 1)) is None


@given(
    header=st.builds(
        VirtioHeader,
        flags=st.integers(0, 1),
        gso_type=st.sampled_from([0, 1, 4, 5, 0x81]) | st.integers(0, 255),
        hdr_len=st.integers(0, 0xFFFF),
        gso_size=st.integers(0, 30),
        csum_start=st.sampled_from([20, 24, 40, 48]) | st.integers(0, 120),
        csum_offset=st.sampled_from([6, 16]) | st.integers(0, 120),
    ),
    packet=packets().map(Packet.pack) | st.binary(max_size=120),
)
def test_nothing_that_a_frame_may_hold_is_an_error(header: VirtioHeader, packet: bytes) -> None:
    segments = split(header.pack() + packet)
    assert segments is None or all(len(segment) <= len(packet) for segment in segments)
