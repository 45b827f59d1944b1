from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from dataplane.datachannel.wire import KEEPALIVE
from dataplane.messages import (
    DeviceClosed,
    PeerExpired,
    PeerFloatAsked,
    PeerFloated,
    RemovePeer,
    RemoveSocket,
    SetFloatPolicy,
    UpdatePeer,
)
from dataplane.statistics_page import DEVICE_ROW, drops_of
from dataplane.transport.udp_socket import UDP_SEGMENT
from dataplane.tun.link import set_link
from dataplane.vocabulary import Column, DropReason, FloatPolicy, Mode
from tests.tun.conftest import delete_link, udp_in
from tests.tun.packets import UDP, Packet
from tests.worker.conftest import Device, FarPeer

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


# Trains and control packets, through a real worker


def test_every_packet_of_a_train_reaches_the_application(device: Device) -> None:
    far = device.add_peer(1)
    said = [str(number).encode() for number in range(10, 40)]
    far.send_train([far.seal(device.packet_from(far, payload)) for payload in said])
    assert [device.application.recv(100) for _ in said] == said


def test_forged_and_replayed_packets_in_a_train_cost_only_themselves(device: Device) -> None:
    far = device.add_peer(1)
    sealed = [far.seal(device.packet_from(far, bytes([number]))) for number in range(10)]
    sealed[3] = sealed[3][:-1] + bytes([sealed[3][-1] ^ 1])
    sealed[7] = sealed[5]
    far.send_train(sealed)
    assert [device.application.recv(100)[0] for _ in range(8)] == [0, 1, 2, 4, 5, 6, 8, 9]
    assert device.drops(1, count=2) == {DropReason.RX_DECRYPT_FAILED: 1, DropReason.RX_REPLAYED: 1}


def test_packets_that_were_joined_for_the_device_are_counted_one_by_one(device: Device) -> None:
    far = device.add_peer(1)
    first = Packet(protocol=UDP, ports=(7, device.application.getsockname()[1]), payload=bytes(1000))
    row = [first.with_(identification=number) for number in range(3)]
    far.send_train([far.seal(packet.pack()) for packet in row])
    assert [device.application.recv(2000) for _ in row] == [bytes(1000)] * 3
    device.worker.settle()
    counters = device.page.snapshot(1)
    assert (counters[Column.VPN_RX_PACKETS], counters[Column.VPN_RX_BYTES]) == (3, 3 * 1028)


def test_frame_of_many_packets_reaches_the_peer_as_these(device: Device) -> None:
    far = device.add_peer(1)
    device.application.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
    device.say(bytes(450), to=far.vpn_ipv4)
    assert [len(far.hear()) for _ in range(5)] == [128] * 4 + [78]
    device.worker.settle()
    counters = device.page.snapshot(1)
    assert (counters[Column.VPN_TX_PACKETS], counters[Column.VPN_TX_BYTES]) == (5, 590)


P_CONTROL_V1 = bytes([4 << 3])
P_DATA_V1 = bytes([6 << 3])


@pytest.fixture
def outlet() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The worker's end and the control plane's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def far_peer_beside_a_control_plane(device: Device, outlet: socket.socket) -> FarPeer:
    """Peer 1 on a socket that has a control outlet."""
    port = device.add_socket(2, "127.0.0.1", outlet.fileno())
    far = device.add_peer(1, socket_id=2)
    far.port = port
    return far


def test_control_packets_reach_the_control_plane_with_their_source(
    device: Device, outlet: tuple[socket.socket, socket.socket]
) -> None:
    far = far_peer_beside_a_control_plane(device, outlet[0])
    for packet in (P_CONTROL_V1 + b"hello", P_DATA_V1 + bytes(100)):
        far.send_raw(packet)
        message = outlet[1].recv(1000)
        mapped = b"\0" * 10 + b"\xff\xff" + IPv4Address("127.0.0.1").packed
        assert message == b"\x04\0" + far.endpoint.port.to_bytes(2, "big") + bytes(4) + mapped + mapped + packet
    far.say(b"data")
    assert device.application.recv(100) == b"data"
    device.worker.settle()
    assert drops_of(device.page.snapshot(DEVICE_ROW)) == {}


def test_control_packets_inside_a_train_of_data_are_picked_out(
    device: Device, outlet: tuple[socket.socket, socket.socket]
) -> None:
    far = far_peer_beside_a_control_plane(device, outlet[0])
    train = [far.seal(device.packet_from(far, bytes([number]))) for number in range(10)]
    for number in (0, 4, 9):
        train[number] = P_CONTROL_V1 + bytes([number]) * (len(train[number]) - 1)
    far.send_train(train)
    assert [outlet[1].recv(1000)[40:] for _ in range(3)] == [train[number] for number in (0, 4, 9)]
    assert [device.application.recv(100)[0] for _ in range(7)] == [1, 2, 3, 5, 6, 7, 8]


def test_empty_datagram_is_no_control_packet(device: Device, outlet: tuple[socket.socket, socket.socket]) -> None:
    far = far_peer_beside_a_control_plane(device, outlet[0])
    far.send_raw(b"")
    assert device.drops(DEVICE_ROW) == {DropReason.RX_TRUNCATED: 1}


def test_control_packet_for_which_there_is_no_room_is_a_drop(
    device: Device, outlet: tuple[socket.socket, socket.socket]
) -> None:
    far = far_peer_beside_a_control_plane(device, outlet[0])
    outlet[1].close()
    far.send_raw(P_CONTROL_V1 + bytes(30))
    far.say(b"data")
    assert device.application.recv(100) == b"data"
    assert device.drops(DEVICE_ROW) == {DropReason.RX_CONTROL_QUEUE_FULL: 1}


# Events, from a real worker


def test_float_is_told_and_followed(device: Device) -> None:
    far = device.add_peer(1)
    far.say(b"here")
    far.move()
    far.say(b"there")
    assert device.worker.event() == PeerFloated(1, 101, far.endpoint, 1)
    device.say(b"hello", to=far.vpn_ipv4)
    assert far.hear().endswith(b"hello")


def test_peer_that_may_not_float_is_served_where_it_was(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(SetFloatPolicy(FloatPolicy.DENY))
    with udp_in(device.namespace, "127.0.0.1") as elsewhere:
        elsewhere.sendto(far.seal(device.packet_from(far, b"from elsewhere")), ("127.0.0.1", device.port))
        assert device.drops(1) == {DropReason.RX_FLOAT_REFUSED: 1}
    far.say(b"from home")
    assert device.application.recv(100) == b"from home"
    device.say(b"hello", to=far.vpn_ipv4)
    assert far.hear().endswith(b"hello")


def test_peer_that_asks_may_go_on_where_it_asked_for_once_it_is_given_that(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(SetFloatPolicy(FloatPolicy.ASK))
    far.move()
    far.say(b"not yet")
    assert device.worker.event() == PeerFloatAsked(1, 101, far.endpoint, 1)
    device.worker.do(UpdatePeer(1, remote=far.endpoint))
    far.say(b"there")
    assert device.application.recv(100) == b"there"
    device.say(b"hello", to=far.vpn_ipv4)
    assert far.hear().endswith(b"hello")
    assert device.drops(1) == {DropReason.RX_FLOAT_REFUSED: 1}


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
