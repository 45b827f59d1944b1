from __future__ import annotations

import errno
import random
import socket
from array import array
from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import pairwise
from select import EPOLLERR, EPOLLIN, epoll, select

import pytest

from dataplane.datachannel.channel import DataChannel, Peer
from dataplane.datachannel.wire import KEEPALIVE, OPCODE_DATA_V2, PACKET_ID_MAX
from dataplane.messages import (
    DeviceClosed,
    KeyExhausted,
    PeerExpired,
    PeerFloated,
    RemovePeer,
    RemoveSocket,
    UpdatePeer,
)
from dataplane.statistics_page import DEVICE_ROW, drops_of
from dataplane.transport.udp import UdpTransport
from dataplane.tun.device import TunDevice
from dataplane.tun.link import set_link
from dataplane.vocabulary import ROW_WORDS, Column, DropReason, KeySlot, Mode
from dataplane.worker.packet_path import BATCH, PacketPath
from tests.tun.conftest import delete_link, ipv4, tun_in, udp_in
from tests.worker.conftest import HOST, Device, far_key, near_key

pytestmark = pytest.mark.root

# Packets, through a real worker


def test_packet_of_a_peer_reaches_the_application(device: Device) -> None:
    far = device.add_peer(1)
    far.say(b"hello")
    assert device.application.recvfrom(100) == (b"hello", (far.vpn_ipv4, 7))


def test_packet_of_the_application_reaches_its_peer_alone(device: Device) -> None:
    first, second = device.add_peer(1), device.add_peer(2)
    device.say(b"for the second", to=second.vpn_ipv4)
    device.say(b"for the first", to=first.vpn_ipv4)
    assert [first.hear()[28:], second.hear()[28:]] == [b"for the first", b"for the second"]


def test_p2p_device_carries_any_address(unconfigured: Device) -> None:
    far = unconfigured.configure(Mode.P2P).add_peer(1)
    far.say(b"from elsewhere", source="10.8.0.200")
    unconfigured.say(b"to elsewhere", to="10.8.0.100")
    assert (unconfigured.application.recv(100), far.hear()[28:]) == (b"from elsewhere", b"to elsewhere")


def test_ipv4_and_ipv6_peers_share_a_socket(unconfigured: Device) -> None:
    device = unconfigured.configure(bound_to="::")
    for far in (device.add_peer(1, at="127.0.0.1"), device.add_peer(2, at="::1")):
        far.say(b"question")
        device.application.recv(100)
        device.say(b"answer", to=far.vpn_ipv4)
        assert far.hear().endswith(b"answer")


def test_counters_are_right_to_the_byte(device: Device) -> None:
    far = device.add_peer(1)
    sealed = [far.say(b"hello"), far.say(b"hello again")]
    far.send(KEEPALIVE)
    device.say(b"goodbye!", to=far.vpn_ipv4)
    for _ in sealed:
        device.application.recv(100)
    heard = far.udp.recv(100)
    device.worker.settle()
    row = dict(enumerate(device.page.snapshot(1)))
    times = [row.pop(Column.LAST_RX_NS), row.pop(Column.LAST_TX_NS)]
    assert all(times)
    assert {Column(word): count for word, count in row.items() if count} == {
        Column.VPN_RX_PACKETS: 2,
        Column.VPN_RX_BYTES: 28 + 5 + 28 + 11,
        Column.VPN_TX_PACKETS: 1,
        Column.VPN_TX_BYTES: 28 + 8,
        Column.LINK_RX_PACKETS: 3,
        Column.LINK_RX_BYTES: len(sealed[0]) + len(sealed[1]) + 24 + 16,
        Column.LINK_TX_PACKETS: 1,
        Column.LINK_TX_BYTES: len(heard),
        Column.SENT_PRIMARY: 1,
    }


def test_garbage_is_counted_and_nothing_of_it_delivered(device: Device) -> None:
    far = device.add_peer(1)
    chance = random.Random(1194)
    garbage = [chance.randbytes(chance.randrange(0, 1500)) for _ in range(150)]
    for datagram in garbage:
        far.send_raw(datagram)
    far.say(b"the only one")
    assert device.application.recv(100) == b"the only one"
    device.worker.settle()
    drops = drops_of(device.page.snapshot(DEVICE_ROW))
    assert sum(drops.values()) + sum(drops_of(device.page.snapshot(1)).values()) == len(garbage)
    assert drops.keys() <= {DropReason.RX_TRUNCATED, DropReason.RX_NOT_DATA, DropReason.RX_UNKNOWN_PEER}


def test_control_packet_is_counted_as_not_data(device: Device) -> None:
    far = device.add_peer(1)
    p_control_hard_reset_client_v2 = bytes([7 << 3]) + bytes(30)
    far.send_raw(p_control_hard_reset_client_v2)
    far.say(b"after that")
    device.application.recv(100)
    assert device.drops(DEVICE_ROW) == {DropReason.RX_NOT_DATA: 1}


def test_forged_and_replayed_packets_are_dropped(device: Device) -> None:
    far = device.add_peer(1)
    sealed = far.say(b"once")
    far.send_raw(sealed)
    far.send_raw(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    far.say(b"after that")
    assert [device.application.recv(100), device.application.recv(100)] == [b"once", b"after that"]
    assert device.drops(1, count=2) == {DropReason.RX_REPLAYED: 1, DropReason.RX_DECRYPT_FAILED: 1}


def test_packet_to_nobody_is_dropped(device: Device) -> None:
    device.say(b"hello", to="10.8.0.200")
    assert device.drops(DEVICE_ROW) == {DropReason.TX_NO_PEER: 1}


def test_device_that_is_down_costs_packets_but_is_served_again_when_up(device: Device) -> None:
    far = device.add_peer(1)
    set_link("tun0", device.namespace, admin_up=False)
    far.say(b"lost")
    device.drops(1)
    set_link("tun0", device.namespace, admin_up=True)
    far.say(b"hello")
    assert device.application.recv(100) == b"hello"
    assert device.drops(1) == {DropReason.RX_TUN_WRITE_FAILED: 1}


# Events, from a real worker


def test_float_is_told_and_followed(device: Device) -> None:
    far = device.add_peer(1)
    far.say(b"here")
    far.move()
    far.say(b"there")
    assert device.worker.event() == PeerFloated(1, 101, far.endpoint, 1)
    device.say(b"hello", to=far.vpn_ipv4)
    assert far.hear().endswith(b"hello")


def test_forged_packet_from_elsewhere_floats_nobody(device: Device) -> None:
    far = device.add_peer(1)
    sealed = far.say(b"here")
    with udp_in(device.namespace, "127.0.0.1") as attacker:
        attacker.sendto(sealed, ("127.0.0.1", device.port))
        attacker.sendto(sealed[:-1] + b"\0", ("127.0.0.1", device.port))
    far.say(b"still here")
    assert [device.application.recv(100), device.application.recv(100)] == [b"here", b"still here"]
    device.say(b"hello", to=far.vpn_ipv4)
    assert far.hear().endswith(b"hello")


def test_keepalive_is_sent_to_a_silent_peer(device: Device) -> None:
    far = device.add_peer(1, keepalive_interval_s=1)
    assert far.hear() == KEEPALIVE


def test_silent_peer_expires_and_is_forgotten(device: Device) -> None:
    device.add_peer(1, keepalive_timeout_s=1)
    assert device.worker.event() == PeerExpired(1, 101)
    assert device.worker.ask(RemovePeer(1)).error == "PEER_NOT_FOUND"


def test_deleted_interface_is_told_once_and_commands_still_work(device: Device) -> None:
    far = device.add_peer(1, keepalive_timeout_s=1)
    delete_link(device.namespace, "tun0")
    assert device.worker.event() == DeviceClosed(errno.EBADFD)
    far.send_raw(b"is anybody there")
    device.add_socket(2, "127.0.0.1")
    device.add_peer(2, socket_id=2)
    for command in (UpdatePeer(1, keepalive_interval_s=1), RemovePeer(1), RemovePeer(2), RemoveSocket(1)):
        device.worker.do(command)
    device.worker.do(RemoveSocket(2))


# What epoll reports for ever must not be watched for ever; in this process


class Bench:
    """A packet path over a TUN and one UDP socket, and its epoll."""

    def __init__(self, namespace: str, tun_fd: int) -> None:
        self.poller = epoll()
        self.tun = TunDevice(tun_fd)
        self.row = array("Q", bytes(ROW_WORDS * 8))
        self.path = PacketPath(DataChannel(Mode.MP, self.row), self.tun, self.poller)
        self.application = udp_in(namespace, HOST)
        self.udp = udp_in(namespace, "127.0.0.1")
        self.transport = UdpTransport(1, self.udp.fileno())
        self.path.add_transport(self.transport)
        self.far = udp_in(namespace, "127.0.0.1")

    def add_peer(self) -> Peer:
        vpn_ipv4 = IPv4Address("10.8.0.11").packed
        peer = Peer(peer_id=1, uid=101, socket_id=1, remote=self.far.getsockname(), row=self.row, vpn_ipv4=vpn_ipv4)
        self.path.channel.add_peer(peer, 0)
        self.path.install_key(1, KeySlot.PRIMARY, near_key(1))
        return peer

    def round(self) -> None:
        """Waits until something is reported, and serves it."""
        reported = self.poller.poll(10)
        assert reported
        for fd, mask in reported:
            self.path.serve(fd, mask)

    def is_quiet(self) -> bool:
        """Whether nothing is reported."""
        return self.poller.poll(0) == []


@pytest.fixture
def bench(namespace: str) -> Iterator[Bench]:
    with tun_in(namespace, "tun0", f"{HOST}/24") as tun_fd:
        yield Bench(namespace, tun_fd)


def test_deleted_interface_is_reported_once(namespace: str, bench: Bench) -> None:
    delete_link(namespace, "tun0")
    bench.far.sendto(b"unread", bench.udp.getsockname())
    bench.round()
    assert bench.is_quiet()
    assert bench.path.take_messages() == [DeviceClosed(errno.EBADFD)]


def test_interface_found_gone_by_a_read_is_told_as_well(namespace: str, bench: Bench) -> None:
    delete_link(namespace, "tun0")
    bench.path.serve(bench.tun.fd, 0)
    assert bench.path.take_messages() == [DeviceClosed(errno.EBADFD)]


def test_socket_that_its_owner_shut_down_is_reported_once(bench: Bench) -> None:
    with pytest.raises(OSError, match="not connected"):  # nevertheless it is shut down
        bench.udp.shutdown(socket.SHUT_RDWR)
    bench.round()
    assert bench.is_quiet()


def test_error_of_a_socket_is_reported_once(bench: Bench) -> None:
    ip_recverr = 11
    bench.udp.setsockopt(socket.IPPROTO_IP, ip_recverr, 1)
    nobody = bench.far.getsockname()
    bench.far.close()
    bench.udp.sendto(b"is anybody there", nobody)
    assert bench.poller.poll(10) == [(bench.transport.fd, EPOLLERR)]
    bench.round()
    assert bench.is_quiet()


def test_socket_removed_while_its_owner_keeps_it_open_is_reported_no_more(bench: Bench) -> None:
    bench.path.remove_transport(bench.transport)
    bench.far.sendto(b"for the owner", bench.udp.getsockname())
    assert select([bench.udp], [], [], 10)[0] == [bench.udp]
    assert bench.is_quiet()


def test_one_source_gets_one_batch_a_round(bench: Bench) -> None:
    total = 2 * BATCH
    for _ in range(total):
        bench.far.sendto(b"garbage", bench.udp.getsockname())
    counts = [0]
    while counts[-1] < total:
        bench.round()
        counts.append(bench.row[Column.DROPS + DropReason.RX_TRUNCATED])
    assert max(after - before for before, after in pairwise(counts)) <= BATCH


def test_tun_is_read_after_a_write_without_another_wake_up(bench: Bench) -> None:
    bench.add_peer()
    sealed = far_key(1).seal(1, ipv4("10.8.0.11", HOST, socket.IPPROTO_UDP, bytes(8)))
    assert sealed is not None
    bench.far.sendto(sealed, bench.udp.getsockname())
    bench.application.sendto(b"hello", ("10.8.0.11", 9))
    for ready in (bench.udp.fileno(), bench.tun.fd):
        assert select([ready], [], [], 10)[0] == [ready]
    bench.path.serve(bench.transport.fd, EPOLLIN)
    assert bench.far.recv(100)[0] >> 3 == OPCODE_DATA_V2


def test_exhausted_key_is_told(bench: Bench) -> None:
    peer = bench.add_peer()
    assert peer.keys.primary is not None
    peer.keys.primary.sent = PACKET_ID_MAX
    bench.application.sendto(b"one too many", ("10.8.0.11", 9))
    bench.round()
    assert bench.path.take_messages() == [KeyExhausted(1, 101, 0)]


def test_nothing_is_due_when_the_device_is_gone(namespace: str, bench: Bench) -> None:
    bench.add_peer()
    bench.path.channel.set_keepalive(1, 1, 1, 0)
    before = bench.path.next_deadline_ns()
    delete_link(namespace, "tun0")
    bench.round()
    assert (before, bench.path.next_deadline_ns()) == (1_000_000_000, None)
