"""Peers over TCP, through a real worker: their stream, and the control stream beside it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from select import select
from typing import Final

import pytest

from dataplane.datachannel.wire import KEEPALIVE
from dataplane.messages import (
    AddPeer,
    AddSocket,
    Endpoint,
    PeerExpired,
    RemovePeer,
    RemoveSocket,
    TransportClosed,
    UpdatePeer,
)
from dataplane.statistics_page import DEVICE_ROW, drops_of
from dataplane.transport.tcp_framing import PACKET_MAX, QUEUE_BYTES, FrameCutter, frame_of
from dataplane.tun.network_namespace import in_network_namespace
from dataplane.vocabulary import Column, DelReason, DropReason
from tests.tun.conftest import ipv4_udp
from tests.worker.conftest import Device, far_key, install_key

pytestmark = pytest.mark.root

P_CONTROL_V1: Final = bytes([4 << 3])
SOCKET_ID: Final = 7
PEER_ID: Final = 1
VPN_IPV4: Final = "10.8.0.11"


class FrameReader:
    """Reads packets off a stream."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._cutter = FrameCutter()
        self._packets: list[bytes] = []

    def packet(self) -> bytes:
        while not self._packets:
            data = self._stream.recv(65536)
            assert data, "the stream has ended"
            self._packets = self._cutter.feed(data)
        return self._packets.pop(0)

    def ends(self) -> bool:
        """Whether nothing comes before the end."""
        return not self._packets and self._stream.recv(1) == b""


class Stream:
    """A TCP connection of which the worker has one end, with its control plane; socket SOCKET_ID, peer PEER_ID."""

    def __init__(self, device: Device, stack: ExitStack, buffer_bytes: int = 0) -> None:
        self.device = device
        self.key = far_key(PEER_ID)
        self.near, self.far = in_network_namespace(device.namespace, lambda: connection(buffer_bytes))
        given, self.control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (self.near, self.far, given, self.control):
            stack.enter_context(end)
        for end in (self.far, self.control):
            end.settimeout(20)
        device.worker.do(AddSocket(SOCKET_ID), self.near.fileno(), given.fileno())
        # As in the daemon's service, the worker alone holds the ends.
        self.near.close()
        given.close()
        self.from_worker = FrameReader(self.far)
        self.to_control = FrameReader(self.control)

    def add_peer(self, keepalive_interval_s: int = 0, keepalive_timeout_s: int = 0) -> None:
        self.device.worker.do(
            AddPeer(
                PEER_ID,
                uid=101,
                row=PEER_ID,
                socket_id=SOCKET_ID,
                remote=None,
                vpn_ipv4=IPv4Address(VPN_IPV4).packed,
                keepalive_interval_s=keepalive_interval_s,
                keepalive_timeout_s=keepalive_timeout_s,
            )
        )
        self.device.worker.do(install_key(PEER_ID))

    def sealed(self, payload: bytes) -> bytes:
        """A UDP datagram to the application as OpenVPN packet."""
        packet = self.key.seal(PEER_ID, self.clear(payload))
        assert packet is not None
        return packet

    def clear(self, payload: bytes) -> bytes:
        return ipv4_udp((VPN_IPV4, 7), self.device.application.getsockname(), payload)

    def hear(self) -> bytes:
        """The payload of the next data packet, which may hold no other."""
        opened = self.key.open(self.from_worker.packet())
        assert opened is not None
        return opened[28:]

    def row(self, column: Column) -> int:
        self.device.worker.settle()
        return int(self.device.page.snapshot(PEER_ID)[column])


def connection(buffer_bytes: int) -> tuple[socket.socket, socket.socket]:
    """A TCP connection over loopback. buffer_bytes: of the far end's receive buffer, 0 for the usual one."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        far = stack.enter_context(socket.socket())
        if buffer_bytes:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        far.connect(server.getsockname())
        near, _ = server.accept()
        stack.pop_all()
        return near, far


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def stream(device: Device, stack: ExitStack) -> Stream:
    """With a peer."""
    stream = Stream(device, stack)
    stream.add_peer()
    return stream


@pytest.fixture
def narrow(device: Device, stack: ExitStack) -> Stream:
    """With a peer that takes little before it reads."""
    stream = Stream(device, stack, buffer_bytes=4096)
    stream.add_peer()
    return stream


# Data


def test_data_travel_both_ways(stream: Stream) -> None:
    stream.far.sendall(frame_of(stream.sealed(b"hello")))
    assert stream.device.application.recvfrom(100) == (b"hello", (VPN_IPV4, 7))
    stream.device.say(b"goodbye", to=VPN_IPV4)
    assert stream.hear() == b"goodbye"


@pytest.mark.parametrize("piece", [1, 2, 3, 700])
def test_stream_may_come_in_any_pieces(stream: Stream, piece: int) -> None:
    said = [bytes([number]) * 40 for number in range(20)]
    frames = b"".join(frame_of(stream.sealed(payload)) for payload in said)
    stream.far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(frames), piece):
        stream.far.sendall(frames[at : at + piece])
    assert [stream.device.application.recv(100) for _ in said] == said


def test_packets_in_one_read_are_told_apart_and_counted_without_their_prefix(stream: Stream) -> None:
    packets = [stream.sealed(b"one"), stream.sealed(b"two")]
    stream.far.sendall(b"".join(map(frame_of, packets)))
    assert [stream.device.application.recv(100) for _ in packets] == [b"one", b"two"]
    assert stream.row(Column.LINK_RX_PACKETS) == 2
    assert stream.row(Column.LINK_RX_BYTES) == sum(map(len, packets))
    stream.device.say(b"three", to=VPN_IPV4)
    heard = stream.from_worker.packet()
    assert (stream.row(Column.LINK_TX_PACKETS), stream.row(Column.LINK_TX_BYTES)) == (1, len(heard))


def test_keepalive_comes_over_the_stream(device: Device, stack: ExitStack) -> None:
    stream = Stream(device, stack)
    stream.add_peer(keepalive_interval_s=1)
    assert stream.key.open(stream.from_worker.packet()) == KEEPALIVE


def test_update_leaves_a_peer_in_its_stream(stream: Stream) -> None:
    stream.device.worker.do(UpdatePeer(PEER_ID, vpn_ipv4=IPv4Address("10.8.0.99").packed))
    stream.device.say(b"to the new address", to="10.8.0.99")
    assert stream.hear() == b"to the new address"
    endpoint = Endpoint(bytes([127, 0, 0, 1]), 9)
    assert stream.device.worker.ask(UpdatePeer(PEER_ID, remote=endpoint)).error == "INTERNAL"
    assert stream.device.worker.ask(UpdatePeer(PEER_ID, local=endpoint.address)).error == "INTERNAL"


def test_peer_of_a_silent_stream_expires(device: Device, stack: ExitStack) -> None:
    stream = Stream(device, stack)
    stream.add_peer(keepalive_timeout_s=1)
    assert device.worker.event() == PeerExpired(PEER_ID, 101)


def test_data_without_peer_are_dropped_and_control_packets_pass(device: Device, stack: ExitStack) -> None:
    stream = Stream(device, stack)
    stream.far.sendall(frame_of(stream.sealed(b"too early")) + frame_of(P_CONTROL_V1 * 20))
    assert stream.to_control.packet() == P_CONTROL_V1 * 20
    assert device.drops(DEVICE_ROW) == {DropReason.RX_UNKNOWN_PEER: 1}


def test_packet_of_another_peer_is_nobodys_in_a_stream(stream: Stream) -> None:
    other = stream.device.add_peer(2)
    stream.far.sendall(frame_of(other.seal(stream.device.packet_from(other, b"from elsewhere"))))
    stream.far.sendall(frame_of(stream.sealed(b"after that")))
    assert stream.device.application.recv(100) == b"after that"
    assert stream.device.drops(PEER_ID) == {DropReason.RX_DECRYPT_FAILED: 1}


def test_peer_of_a_stream_never_leaves_it(stream: Stream) -> None:
    other = stream.device.add_peer(2)
    other.send_raw(stream.sealed(b"over UDP"))
    assert stream.device.application.recv(100) == b"over UDP"
    stream.device.say(b"answer", to=VPN_IPV4)
    assert stream.hear() == b"answer"


# The control stream


def test_control_packets_reach_the_control_plane_whole_and_in_order(stream: Stream) -> None:
    control = [P_CONTROL_V1 + bytes([number]) * (50 * number + 10) for number in range(20)]
    frames = b"".join(frame_of(packet) + frame_of(stream.sealed(b"between")) for packet in control)
    for at in range(0, len(frames), 777):
        stream.far.sendall(frames[at : at + 777])
    assert [stream.to_control.packet() for _ in control] == control
    assert [stream.device.application.recv(100) for _ in control] == [b"between"] * 20


def test_packets_of_the_control_plane_reach_the_peer_whole(stream: Stream) -> None:
    control = [P_CONTROL_V1 + bytes([number]) * 900 for number in range(20)]
    frames = b"".join(map(frame_of, control))
    for at in range(0, len(frames), 501):
        stream.control.sendall(frames[at : at + 501])
        stream.device.say(b"between", to=VPN_IPV4)
    heard = [stream.from_worker.packet() for _ in range(20 + -(-len(frames) // 501))]
    assert [packet for packet in heard if packet[0] == P_CONTROL_V1[0]] == control
    data = [stream.key.open(packet) for packet in heard if packet[0] != P_CONTROL_V1[0]]
    assert [payload is not None and payload[28:] for payload in data] == [b"between"] * (len(heard) - 20)


def test_data_go_on_when_the_control_plane_has_closed_its_end(stream: Stream) -> None:
    stream.control.close()
    stream.far.sendall(frame_of(P_CONTROL_V1 * 20) + frame_of(stream.sealed(b"hello")))
    assert stream.device.application.recv(100) == b"hello"
    stream.far.sendall(frame_of(P_CONTROL_V1 * 20) + frame_of(stream.sealed(b"again")))
    assert stream.device.application.recv(100) == b"again"
    stream.device.say(b"goodbye", to=VPN_IPV4)
    assert stream.hear() == b"goodbye"
    assert set(stream.device.drops(DEVICE_ROW)) <= {DropReason.RX_CONTROL_QUEUE_FULL}


def test_last_words_of_the_control_plane_are_sent_before_the_socket_goes(stream: Stream) -> None:
    stream.control.sendall(frame_of(P_CONTROL_V1 * 20))
    stream.device.worker.do(RemovePeer(PEER_ID))
    stream.device.worker.do(RemoveSocket(SOCKET_ID))
    assert stream.from_worker.packet() == P_CONTROL_V1 * 20
    assert stream.from_worker.ends()


# Back-pressure


def test_a_control_plane_that_does_not_read_holds_up_its_stream_and_loses_nothing(stream: Stream) -> None:
    packets = [P_CONTROL_V1 + number.to_bytes(4, "big") + bytes(1000) for number in range(6000)]
    frames = memoryview(b"".join(map(frame_of, packets)))
    stream.far.setblocking(False)
    sent = 0
    while select([], [stream.far], [], 0.3)[1]:
        sent += stream.far.send(frames[sent:])
        if sent == len(frames):
            break
    before = memory_of(stream.device.worker.process.pid)
    stream.far.settimeout(20)
    heard: list[bytes] = []
    while sent < len(frames) or len(heard) < len(packets):
        if sent < len(frames) and select([], [stream.far], [], 0)[1]:
            sent += stream.far.send(frames[sent : sent + 65536])
        heard.append(stream.to_control.packet())
    assert heard == packets
    assert memory_of(stream.device.worker.process.pid) - before < (8 << 20) + quarantine_of(
        stream.device.worker.process.pid
    )


def test_nothing_admitted_is_lost_and_memory_is_bounded_when_the_peer_does_not_read(narrow: Stream) -> None:
    device = narrow.device
    device.application.settimeout(20)
    before = memory_of(device.worker.process.pid)
    count = 0
    while not drops_of(device.page.snapshot(PEER_ID)):
        for _ in range(50):
            device.say(count.to_bytes(4, "big") + bytes(1200), to=VPN_IPV4)
            count += 1
        assert count < 100_000
    for _ in range(2000):
        device.say(count.to_bytes(4, "big") + bytes(1200), to=VPN_IPV4)
        count += 1
    control = P_CONTROL_V1 * 500
    narrow.control.sendall(frame_of(control))
    sent = narrow.row(Column.LINK_TX_PACKETS)
    assert sent * 1258 > QUEUE_BYTES
    assert memory_of(device.worker.process.pid) - before < (16 << 20) + quarantine_of(device.worker.process.pid)

    heard = [narrow.from_worker.packet() for _ in range(sent + 1)]
    place = heard.index(control)
    assert sent - place >= QUEUE_BYTES // 1258 - 2  # it overtook what waited in the queue
    del heard[place]
    device.say(b"the last one", to=VPN_IPV4)
    opened = [narrow.key.open(packet) for packet in heard]
    while opened[-1] is not None and opened[-1][28:] != b"the last one":
        heard.append(narrow.from_worker.packet())
        opened.append(narrow.key.open(heard[-1]))
    assert [int.from_bytes(packet[4:8], "big") for packet in heard] == list(range(1, len(heard) + 1))
    numbers = [int.from_bytes(payload[28:32], "big") for payload in opened[:-1] if payload is not None]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + 1 == len(heard) == narrow.row(Column.LINK_TX_PACKETS)
    assert set(drops_of(device.page.snapshot(PEER_ID))) == {DropReason.TX_QUEUE_FULL}


def test_a_stream_that_takes_nothing_does_not_hold_up_other_peers(narrow: Stream) -> None:
    other = narrow.device.add_peer(2)
    while not drops_of(narrow.device.page.snapshot(PEER_ID)):
        narrow.device.say(bytes(1200), to=VPN_IPV4)
    narrow.device.worker.settle()  # the TUN's queue is full, and would not take what comes next
    narrow.device.say(b"to the other", to=other.vpn_ipv4)
    assert other.hear()[28:] == b"to the other"


# The end


def test_end_of_the_stream_is_told_once_and_what_came_before_is_passed_on(stream: Stream) -> None:
    stream.far.sendall(frame_of(P_CONTROL_V1 * 20) + frame_of(stream.sealed(b"last words")))
    stream.far.close()
    assert stream.to_control.packet() == P_CONTROL_V1 * 20
    assert stream.device.application.recv(100) == b"last words"
    assert stream.device.worker.event() == TransportClosed(SOCKET_ID, DelReason.TRANSPORT_DISCONNECT)
    assert stream.device.worker.ask(RemovePeer(PEER_ID)).error == "PEER_NOT_FOUND"
    # The control plane learns it from the daemon, not from an end of its stream.
    assert select([stream.control], [], [], 0)[0] == []
    stream.device.worker.do(RemoveSocket(SOCKET_ID))
    assert stream.to_control.ends()
    assert stream.device.worker._events == []


def test_reset_of_the_stream_is_told_as_disconnect(stream: Stream) -> None:
    stream.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.far.close()
    assert stream.device.worker.event() == TransportClosed(SOCKET_ID, DelReason.TRANSPORT_DISCONNECT)


def test_end_is_found_by_a_sender_and_what_came_before_is_passed_on(narrow: Stream) -> None:
    """The control plane is behind, so the socket is not read when the peer goes."""
    frames = frame_of(P_CONTROL_V1 * 1000) * 2000
    narrow.far.setblocking(False)
    sent = 0
    while sent < len(frames) and select([], [narrow.far], [], 0.3)[1]:
        sent += narrow.far.send(frames[sent:])
    narrow.far.close()
    for _ in range(20):
        narrow.device.say(bytes(1200), to=VPN_IPV4)
    narrow.device.worker.settle()
    for _ in range(100):
        narrow.device.say(bytes(1200), to=VPN_IPV4)
    read = [narrow.to_control.packet()]
    assert read == [P_CONTROL_V1 * 1000]
    while select([narrow.control], [], [], 0.3)[0]:
        narrow.to_control.packet()
    assert narrow.device.worker.event() == TransportClosed(SOCKET_ID, DelReason.TRANSPORT_DISCONNECT)


@pytest.mark.parametrize("bad", [bytes(2), b"\0\3abc", (PACKET_MAX + 1).to_bytes(2, "big")])
def test_bad_length_ends_the_stream_as_failed(stream: Stream, bad: bytes) -> None:
    stream.far.sendall(frame_of(stream.sealed(b"before")) + bad + frame_of(stream.sealed(b"behind")))
    assert stream.device.application.recv(100) == b"before"
    assert stream.device.worker.event() == TransportClosed(SOCKET_ID, DelReason.TRANSPORT_ERROR)


def test_bad_length_from_the_control_plane_ends_the_stream_as_failed(stream: Stream) -> None:
    stream.control.sendall(bytes(2))
    assert stream.device.worker.event() == TransportClosed(SOCKET_ID, DelReason.TRANSPORT_ERROR)


def test_descriptors_are_closed_with_the_socket(stream: Stream) -> None:
    before = len(stream.device.worker.held())
    stream.device.worker.do(RemovePeer(PEER_ID))
    stream.device.worker.do(RemoveSocket(SOCKET_ID))
    assert len(stream.device.worker.held()) == before - 2
    assert stream.from_worker.ends()
    assert stream.to_control.ends()


def test_a_stream_carries_one_peer(stream: Stream) -> None:
    second = AddPeer(2, uid=102, row=2, socket_id=SOCKET_ID, remote=None, vpn_ipv4=IPv4Address("10.8.0.12").packed)
    assert stream.device.worker.ask(second).error == "SOCKET_IN_USE"
    stream.device.worker.do(RemovePeer(PEER_ID))
    stream.device.worker.do(second)


def test_an_ended_stream_takes_no_peer(device: Device, stack: ExitStack) -> None:
    stream = Stream(device, stack)
    stream.far.close()
    assert device.worker.event() == TransportClosed(SOCKET_ID, DelReason.TRANSPORT_DISCONNECT)
    peer = AddPeer(PEER_ID, uid=1, row=1, socket_id=SOCKET_ID, remote=None, vpn_ipv4=ip_address(VPN_IPV4).packed)
    assert device.worker.ask(peer).error == "SOCKET_CLOSED"


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def quarantine_of(pid: int) -> int:
    """Bytes that AddressSanitizer keeps of what a process frees; 0 in a usual build."""
    return 256 << 20 if "asan" in Path(f"/proc/{pid}/maps").read_text() else 0
