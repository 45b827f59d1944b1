from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from dataplane.fastpath.device_to_link import DeviceToLink
from dataplane.fastpath.link_to_device import LinkToDevice
from dataplane.fastpath.udp_socket import UdpSockets
from dataplane.tun.merge import merge
from dataplane.vocabulary import Column, DropReason
from tests.fastpath.tunnel import SOCKET_ID, Tunnel, tunnel
from tests.tun.packets import UDP, Packet

NOW = 5_000_000_000
BATCH = 64
CONTROL = bytes([7 << 3]) + b"a control packet"


def stream(count: int, size: int = 1000) -> list[bytes]:
    """Segments of a TCP stream."""
    return [
        Packet(
            payload=bytes([index % 256]) * size,
            sequence=index * size,
            identification=index,
        ).pack()
        for index in range(count)
    ]


def frames_of(packets: Sequence[bytes]) -> list[bytes]:
    return [frame.data for frame in merge(packets, tcp=True, udp=True)]


def link_to_device(near: Tunnel, *, offload: bool = True) -> LinkToDevice:
    copies = DeviceToLink(near.channel, near.tun.fileno(), offload).copies
    return LinkToDevice(near.channel, near.tun.fileno(), offload, offload, offload, copies, near.sockets)


def move(near: Tunnel, sockets: UdpSockets | None = None) -> int:
    """Moves a batch; how many OpenVPN packets came."""
    direction = link_to_device(near)
    return int(direction.take(sockets or near.sockets, SOCKET_ID, NOW)[0])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_packet_reaches_the_device_and_is_counted(family: int) -> None:
    packet = Packet(protocol=UDP, payload=b"hello").pack()
    with tunnel(family=family) as near:
        far = near.add_peer()
        far.send(*far.seal(packet))
        assert move(near) == 1
        assert near.written() == [bytes(10) + packet]
        assert (far.row[Column.VPN_RX_PACKETS], far.row[Column.VPN_RX_BYTES]) == (
            1,
            len(packet),
        )
        assert (far.row[Column.LINK_RX_PACKETS], far.row[Column.LAST_RX_NS]) == (1, NOW)


def test_device_without_virtio_header_takes_packets() -> None:
    packets = stream(3)
    with tunnel() as near:
        far = near.add_peer()
        far.send(*far.seal(*packets))
        direction = link_to_device(near, offload=False)
        direction.take(near.sockets, SOCKET_ID, NOW)
        assert near.written() == packets


def test_segments_are_merged_across_datagrams_and_within_a_train() -> None:
    packets = stream(20)
    with tunnel() as near:
        far = near.add_peer()
        sealed = far.seal(*packets)
        far.send(*sealed[:5])
        far.send_train(*sealed[5:15])
        far.send(*sealed[15:])
        assert move(near) == 20
        assert near.written() == frames_of(packets)
        assert len(frames_of(packets)) == 1
        assert far.row[Column.VPN_RX_PACKETS] == 20


def test_forged_datagram_in_a_train_loses_only_itself() -> None:
    packets = stream(20)
    with tunnel() as near:
        far = near.add_peer()
        sealed = far.seal(*packets)
        sealed[7] = sealed[7][:-1] + bytes([sealed[7][-1] ^ 1])
        far.send_train(*sealed)
        assert move(near) == 20
        assert near.written() == frames_of([*packets[:7], *packets[8:]])
        assert far.drops == {DropReason.RX_DECRYPT_FAILED: 1}


def test_replayed_datagram_in_a_train_loses_only_itself() -> None:
    packets = stream(20)
    with tunnel() as near:
        far = near.add_peer()
        sealed = far.seal(*packets)
        far.send_train(*sealed[:10], sealed[3], *sealed[10:])
        move(near)
        assert near.written() == frames_of(packets)
        assert far.drops == {DropReason.RX_REPLAYED: 1}


def test_control_packet_in_a_train_goes_to_the_outlet() -> None:
    packets = stream(4)
    outlet, inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with tunnel() as near, outlet, inlet:
        far = near.add_peer()
        sealed = far.seal(*packets)
        sockets = UdpSockets()
        sockets.insert(SOCKET_ID, near.transport.fd, outlet.fileno())
        control = CONTROL.ljust(len(sealed[0]), b"!")
        far.send_train(*sealed[:2], control, *sealed[2:])
        assert move(near, sockets) == 5
        assert near.written() == frames_of(packets)
        inlet.settimeout(10)
        handed_over = inlet.recv(65535)
        assert handed_over[40:] == control
        assert int.from_bytes(handed_over[2:4], "big") == far.udp.getsockname()[1]
        assert near.drops == {}


def test_empty_datagram_is_no_control_packet() -> None:
    outlet, inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with tunnel() as near, outlet, inlet:
        sockets = UdpSockets()
        sockets.insert(SOCKET_ID, near.transport.fd, outlet.fileno())
        near.add_peer().send(b"")
        assert move(near, sockets) == 1
        assert near.drops == {DropReason.RX_TRUNCATED: 1}


def test_control_packet_without_room_is_counted() -> None:
    outlet, inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    inlet.close()
    with tunnel() as near, outlet:
        sockets = UdpSockets()
        sockets.insert(SOCKET_ID, near.transport.fd, outlet.fileno())
        near.add_peer().send(CONTROL)
        move(near, sockets)
        assert near.drops == {DropReason.RX_CONTROL_QUEUE_FULL: 1}


def test_control_packet_without_outlet_is_not_data() -> None:
    with tunnel() as near:
        near.add_peer().send(CONTROL.ljust(24, b"!"))
        move(near)
        assert near.drops == {DropReason.RX_NOT_DATA: 1}


def test_packets_that_the_device_does_not_take_are_counted_one_by_one() -> None:
    with tunnel() as near:
        far = near.add_peer()
        far.send_train(*far.seal(*stream(20)))
        near.frames.close()
        move(near)
        assert far.drops == {DropReason.RX_TUN_WRITE_FAILED: 20}
        assert far.row[Column.VPN_RX_PACKETS] == 0


def test_a_batch_of_more_packets_than_a_merger_holds_arrives_whole() -> None:
    packets = stream(40 * 60, size=10)
    with tunnel() as near:
        far = near.add_peer()
        sealed = far.seal(*packets)
        for at in range(0, len(sealed), 60):
            far.send_train(*sealed[at : at + 60])
        assert move(near) == len(packets)
        payloads = b"".join(frame[50:] for frame in near.written())
        assert payloads == b"".join(packet[40:] for packet in packets)
        assert far.row[Column.VPN_RX_PACKETS] == len(packets)


def test_a_batch_is_bounded() -> None:
    with tunnel() as near:
        far = near.add_peer()
        far.send(*far.seal(*stream(BATCH + 1)))
        direction = link_to_device(near)
        taken = [direction.take(near.sockets, SOCKET_ID, NOW) for _ in range(3)]
        assert taken == [(BATCH, True), (1, False), (0, False)]


def test_packets_opened_earlier_are_merged_too() -> None:
    packets = stream(5)
    with tunnel() as near:
        far = near.add_peer()
        direction = link_to_device(near)
        direction.deliver([(far.peer, packet) for packet in packets], NOW)
        assert near.written() == frames_of(packets)
        assert far.row[Column.VPN_RX_PACKETS] == 5
