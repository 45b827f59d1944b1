from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.fastpath.aead import DataKey
from dataplane.fastpath.device_to_link import DeviceToLink
from dataplane.tun.split import split
from dataplane.tun.virtio import GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM, VirtioHeader
from dataplane.vocabulary import Column, DropReason, KeySlot, Mode
from tests.datachannel.epoch_far_end import EpochFarEnd
from tests.fastpath.tunnel import Tunnel, tunnel
from tests.tun.packets import TCP, UDP, Packet

PLAIN = VirtioHeader().pack()
NOW = 5_000_000_000
BATCH = 64


def segments_of(frame: bytes) -> list[bytes]:
    segments = split(frame)
    assert segments is not None
    return segments


def tcp_frame(payload: bytes, segment_size: int) -> bytes:
    return VirtioHeader(NEEDS_CSUM, GSO_TCPV4, 40, segment_size, 20, 16).pack() + Packet(payload=payload).pack()


def moved(near: Tunnel, frames: list[bytes], *, virtio_header: bool = True) -> int:
    """Has the TUN give these frames, and moves a batch."""
    for frame in frames:
        near.frames.send(frame)
    return int(DeviceToLink(near.channel, near.tun.fileno(), virtio_header).take(near.sockets, NOW))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_packet_reaches_its_peer_and_is_counted(family: int) -> None:
    packet = Packet(protocol=UDP, payload=b"hello").pack()
    with tunnel(family=family) as near:
        far = near.add_peer()
        assert moved(near, [PLAIN + packet]) == 1
        assert far.hear(1) == [packet]
        assert (far.row[Column.VPN_TX_PACKETS], far.row[Column.VPN_TX_BYTES]) == (
            1,
            len(packet),
        )
        assert (far.row[Column.LINK_TX_PACKETS], far.row[Column.LAST_TX_NS]) == (1, NOW)


def test_device_without_virtio_header_gives_packets() -> None:
    packets = [Packet(protocol=UDP, payload=bytes(size)).pack() for size in (0, 1, 1400)]
    with tunnel() as near:
        far = near.add_peer()
        assert moved(near, packets, virtio_header=False) == 3
        assert far.hear(3) == packets


@settings(max_examples=30)
@given(st.integers(1, 20_000), st.sampled_from([1, 7, 536, 1368, 1448, 9000]))
def test_segments_of_a_frame_reach_their_peer_as_readable_python_splits_it(size: int, segment_size: int) -> None:
    frame = tcp_frame(bytes(range(256)) * 80, segment_size)[: 10 + 40 + min(size, 1000 * segment_size)]
    with tunnel() as near:
        far = near.add_peer()
        moved(near, [frame])
        assert far.hear(len(segments_of(frame))) == segments_of(frame)
        assert far.hears_nothing_more()
        assert far.drops == {}


def test_segments_are_sealed_in_the_format_with_epochs_too() -> None:
    frames = [tcp_frame(bytes([number]) * 65_000, 1368) for number in range(10)]
    epochs = EpochFarEnd(DataKey)
    with tunnel() as near:
        far = near.add_peer()
        near.channel.install_key(1, KeySlot.PRIMARY, epochs.data_key(), 0)
        moved(near, frames)
        opened = [epochs.open(far.udp.recv(65535)) for _ in range(480)]
        assert [packet for *_, packet in opened] == [segment for frame in frames for segment in segments_of(frame)]
        assert [counter for _, _, counter, _ in opened] == list(range(1, 481))


def test_more_than_there_is_room_for_is_sent_in_turn() -> None:
    frames = [tcp_frame(bytes([number]) * 65_000, 1368) for number in range(10)]
    with tunnel() as near:
        far = near.add_peer()
        assert moved(near, frames) == 10
        assert far.hear(480) == [segment for frame in frames for segment in segments_of(frame)]


def test_a_batch_is_bounded() -> None:
    packet = PLAIN + Packet(protocol=UDP, payload=b"hello").pack()
    with tunnel() as near:
        near.add_peer()
        for _ in range(BATCH + 1):
            near.frames.send(packet)
        device_to_link = DeviceToLink(near.channel, near.tun.fileno(), True)
        assert [device_to_link.take(near.sockets, NOW) for _ in range(3)] == [
            BATCH,
            1,
            0,
        ]


def test_malformed_frame_costs_itself_alone() -> None:
    packet = Packet(protocol=UDP, payload=b"hello").pack()
    frames = [
        PLAIN[:-1],
        VirtioHeader(0, GSO_UDP_L4, 0, 0, 20, 6).pack() + packet,
        PLAIN + packet,
    ]
    with tunnel() as near:
        far = near.add_peer()
        moved(near, frames)
        assert far.hear(1) == [packet]
        assert near.drops == {DropReason.TX_BAD_VIRTIO_HEADER: 2}


def test_packet_that_is_too_long_is_malformed() -> None:
    with tunnel() as near:
        near.add_peer()
        moved(
            near,
            [PLAIN + Packet(protocol=TCP, payload=bytes(65495)).pack() + b"one byte more"],
        )
        assert near.drops == {DropReason.TX_BAD_VIRTIO_HEADER: 1}


def test_packet_that_fits_no_datagram_is_a_failed_send() -> None:
    with tunnel() as near:
        far = near.add_peer()
        moved(near, [PLAIN + Packet(protocol=TCP, payload=bytes(65495)).pack()])
        assert far.drops == {DropReason.TX_SEND_FAILED: 1}


def test_empty_packet_is_not_ip() -> None:
    with tunnel() as near:
        near.add_peer()
        moved(near, [PLAIN])
        assert near.drops == {DropReason.TX_NOT_IP: 1}


def test_every_segment_to_nobody_is_counted() -> None:
    with tunnel(Mode.MP) as near:
        near.add_peer()
        moved(near, [tcp_frame(bytes(3000), 1000), tcp_frame(bytes(10), 1000)])
        assert near.drops == {DropReason.TX_NO_PEER: 4}


def test_every_segment_without_a_key_is_counted() -> None:
    with tunnel() as near:
        far = near.add_peer()
        near.channel.swap_keys(1)
        moved(near, [tcp_frame(bytes(3000), 1000)])
        assert far.drops == {DropReason.TX_NO_KEY: 3}


def test_device_that_is_gone_is_told_after_what_it_gave() -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as not_connected,
        tunnel() as near,
    ):
        device_to_link = DeviceToLink(near.channel, not_connected.fileno(), True)
        with pytest.raises(OSError, match="no device"):
            device_to_link.take(near.sockets, NOW)
