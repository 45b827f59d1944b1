from __future__ import annotations

import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from msgspec import UNSET

from dataplane.datachannel.epoch import EpochKey
from dataplane.messages import (
    AddPeer,
    AddSocket,
    Command,
    Configure,
    DeleteKey,
    Endpoint,
    InstallKey,
    RemovePeer,
    RemoveSocket,
    SetFloatPolicy,
    SetTcpMss,
    SwapKeys,
    UpdatePeer,
)
from dataplane.transport.udp_socket import bind_udp
from dataplane.vocabulary import LINGER_MAX_NS, Cipher, Column, DataFormat, DropReason, KeySlot, Mode
from tests.datachannel.epoch_far_end import EpochFarEnd
from tests.tun.conftest import udp_in
from tests.worker.conftest import ROWS, Device, Worker, install_key

pytestmark = pytest.mark.root

REMOTE = Endpoint(IPv4Address("127.0.0.1").packed, 1194)
REMOTE6 = Endpoint(IPv6Address("::1").packed, 1194)
ADDRESS_OF_PEER_1 = IPv4Address("10.8.0.11").packed


def add_peer(peer_id: int = 2, **changes: object) -> AddPeer:
    fields = {"uid": 5, "row": 2, "socket_id": 1, "remote": REMOTE, "vpn_ipv4": IPv4Address("10.8.0.99").packed}
    return AddPeer(peer_id, **fields | changes)  # type: ignore[arg-type]


def bad_key(**changes: object) -> InstallKey:
    fields = {"slot": 0, "key_id": 0, "cipher": 1, "encrypt_key": bytes(32), "encrypt_nonce_tail": bytes(8)}
    fields |= {"decrypt_key": bytes(32), "decrypt_nonce_tail": bytes(8)}
    return InstallKey(1, **fields | changes)  # type: ignore[arg-type]


def key_of_another_length() -> InstallKey:
    return bad_key(encrypt_key=b"correct horse battery staple")


# Errors. The device has socket 1 (IPv4) and peer 1.

REFUSED: list[tuple[str, Command]] = [
    ("PEER_NOT_FOUND", UpdatePeer(9)),
    ("PEER_NOT_FOUND", RemovePeer(9)),
    ("PEER_NOT_FOUND", install_key(9)),
    ("PEER_NOT_FOUND", SwapKeys(9)),
    ("PEER_NOT_FOUND", DeleteKey(9, KeySlot.PRIMARY)),
    ("PEER_EXISTS", add_peer(1)),
    ("PEER_EXISTS", add_peer(2, vpn_ipv4=ADDRESS_OF_PEER_1)),
    ("SOCKET_NOT_FOUND", add_peer(socket_id=9)),
    ("SOCKET_NOT_FOUND", RemoveSocket(9)),
    ("ADDRESS_FAMILY_MISMATCH", add_peer(remote=REMOTE6)),
    ("ADDRESS_FAMILY_MISMATCH", add_peer(local=REMOTE6.address)),
    ("ADDRESS_FAMILY_MISMATCH", UpdatePeer(1, remote=REMOTE6)),
    ("INTERNAL", Configure("device", Mode.MP, ROWS)),
    ("INTERNAL", AddSocket(9)),
    ("INTERNAL", add_peer(0xFFFFFF)),
    ("INTERNAL", add_peer(-1)),
    ("INTERNAL", add_peer(row=0)),
    ("INTERNAL", add_peer(row=ROWS)),
    ("INTERNAL", add_peer(remote=Endpoint(bytes(5), 1194))),
    ("INTERNAL", add_peer(remote=Endpoint(bytes(4), 0))),
    ("INTERNAL", add_peer(vpn_ipv4=bytes(16))),
    ("INTERNAL", add_peer(vpn_ipv6=bytes(4))),
    ("INTERNAL", add_peer(keepalive_interval_s=-1)),
    ("INTERNAL", UpdatePeer(1, keepalive_timeout_s=86401)),
    ("INTERNAL", UpdatePeer(1, tx_id=0xFFFFFF)),
    ("INTERNAL", UpdatePeer(1, socket_id=1)),
    ("SOCKET_NOT_FOUND", UpdatePeer(1, remote=REMOTE, socket_id=9)),
    ("INTERNAL", add_peer(tcp_mss_ipv4=-1)),
    ("INTERNAL", UpdatePeer(1, tcp_mss_ipv6=65496)),
    ("INTERNAL", SetTcpMss(65496, 0)),
    ("INTERNAL", SetFloatPolicy(0)),
    ("INTERNAL", DeleteKey(1, 2)),
    ("INTERNAL", DeleteKey(1, KeySlot.PRIMARY, linger_ns=1)),
    ("INTERNAL", DeleteKey(1, KeySlot.SECONDARY, linger_ns=-1)),
    ("INTERNAL", DeleteKey(1, KeySlot.SECONDARY, linger_ns=LINGER_MAX_NS + 1)),
    ("PEER_NOT_FOUND", DeleteKey(9, KeySlot.SECONDARY, linger_ns=1)),
    ("INTERNAL", bad_key(slot=2)),
    ("INTERNAL", bad_key(key_id=8)),
    ("INTERNAL", bad_key(cipher=0)),
    ("INTERNAL", bad_key(decrypt_nonce_tail=bytes(7))),
    ("INTERNAL", key_of_another_length()),
    ("INTERNAL", bad_key(data_format=3)),
    ("INTERNAL", bad_key(data_format=DataFormat.EPOCH, cipher_key_length=31)),
    ("INTERNAL", bad_key(data_format=DataFormat.EPOCH, cipher_key_length=32, decrypt_key=bytes(31))),
]


@pytest.mark.parametrize(("reason", "command"), REFUSED)
def test_command_that_cannot_be_done_says_why_and_changes_nothing(
    device: Device, reason: str, command: Command
) -> None:
    far = device.add_peer(1)
    reply = device.worker.ask(command)
    assert (reply.error, reply.detail != "") == (reason, True)
    far.say(b"hello")
    assert device.application.recv(100) == b"hello"


def test_key_bytes_do_not_show_in_a_refusal(device: Device) -> None:
    device.add_peer(1)
    assert "horse" not in device.worker.ask(key_of_another_length()).detail


@pytest.mark.parametrize("command", [AddSocket(1), add_peer(), SwapKeys(1)])
def test_nothing_can_be_done_before_configure(worker: Worker, command: Command) -> None:
    with bind_udp(IPv4Address("127.0.0.1"), 0) as udp:
        descriptors = [udp.fileno()] if isinstance(command, AddSocket) else []
        assert worker.ask(command, *descriptors).error == "INTERNAL"


@pytest.mark.parametrize(("mode", "rows"), [(7, ROWS), (Mode.MP, ROWS + 1), (Mode.MP, 0), (Mode.MP, 1 << 60)])
def test_configure_that_failed_can_be_repeated(unconfigured: Device, mode: int, rows: int) -> None:
    assert unconfigured.worker.ask(Configure("device", mode, rows), *unconfigured.descriptors).error == "INTERNAL"
    far = unconfigured.configure().add_peer(1)
    far.say(b"hello")
    assert unconfigured.application.recv(100) == b"hello"


# Sockets


def test_number_of_a_socket_is_given_once(device: Device) -> None:
    with bind_udp(IPv4Address("127.0.0.1"), 0) as udp:
        assert device.worker.ask(AddSocket(1), udp.fileno()).error == "SOCKET_EXISTS"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_descriptor_that_is_no_bound_udp_socket_is_refused(device: Device, family: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        assert device.worker.ask(AddSocket(2), other.fileno()).error == "INTERNAL"


def test_removed_socket_is_closed_when_the_reply_comes(device: Device) -> None:
    device.worker.do(RemoveSocket(1))
    udp_in(device.namespace, "127.0.0.1", device.port).close()


def test_removed_socket_is_served_no_more_although_somebody_else_holds_it(device: Device) -> None:
    udp = udp_in(device.namespace, "127.0.0.1")
    device.worker.do(AddSocket(2), udp.fileno())
    device.worker.do(RemoveSocket(2))
    with udp, udp_in(device.namespace, "127.0.0.1") as sender:
        sender.sendto(b"for the other one", udp.getsockname())
        assert udp.recv(100) == b"for the other one"


def test_packet_to_a_peer_whose_socket_was_removed_is_a_drop(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(RemoveSocket(1))
    device.say(b"hello", to=far.vpn_ipv4)
    assert device.drops(1) == {DropReason.TX_SEND_FAILED: 1}


def test_descriptors_that_a_command_does_not_take_are_closed(device: Device) -> None:
    reading, writing = os.pipe()
    assert device.worker.ask(SwapKeys(1), writing).error == "INTERNAL"
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_worker_keeps_one_descriptor_of_each_thing(device: Device) -> None:
    held = sorted(str(path.readlink()).partition(":")[0] for path in device.worker.held())
    # The memfd is mmap's own; loop and packet path have an epoll each; the sockets: the command channel and socket 1.
    assert held == ["/dev/net/tun", "/memfd", "anon_inode", "anon_inode", "socket", "socket"]


def test_removed_socket_leaves_no_descriptor(device: Device) -> None:
    before = len(device.worker.held())
    outlet, far_outlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with outlet, far_outlet:
        device.add_socket(2, "127.0.0.1", outlet.fileno())
    during = len(device.worker.held())
    device.worker.do(RemoveSocket(2))
    assert (during, len(device.worker.held())) == (before + 2, before)


@pytest.mark.parametrize("count", [0, 3])
def test_socket_comes_with_one_descriptor_or_two(device: Device, count: int) -> None:
    with bind_udp(IPv4Address("127.0.0.1"), 0) as udp:
        assert device.worker.ask(AddSocket(2), *[udp.fileno()] * count).error == "INTERNAL"


def test_control_outlet_that_is_none_is_refused_whole(device: Device) -> None:
    before = len(device.worker.held())
    with bind_udp(IPv4Address("127.0.0.1"), 0) as udp:
        assert device.worker.ask(AddSocket(2), udp.fileno(), udp.fileno()).error == "INTERNAL"
    assert device.worker.ask(RemoveSocket(2)).error == "SOCKET_NOT_FOUND"
    assert len(device.worker.held()) == before


# Peers and keys


def test_update_moves_a_peer(device: Device) -> None:
    far = device.add_peer(1)
    far.move()
    device.worker.do(UpdatePeer(1, remote=far.endpoint))
    device.say(b"hello", to=far.vpn_ipv4)
    assert far.hear().endswith(b"hello")


def test_update_gives_a_peer_another_vpn_address(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(UpdatePeer(1, vpn_ipv4=IPv4Address("10.8.0.77").packed))
    device.say(b"hello", to="10.8.0.77")
    assert far.hear().endswith(b"hello")


def test_update_sets_and_empties_the_peer_id_on_packets_to_a_peer(device: Device) -> None:
    far = device.add_peer(1)
    numbers = []
    for tx_id in (0xABCDE, UNSET, None):
        device.worker.do(UpdatePeer(1, tx_id=tx_id))
        device.say(b"hello", to=far.vpn_ipv4)
        numbers.append(int.from_bytes(far.udp.recv(100)[1:4], "big"))
    assert numbers == [0xABCDE, 0xABCDE, 1]


def test_update_sets_and_empties_the_local_address(device: Device) -> None:
    device.worker.do(AddSocket(2), bind_in(device, "0.0.0.0"))
    far = device.add_peer(1, socket_id=2)
    device.worker.do(UpdatePeer(1, local=IPv4Address("127.0.0.7").packed))
    device.say(b"one", to=far.vpn_ipv4)
    first = far.udp.recvfrom(100)[1][0]
    device.worker.do(UpdatePeer(1, local=None))
    device.say(b"two", to=far.vpn_ipv4)
    assert (first, far.udp.recvfrom(100)[1][0]) == ("127.0.0.7", "127.0.0.1")


def test_update_to_the_vpn_address_of_another_peer_is_refused_whole(device: Device) -> None:
    device.add_peer(1)
    far = device.add_peer(2)
    old = far.endpoint
    far.move()
    update = UpdatePeer(2, remote=far.endpoint, vpn_ipv4=ADDRESS_OF_PEER_1)
    assert device.worker.ask(update).error == "VPN_ADDRESS_IN_USE"
    with udp_in(device.namespace, "127.0.0.1", old.port) as where_it_was:
        device.say(b"hello", to=far.vpn_ipv4)
        assert where_it_was.recv(100) != b""


def test_removed_peer_counts_no_more(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(RemovePeer(1))
    before = device.page.snapshot(1)
    far.say(b"hello")
    device.say(b"hello", to=far.vpn_ipv4)
    neighbour = device.add_peer(2)
    neighbour.say(b"after that")
    assert device.application.recv(100) == b"after that"
    assert device.page.snapshot(1) == before


def test_second_peer_of_a_p2p_device_is_refused(unconfigured: Device) -> None:
    device = unconfigured.configure(Mode.P2P)
    device.add_peer(1)
    assert device.worker.ask(add_peer(2, vpn_ipv4=None)).error == "PEER_EXISTS"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: SwapKeys(1), DropReason.TX_NO_KEY),
        (lambda: DeleteKey(1, KeySlot.PRIMARY), DropReason.TX_NO_KEY),
    ],
)
def test_peer_without_a_primary_key_gets_nothing(
    device: Device, change: Callable[[], Command], reason: DropReason
) -> None:
    far = device.add_peer(1)
    device.worker.do(change())
    device.say(b"hello", to=far.vpn_ipv4)
    assert device.drops(1) == {reason: 1}


def test_secondary_key_still_opens_after_a_swap(device: Device) -> None:
    far = device.add_peer(1)
    device.worker.do(SwapKeys(1))
    far.say(b"hello")
    assert device.application.recv(100) == b"hello"


@pytest.mark.parametrize("length", [16, 24, 32])
def test_aes_key_of_every_length_is_installed(device: Device, length: int) -> None:
    device.add_peer(1)
    device.worker.do(bad_key(slot=1, encrypt_key=bytes(length), decrypt_key=bytes(length)))


def test_chacha20_poly1305_key_is_installed(device: Device) -> None:
    device.add_peer(1)
    device.worker.do(bad_key(slot=1, cipher=Cipher.CHACHA20_POLY1305))


def test_key_with_epochs_carries_packets_both_ways(device: Device) -> None:
    far = device.add_peer(1)
    epochs = EpochFarEnd(EpochKey, key_id=5)
    ours, theirs = epochs.secrets
    device.worker.do(
        bad_key(
            key_id=5,
            encrypt_key=ours,
            decrypt_key=theirs,
            encrypt_nonce_tail=b"",
            decrypt_nonce_tail=b"",
            data_format=DataFormat.EPOCH,
            cipher_key_length=32,
        )
    )
    far.send_raw(epochs.seal(device.packet_from(far, b"hello"), 2, 1))
    assert device.application.recv(100) == b"hello"
    device.say(b"answer", to=far.vpn_ipv4)
    peer_id, epoch, counter, packet = epochs.open(far.udp.recv(65535))
    assert (peer_id, epoch, counter, packet[28:]) == (1, 2, 1, b"answer")


def test_sent_packet_ids_move_with_their_key(device: Device) -> None:
    far = device.add_peer(1)
    device.say(b"hello", to=far.vpn_ipv4)
    far.hear()
    device.worker.do(SwapKeys(1))
    row = device.page.snapshot(1)
    assert (row[Column.SENT_PRIMARY], row[Column.SENT_SECONDARY]) == (0, 1)


def bind_in(device: Device, address: str) -> int:
    return udp_in(device.namespace, address).detach()
