"""Single rounds of the readable packet path, in this process.

What epoll reports for ever must not be watched for ever.
"""

from __future__ import annotations

import errno
import socket
from array import array
from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import pairwise
from select import EPOLLERR, select

import pytest

from dataplane.datachannel.channel import DataChannel, Peer
from dataplane.datachannel.wire import OPCODE_DATA_V2, PACKET_ID_MAX
from dataplane.messages import DeviceClosed, KeyExhausted
from dataplane.statistics_page import drops_of
from dataplane.transport.udp import UdpTransport
from dataplane.tun.device import DeviceGone, TunDevice
from dataplane.vocabulary import ROW_WORDS, Column, DropReason, KeySlot, Mode
from dataplane.worker.packet_path import BATCH, PacketPath
from tests.tun.conftest import delete_link, ipv4, tun_in, udp_in
from tests.tun.packets import slow_checksum
from tests.worker.conftest import HOST, far_key, near_key

pytestmark = pytest.mark.root


class Bench:
    """A readable packet path over a TUN and one UDP socket, and what its epoll reports."""

    def __init__(self, namespace: str, tun_fd: int) -> None:
        self.waker, self.wake_fd = socket.socketpair()
        self.row = array("Q", bytes(ROW_WORDS * 8))
        self.path = PacketPath(DataChannel(Mode.MP, self.row), tun_fd, self.wake_fd.fileno())
        self.reported = self.path._poller.poll
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
        assert self.reported(10)
        assert not self.path.serve()

    def is_quiet(self) -> bool:
        """Whether nothing is reported."""
        return self.reported(0) == []


@pytest.fixture
def bench(namespace: str) -> Iterator[Bench]:
    with tun_in(namespace, "tun0", f"{HOST}/24") as tun_fd:
        yield Bench(namespace, tun_fd)


def test_waiting_ends_when_commands_wait(bench: Bench) -> None:
    bench.waker.send(b"x")
    assert bench.path.serve()


def test_waiting_ends_when_a_deadline_has_come(bench: Bench) -> None:
    bench.add_peer()
    bench.path.channel.set_keepalive(1, 1, 0, 0)  # due a second after the machine was started
    assert not bench.path.serve()
    bench.path.run_timers()
    assert bench.far.recv(100)[0] >> 3 == OPCODE_DATA_V2


def test_deleted_interface_is_reported_once(namespace: str, bench: Bench) -> None:
    delete_link(namespace, "tun0")
    bench.far.sendto(b"unread", bench.udp.getsockname())
    bench.round()
    assert bench.is_quiet()
    assert bench.path.take_messages() == [DeviceClosed(errno.EBADFD)]


def test_interface_found_gone_by_a_read_is_told_as_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: TunDevice, __: int) -> None:
        raise DeviceGone(errno.EIO)

    monkeypatch.setattr(TunDevice, "read_batch", gone)
    bench.application.sendto(b"hello", ("10.8.0.11", 9))
    bench.round()
    assert bench.is_quiet()
    assert bench.path.take_messages() == [DeviceClosed(errno.EIO)]


def test_malformed_frames_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TunDevice, "read_batch", lambda _, __: ([], 2))
    bench.application.sendto(b"hello", ("10.8.0.11", 9))
    bench.round()
    assert drops_of(bench.row) == {DropReason.TX_BAD_VIRTIO_HEADER: 2}


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
    assert bench.reported(10) == [(bench.transport.fd, EPOLLERR)]
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


def test_answer_of_the_host_is_sent_without_another_wake_up(bench: Bench) -> None:
    bench.add_peer()
    echo_request = b"\x08\0" + slow_checksum(b"\x08\0" + bytes(6)).to_bytes(2, "big") + bytes(4)
    sealed = far_key(1).seal(1, ipv4("10.8.0.11", HOST, socket.IPPROTO_ICMP, echo_request))
    assert sealed is not None
    bench.far.sendto(sealed, bench.udp.getsockname())
    bench.round()
    bench.far.setblocking(False)
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
    delete_link(namespace, "tun0")
    bench.path.serve()
    bench.path.run_timers()
    assert bench.path.take_messages() == [DeviceClosed(errno.EBADFD)]
    bench.waker.send(b"x")
    assert bench.path.serve()
