"""Requests of family ovpn-dco-v2, decoded to operations.

Knows what the driver refuses whatever exists. Must not know whether a device or peer exists.

A peer-id above 24 bits loses its upper bits. The driver lets that happen on the wire; here it happens at the door, so
that a peer has one name. 0xFFFFFF, which means "undefined" on the wire, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EINVAL, ENOTSOCK
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from controlplane_shim.netlink import sockaddr
from controlplane_shim.netlink.attributes import Attributes, Malformed, Nest
from controlplane_shim.netlink.codec import FD_MAX, PEER_ID_UNDEF, Decode, check_keys
from controlplane_shim.netlink.ovpn_dco_v2 import tables
from controlplane_shim.operations import DelKey, DelPeer, GetPeer, NewKey, NewPeer, SetPeer, SwapKeys

_KEY_ID_MAX: Final = 7


def _peer_id(value: int) -> int:
    peer_id = value & 0xFFFFFF
    if peer_id == PEER_ID_UNDEF:
        raise Malformed(EINVAL, "PEER_ID stands for an undefined peer")
    return peer_id


def _new_peer(ifindex: int, nest: Attributes, multipeer: bool) -> NewPeer:
    peer_id = _peer_id(nest.require(tables.NewPeer.PEER_ID))
    socket_fd = nest.require(tables.NewPeer.SOCKET)
    if socket_fd > FD_MAX:
        raise Malformed(ENOTSOCK, f"SOCKET is {socket_fd}, no descriptor")
    packed_remote = nest.get(tables.NewPeer.SOCKADDR_REMOTE)
    remote = None if packed_remote is None else sockaddr.unpack(packed_remote)
    packed_local = nest.get(tables.NewPeer.LOCAL_IP)
    local = None
    # Without a remote the peer is one of TCP, whose local address the driver ignores.
    if remote is not None and packed_local is not None:
        local = sockaddr.unpack_address(packed_local)
        if local.version != remote.address.version:
            raise Malformed(EINVAL, "LOCAL_IP is of another family than SOCKADDR_REMOTE")
    vpn_ipv4 = IPv4Address(nest.get(tables.NewPeer.IPV4) or 0)
    vpn_ipv6 = IPv6Address(nest.get(tables.NewPeer.IPV6) or 0)
    if multipeer and vpn_ipv4.is_unspecified and vpn_ipv6.is_unspecified:
        raise Malformed(EINVAL, "an MP device needs IPV4 or IPV6")
    return NewPeer(
        ifindex=ifindex,
        peer_id=peer_id,
        socket_fd=socket_fd,
        remote=remote,
        # The unspecified address is the driver's word for "none".
        local=None if local is None or local.is_unspecified else local,
        vpn_ipv4=None if vpn_ipv4.is_unspecified else vpn_ipv4,
        vpn_ipv6=None if vpn_ipv6.is_unspecified else vpn_ipv6,
    )


def _set_peer(ifindex: int, nest: Attributes, _multipeer: bool) -> SetPeer:
    peer_id = _peer_id(nest.require(tables.SetPeer.PEER_ID))
    interval = nest.get(tables.SetPeer.KEEPALIVE_INTERVAL)
    timeout = nest.get(tables.SetPeer.KEEPALIVE_TIMEOUT)
    if interval is None or timeout is None:
        return SetPeer(ifindex, peer_id, None, None)
    return SetPeer(ifindex, peer_id, interval, timeout)


def _del_peer(ifindex: int, nest: Attributes, _multipeer: bool) -> DelPeer:
    return DelPeer(ifindex, _peer_id(nest.require(tables.DelPeer.PEER_ID)))


def _new_key(ifindex: int, nest: Attributes, _multipeer: bool) -> NewKey:
    encrypt = nest.require(tables.NewKey.ENCRYPT_KEY)
    decrypt = nest.require(tables.NewKey.DECRYPT_KEY)
    key = NewKey(
        ifindex=ifindex,
        peer_id=_peer_id(nest.require(tables.NewKey.PEER_ID)),
        slot=nest.require(tables.NewKey.KEY_SLOT),
        key_id=nest.require(tables.NewKey.KEY_ID),
        cipher=nest.require(tables.NewKey.CIPHER_ALG),
        encrypt_key=encrypt.require(tables.KeyDirection.CIPHER_KEY),
        encrypt_nonce_tail=encrypt.require(tables.KeyDirection.NONCE_TAIL),
        decrypt_key=decrypt.require(tables.KeyDirection.CIPHER_KEY),
        decrypt_nonce_tail=decrypt.require(tables.KeyDirection.NONCE_TAIL),
    )
    if key.key_id > _KEY_ID_MAX:
        # The driver installs it, but no packet can ever carry such a key-id.
        raise Malformed(EINVAL, f"KEY_ID is {key.key_id}, above {_KEY_ID_MAX}")
    check_keys(key.cipher, key.encrypt_key, key.decrypt_key)
    return key


def _swap_keys(ifindex: int, nest: Attributes, _multipeer: bool) -> SwapKeys:
    return SwapKeys(ifindex, _peer_id(nest.require(tables.SwapKeys.PEER_ID)))


def _del_key(ifindex: int, nest: Attributes, _multipeer: bool) -> DelKey:
    return DelKey(ifindex, _peer_id(nest.require(tables.DelKey.PEER_ID)), nest.require(tables.DelKey.KEY_SLOT))


def _get_peer(ifindex: int, nest: Attributes, _multipeer: bool) -> GetPeer:
    return GetPeer(ifindex, _peer_id(nest.require(tables.GetPeer.PEER_ID)))


COMMANDS: Final[Mapping[int, tuple[Nest, Decode]]] = {
    tables.CMD_NEW_PEER: (tables.NewPeer.NEST, _new_peer),
    tables.CMD_SET_PEER: (tables.SetPeer.NEST, _set_peer),
    tables.CMD_DEL_PEER: (tables.DelPeer.NEST, _del_peer),
    tables.CMD_NEW_KEY: (tables.NewKey.NEST, _new_key),
    tables.CMD_SWAP_KEYS: (tables.SwapKeys.NEST, _swap_keys),
    tables.CMD_DEL_KEY: (tables.DelKey.NEST, _del_key),
    tables.CMD_GET_PEER: (tables.GetPeer.NEST, _get_peer),
}
"""The nest of each command, and what makes an operation of it."""
