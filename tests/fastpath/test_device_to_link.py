from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.fastpath.aead import DataKey
from dataplane.fastpath.device_to_link import DeviceToLink
from dataplane.fastpath.udp_socket import UdpSockets
from dataplane.tun.split import split
from dataplane.tun.virtio import GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM, VirtioHeader
from dataplane.vocabulary import Column, DropReason, KeySlot, Mode, RouteTarget
from tests.datachannel.epoch_far_end import EpochFarEnd
from tests.fastpath.tunnel import SOCKET_ID, Tunnel, tunnel
from tests.tun.packets import ADDRESSES, TCP, UDP, Packet

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


TO_EVERYONE = ((ADDRESSES[4][1], 32), RouteTarget.EVERYONE)


def for_all(payload: bytes) -> bytes:
    return Packet(protocol=UDP, payload=payload).pack()


@pytest.mark.parametrize("peers", [1, 3, 100])
def test_packet_for_everyone_reaches_more_peers_than_there_are_trains(peers: int) -> None:
    packets = [for_all(bytes([number]) * 1000) for number in range(3)]
    with tunnel(Mode.MP) as near:
        fars = [near.add_peer(peer_id) for peer_id in range(peers)]
        near.channel.set_route(*TO_EVERYONE)
        assert moved(near, [PLAIN + packet for packet in packets]) == 3
        for far in fars:
            assert far.hear(3) == packets
            assert far.hears_nothing_more()
            assert (far.row[Column.VPN_TX_PACKETS], far.row[Column.LINK_TX_PACKETS]) == (3, 3)


def test_segments_for_everyone_are_each_sent_to_each() -> None:
    payload = bytes(range(256)) * 16
    frame = VirtioHeader(NEEDS_CSUM, GSO_UDP_L4, 28, 1000, 20, 6).pack() + for_all(payload)
    with tunnel(Mode.MP) as near:
        fars = [near.add_peer(peer_id) for peer_id in (1, 2)]
        near.channel.set_route(*TO_EVERYONE)
        assert moved(near, [frame]) == 1
        for far in fars:
            assert far.hear(5) == segments_of(frame)


def test_packet_for_everyone_and_the_next_for_one_do_not_meet() -> None:
    one = Packet(version=6, protocol=UDP, payload=b"for the second").pack()
    with tunnel(Mode.MP) as near:
        fars = [near.add_peer(peer_id) for peer_id in (1, 2)]
        near.channel.set_route(*TO_EVERYONE)
        near.channel.set_route((ADDRESSES[6][1], 128), 2)
        moved(near, [PLAIN + for_all(b"for all"), PLAIN + one, PLAIN + for_all(b"again")])
        assert fars[0].hear(2) == [for_all(b"for all"), for_all(b"again")]
        assert fars[1].hear(3) == [for_all(b"for all"), one, for_all(b"again")]


def told_to_copy_dscp(near: Tunnel) -> UdpSockets:
    sockets = UdpSockets()
    sockets.insert(SOCKET_ID, near.transport.fd, -1, True)
    return sockets


def tos_heard(udp: socket.socket, count: int) -> list[int]:
    """Of the next datagrams."""
    if udp.family == socket.AF_INET:
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    return [udp.recvmsg(2000, 100)[1][0][2][0] for _ in range(count)]


@pytest.mark.parametrize(
    ("family", "local"),
    [
        (socket.AF_INET, ""),
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "192.0.2.77"),
        (socket.AF_INET6, ""),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "2001:db8::77"),
    ],
)
def test_every_segment_has_the_dscp_of_its_packet(family: int, local: str) -> None:
    header = VirtioHeader(NEEDS_CSUM, GSO_TCPV4, 40, 1000, 20, 16).pack()
    frames = [header + Packet(payload=bytes(3000), tos=tos).pack() for tos in (0xBB, 0xB8, 0x01, 0x20)]
    with tunnel(family=family) as near:
        far = near.add_peer()
        if local:
            near.channel.set_remote(1, far.udp.getsockname(), ip_address(local).packed)
        for frame in frames:
            near.frames.send(frame)
        DeviceToLink(near.channel, near.tun.fileno(), True).take(told_to_copy_dscp(near), NOW)
        assert tos_heard(far.udp, 12) == [0xB8] * 6 + [0] * 3 + [0x20] * 3
        assert far.drops == {}


def test_removed_socket_takes_its_wish_for_the_dscp_along() -> None:
    with tunnel() as near:
        far = near.add_peer()
        sockets = told_to_copy_dscp(near)
        sockets.drop(SOCKET_ID)
        sockets.insert(SOCKET_ID, near.transport.fd)
        near.frames.send(PLAIN + Packet(protocol=UDP, tos=0xB8).pack())
        DeviceToLink(near.channel, near.tun.fileno(), True).take(sockets, NOW)
        assert tos_heard(far.udp, 1) == [0]
