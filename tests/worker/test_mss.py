"""Real TCP of the kernel through a worker: what it offers leaves checksums to whoever sends the packet on."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dataplane.messages import SetTcpMss, UpdatePeer
from dataplane.tun.network_namespace import in_network_namespace
from tests.tun.packets import ACK, SYN, slow_checksum
from tests.worker.conftest import HOST, Device, FarPeer

pytestmark = pytest.mark.root

PORT = 7


def tcp_segment(
    far: FarPeer, port: int, sequence: int, acknowledgement: int, flags: int, options: bytes = b""
) -> bytes:
    """A TCP packet from the peer to the host of the device."""
    head = (PORT, port, sequence, acknowledgement, (20 + len(options)) // 4 << 4, flags, 0xFFFF)
    addresses = socket.inet_aton(far.vpn_ipv4) + socket.inet_aton(HOST)

    def part(checksum: int) -> bytes:
        return struct.pack(">HHIIBBHHH", *head, checksum, 0) + options

    def header(checksum: int) -> bytes:
        return struct.pack(">BBHIBBH", 0x45, 0, 40 + len(options), 0, 64, 6, checksum) + addresses

    pseudo = addresses + struct.pack(">HH", 6, 20 + len(options))
    return header(slow_checksum(header(0))) + part(slow_checksum(pseudo + part(0)))


def assert_intact(packet: bytes) -> None:
    part = packet[20:]
    assert slow_checksum(packet[12:20] + struct.pack(">HH", 6, len(part)) + part) == 0


def offered(packet: bytes) -> int:
    """What the MSS option says, which Linux puts first."""
    assert packet[40:42] == b"\x02\x04"
    return int.from_bytes(packet[42:44], "big")


@contextmanager
def tcp_in(device: Device) -> Iterator[socket.socket]:
    with in_network_namespace(device.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as tcp:
        tcp.setblocking(False)
        yield tcp


def open_to(device: Device, far: FarPeer) -> bytes:
    """The SYN of a connection that the host opens to the peer, as it comes out of the tunnel."""
    with tcp_in(device) as tcp:
        assert tcp.connect_ex((far.vpn_ipv4, PORT)) != 0
        packet = far.hear()
        assert_intact(packet)
        return packet


def test_syn_of_the_kernel_is_lowered_and_its_checksum_completed(device: Device) -> None:
    far = device.add_peer(1)
    assert offered(open_to(device, far)) == 1460
    device.worker.do(SetTcpMss(1300, 0))
    assert offered(open_to(device, far)) == 1300


def test_limit_of_a_peer_changes_at_once_and_goes_first(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(SetTcpMss(1300, 0))
    device.worker.do(UpdatePeer(1, tcp_mss_ipv4=1200))
    assert offered(open_to(device, far)) == 1200
    device.worker.do(UpdatePeer(1, tcp_mss_ipv6=900))
    assert offered(open_to(device, far)) == 1200
    device.worker.do(UpdatePeer(1, tcp_mss_ipv4=0))
    assert offered(open_to(device, far)) == 1460
    device.worker.do(UpdatePeer(1, tcp_mss_ipv4=None))
    assert offered(open_to(device, far)) == 1300


def test_syn_of_the_peer_and_the_answer_to_it_are_lowered(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(SetTcpMss(1000, 0))
    with tcp_in(device) as listener:
        listener.bind((HOST, PORT))
        listener.listen()
        far.send(tcp_segment(far, PORT, 99, 0, SYN, b"\x01\x02\x04\x05\xb4\x01\x01\x01"))
        answer = far.hear()
        assert_intact(answer)
        assert (answer[33] & (SYN | ACK), offered(answer)) == (SYN | ACK, 1000)
        far.send(tcp_segment(far, PORT, 100, int.from_bytes(answer[24:28], "big") + 1, ACK))
        device.worker.settle()
        connection, _ = listener.accept()
        with connection:
            # What the host sends in a segment: it heard of 1000, not 1460.
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1000
