"""The book of devices, sockets and peers."""

from __future__ import annotations

from controlplane_shim.operations import Family
from controlplane_shim.peers import Device, Peer, Socket


def device(*, multipeer: bool) -> Device:
    return Device("tun0.1", 5, multipeer, Family.OVPN_DCO_V2)


def socket_of(device: Device, inode: int) -> Socket:
    return device.sockets.setdefault(inode, Socket(inode, 1194))


def test_a_multipeer_device_keeps_peers_of_different_ids() -> None:
    mp = device(multipeer=True)
    socket = socket_of(mp, 1)
    assert [mp.add(Peer(peer_id, socket, peer_id)) for peer_id in (1, 2)] == [[], []]
    assert sorted(mp.peers) == [1, 2]
    assert socket.peers == 2


def test_the_same_peer_id_displaces_the_earlier_peer() -> None:
    mp = device(multipeer=True)
    socket = socket_of(mp, 1)
    mp.add(Peer(1, socket, 10))
    assert mp.add(Peer(1, socket, 11)) == [Peer(1, socket, 10)]
    assert socket.peers == 1


def test_a_second_peer_displaces_the_first_on_a_p2p_device() -> None:
    p2p = device(multipeer=False)
    socket = socket_of(p2p, 1)
    p2p.add(Peer(1, socket, 10))
    assert p2p.add(Peer(2, socket, 11)) == [Peer(1, socket, 10)]
    assert list(p2p.peers) == [2]


def test_a_socket_is_unused_when_its_last_peer_is_removed() -> None:
    mp = device(multipeer=True)
    used, unused = socket_of(mp, 1), socket_of(mp, 2)
    mp.add(Peer(1, used, 10))
    mp.add(Peer(2, unused, 11))
    mp.add(Peer(3, unused, 12))
    mp.remove(2)
    assert mp.unused_sockets() == []
    mp.remove(3)
    assert mp.unused_sockets() == [unused]


def test_a_peer_is_missing_from_a_snapshot_that_has_another_of_its_id() -> None:
    mp = device(multipeer=True)
    socket = socket_of(mp, 1)
    for peer_id in (1, 2, 3):
        mp.add(Peer(peer_id, socket, peer_id * 10))
    assert [peer.peer_id for peer in mp.missing_from({1: 10, 2: 99})] == [2, 3]


def test_the_socket_name_is_legal_in_the_data_plane() -> None:
    assert Socket(4026531840, 1194).name == "openvpn-4026531840"
