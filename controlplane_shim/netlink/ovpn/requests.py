"""Requests of family ovpn, decoded to operations.

Knows what the driver refuses whatever peers there are, in its order and with its words. Must not know whether a peer
exists. Where the driver is stricter than it needs to be, what a known program sends is taken: remotes of TCP peers
(OpenVPN 3), which the data plane ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EINVAL, ENOTSOCK
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from controlplane_shim.netlink.attributes import Attributes, Malformed, Nest
from controlplane_shim.netlink.codec import FD_MAX, PEER_ID_UNDEF, Decode, check_keys
from controlplane_shim.netlink.ovpn.tables import (
    CMD_KEY_DEL,
    CMD_KEY_GET,
    CMD_KEY_NEW,
    CMD_KEY_SWAP,
    CMD_PEER_DEL,
    CMD_PEER_GET,
    CMD_PEER_NEW,
    CMD_PEER_SET,
    Key,
    KeyDirection,
    Peer,
)
from controlplane_shim.netlink.sockaddr import unmap
from controlplane_shim.operations import (
    DelKey,
    DelPeer,
    GetKey,
    GetPeer,
    NewKey,
    NewPeer,
    Remote,
    SetPeer,
    SwapKeys,
)

_Address = IPv4Address | IPv6Address


def _refusal(text: str) -> Malformed:
    return Malformed(EINVAL, text)


def _peer_new(ifindex: int, nest: Attributes, multipeer: bool) -> NewPeer:
    peer_id = _check_peer(nest, multipeer)
    socket_fd = nest.require(Peer.SOCKET)
    vpn_ipv4 = IPv4Address(nest.get(Peer.VPN_IPV4) or 0)
    vpn_ipv6 = IPv6Address(nest.get(Peer.VPN_IPV6) or 0)
    if multipeer and vpn_ipv4.is_unspecified and vpn_ipv6.is_unspecified:
        raise _refusal("at least one VPN IP must be configured in MP mode")
    if peer_id == PEER_ID_UNDEF:
        raise _refusal("ID stands for an undefined peer")
    if socket_fd > FD_MAX:
        raise Malformed(ENOTSOCK, f"cannot lookup peer socket (fd={socket_fd})")
    interval, timeout = _keepalives(nest)
    return NewPeer(
        ifindex=ifindex,
        peer_id=peer_id,
        socket_fd=socket_fd,
        remote=_remote(nest),
        local=_local(nest),
        vpn_ipv4=None if vpn_ipv4.is_unspecified else vpn_ipv4,
        vpn_ipv6=None if vpn_ipv6.is_unspecified else vpn_ipv6,
        keepalive_interval=interval,
        keepalive_timeout=timeout,
        tx_id=nest.get(Peer.TX_ID),
    )


def _peer_set(ifindex: int, nest: Attributes, multipeer: bool) -> SetPeer:
    peer_id = _check_peer(nest, multipeer)
    interval, timeout = _keepalives(nest)
    vpn_ipv4, vpn_ipv6 = nest.get(Peer.VPN_IPV4), nest.get(Peer.VPN_IPV6)
    return SetPeer(
        ifindex=ifindex,
        peer_id=peer_id,
        keepalive_interval=interval,
        keepalive_timeout=timeout,
        remote=_remote(nest),
        local=_local(nest),
        vpn_ipv4=None if vpn_ipv4 is None else IPv4Address(vpn_ipv4),
        vpn_ipv6=None if vpn_ipv6 is None else IPv6Address(vpn_ipv6),
        tx_id=nest.get(Peer.TX_ID),
    )


def _check_peer(nest: Attributes, multipeer: bool) -> int:
    """The driver's checks that PEER_NEW and PEER_SET have in common, in its order; the peer-id."""
    peer_id = nest.require(Peer.ID)
    remote_ipv4, remote_ipv6 = nest.get(Peer.REMOTE_IPV4), nest.get(Peer.REMOTE_IPV6)
    local_ipv4, local_ipv6 = nest.get(Peer.LOCAL_IPV4), nest.get(Peer.LOCAL_IPV6)
    has_remote = remote_ipv4 is not None or remote_ipv6 is not None
    has_port = nest.get(Peer.REMOTE_PORT) is not None
    remote, local = _address(remote_ipv4, remote_ipv6), _address(local_ipv4, local_ipv6)
    rules = (
        (remote_ipv4 is not None and remote_ipv6 is not None, "cannot specify both remote IPv4 or IPv6 address"),
        (has_port and not has_remote, "cannot specify remote port without IP address"),
        (has_remote and not has_port, "cannot specify remote IP address without port"),
        (local_ipv4 is not None and remote_ipv4 is None, "cannot specify local IPv4 address without remote"),
        (local_ipv6 is not None and remote_ipv6 is None, "cannot specify local IPV6 address without remote"),
        (
            local is not None and remote is not None and local.version != remote.version,
            "mismatching local and remote address families",
        ),
        (
            nest.get(Peer.REMOTE_IPV6_SCOPE_ID) is not None and not isinstance(remote, IPv6Address),
            "cannot specify scope id without remote IPv6 address",
        ),
        (
            not multipeer and (nest.get(Peer.VPN_IPV4) is not None or nest.get(Peer.VPN_IPV6) is not None),
            "unexpected VPN IP in P2P mode",
        ),
        (
            (nest.get(Peer.KEEPALIVE_INTERVAL) is None) is not (nest.get(Peer.KEEPALIVE_TIMEOUT) is None),
            "keepalive interval and timeout are required together",
        ),
    )
    for broken, sentence in rules:
        if broken:
            raise _refusal(sentence)
    return peer_id


def _address(ipv4: int | None, ipv6: bytes | None) -> _Address | None:
    """Of two attributes the one that is there, unmapped; IPv4 prevails, as in the driver."""
    if ipv4 is not None:
        return IPv4Address(ipv4)
    return None if ipv6 is None else unmap(IPv6Address(ipv6))


def _remote(nest: Attributes) -> Remote | None:
    address = _address(nest.get(Peer.REMOTE_IPV4), nest.get(Peer.REMOTE_IPV6))
    if address is None:
        return None
    return Remote(address, nest.require(Peer.REMOTE_PORT), nest.get(Peer.REMOTE_IPV6_SCOPE_ID) or 0)


def _local(nest: Attributes) -> _Address | None:
    """The unspecified address is the driver's word for "none"."""
    address = _address(nest.get(Peer.LOCAL_IPV4), nest.get(Peer.LOCAL_IPV6))
    return None if address is None or address.is_unspecified else address


def _keepalives(nest: Attributes) -> tuple[int | None, int | None]:
    """Interval and timeout; a zero turns both off."""
    interval, timeout = nest.get(Peer.KEEPALIVE_INTERVAL), nest.get(Peer.KEEPALIVE_TIMEOUT)
    if interval is None or timeout is None:
        return None, None
    return (interval, timeout) if interval and timeout else (0, 0)


def _peer_del(ifindex: int, nest: Attributes, _multipeer: bool) -> DelPeer:
    return DelPeer(ifindex, nest.require(Peer.ID))


def _peer_get(ifindex: int, nest: Attributes, _multipeer: bool) -> GetPeer:
    peer_id = nest.require(Peer.ID)
    _expect_only(nest, Peer.ID.number)
    return GetPeer(ifindex, peer_id)


def _key_new(ifindex: int, nest: Attributes, _multipeer: bool) -> NewKey:
    peer_id = nest.require(Key.PEER_ID)
    slot = nest.require(Key.SLOT)
    key_id = nest.require(Key.KEY_ID)
    cipher = nest.require(Key.CIPHER_ALG)
    encrypt = nest.require(Key.ENCRYPT_DIR)
    decrypt = nest.require(Key.DECRYPT_DIR)
    if not cipher:
        raise _refusal("unsupported cipher")
    key = NewKey(
        ifindex=ifindex,
        peer_id=peer_id,
        slot=slot,
        key_id=key_id,
        cipher=cipher,
        encrypt_key=encrypt.require(KeyDirection.CIPHER_KEY),
        encrypt_nonce_tail=encrypt.require(KeyDirection.NONCE_TAIL),
        decrypt_key=decrypt.require(KeyDirection.CIPHER_KEY),
        decrypt_nonce_tail=decrypt.require(KeyDirection.NONCE_TAIL),
    )
    check_keys(cipher, key.encrypt_key, key.decrypt_key)
    return key


def _key_get(ifindex: int, nest: Attributes, _multipeer: bool) -> GetKey:
    peer_id, slot = nest.require(Key.PEER_ID), nest.require(Key.SLOT)
    _expect_only(nest, Key.PEER_ID.number, Key.SLOT.number)
    return GetKey(ifindex, peer_id, slot)


def _key_swap(ifindex: int, nest: Attributes, _multipeer: bool) -> SwapKeys:
    return SwapKeys(ifindex, nest.require(Key.PEER_ID))


def _key_del(ifindex: int, nest: Attributes, _multipeer: bool) -> DelKey:
    return DelKey(ifindex, nest.require(Key.PEER_ID), nest.require(Key.SLOT_OR_BYTE))


def _expect_only(nest: Attributes, *expected: int) -> None:
    """What the driver checks itself, since the policy of its two GETs takes more."""
    for number in nest.numbers():
        if number not in expected:
            raise _refusal(f"unexpected attribute {number}")


COMMANDS: Final[Mapping[int, tuple[Nest, Decode]]] = {
    CMD_PEER_NEW: (Peer.NEW, _peer_new),
    CMD_PEER_SET: (Peer.SET, _peer_set),
    CMD_PEER_GET: (Peer.ANY, _peer_get),
    CMD_PEER_DEL: (Peer.DEL, _peer_del),
    CMD_KEY_NEW: (Key.NEW, _key_new),
    CMD_KEY_GET: (Key.GET, _key_get),
    CMD_KEY_SWAP: (Key.SWAP, _key_swap),
    CMD_KEY_DEL: (Key.DEL, _key_del),
}
"""The nest of each command, and what makes an operation of it."""
