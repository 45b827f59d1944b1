"""Requests of family ovpn-dco-v2, decoded to operations.

Knows what the driver refuses whatever exists. Must not know whether a device or peer exists.

A peer-id above 24 bits loses its upper bits. The driver lets that happen on the wire; here it happens at the door, so
that a peer has one name. 0xFFFFFF, which means "undefined" on the wire, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EINVAL, ENODEV, ENOTSOCK, EOPNOTSUPP
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from controlplane_shim.netlink import sockaddr
from controlplane_shim.netlink.attributes import Attributes, Malformed, Nest, parse
from controlplane_shim.netlink.message import GENERIC_HEADER_BYTES, Message
from controlplane_shim.netlink.ovpn_dco_v2 import tables
from controlplane_shim.operations import (
    DelKey,
    DelPeer,
    DumpPeers,
    GetPeer,
    NewKey,
    NewPeer,
    Operation,
    SetPeer,
    SwapKeys,
)

_PEER_ID_UNDEF: Final = 0xFFFFFF
_IFINDEX_MAX: Final = 0x7FFFFFFF
_FD_MAX: Final = 0x7FFFFFFF
_KEY_ID_MAX: Final = 7
_KEY_LENGTHS: Final[Mapping[int, tuple[int, ...]]] = {
    1: (16, 24, 32),  # AES-GCM
    2: (32,),  # ChaCha20-Poly1305
}


def decode(message: Message) -> Operation:
    """The operation that a request of this family asks for.

    Raises Malformed with the driver's errno: EINVAL or ERANGE by the tables, EOPNOTSUPP for an unknown command,
    ENODEV for an impossible ifindex, ENOTSOCK for an impossible descriptor.
    """
    body = message.body
    if len(body) < GENERIC_HEADER_BYTES:
        raise Malformed(EINVAL, "no generic netlink header")
    command = body[0]
    if command not in _COMMANDS or (message.is_dump and command != tables.CMD_GET_PEER):
        raise Malformed(EOPNOTSUPP, f"command {command} is unknown or cannot dump")
    top = parse(body[GENERIC_HEADER_BYTES:], tables.TOP_LEVEL)
    ifindex = top.require(tables.IFINDEX)
    if not 0 < ifindex <= _IFINDEX_MAX:
        raise Malformed(ENODEV, f"ifindex {ifindex}")
    if message.is_dump:
        return DumpPeers(ifindex)
    nest, decode_nest = _COMMANDS[command]
    return decode_nest(ifindex, top.require(nest))


def _peer_id(value: int) -> int:
    peer_id = value & 0xFFFFFF
    if peer_id == _PEER_ID_UNDEF:
        raise Malformed(EINVAL, "PEER_ID stands for an undefined peer")
    return peer_id


def _new_peer(ifindex: int, nest: Attributes) -> NewPeer:
    peer_id = _peer_id(nest.require(tables.NewPeer.PEER_ID))
    socket_fd = nest.require(tables.NewPeer.SOCKET)
    if socket_fd > _FD_MAX:
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


def _set_peer(ifindex: int, nest: Attributes) -> SetPeer:
    peer_id = _peer_id(nest.require(tables.SetPeer.PEER_ID))
    interval = nest.get(tables.SetPeer.KEEPALIVE_INTERVAL)
    timeout = nest.get(tables.SetPeer.KEEPALIVE_TIMEOUT)
    if interval is None or timeout is None:
        return SetPeer(ifindex, peer_id, None, None)
    return SetPeer(ifindex, peer_id, interval, timeout)


def _del_peer(ifindex: int, nest: Attributes) -> DelPeer:
    return DelPeer(ifindex, _peer_id(nest.require(tables.DelPeer.PEER_ID)))


def _new_key(ifindex: int, nest: Attributes) -> NewKey:
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
    if key.cipher not in _KEY_LENGTHS:
        raise Malformed(EINVAL, f"CIPHER_ALG {key.cipher} is not supported")
    if len(key.encrypt_key) not in _KEY_LENGTHS[key.cipher] or len(key.decrypt_key) != len(key.encrypt_key):
        raise Malformed(EINVAL, f"CIPHER_KEYs of {len(key.encrypt_key)} and {len(key.decrypt_key)} bytes")
    return key


def _swap_keys(ifindex: int, nest: Attributes) -> SwapKeys:
    return SwapKeys(ifindex, _peer_id(nest.require(tables.SwapKeys.PEER_ID)))


def _del_key(ifindex: int, nest: Attributes) -> DelKey:
    return DelKey(ifindex, _peer_id(nest.require(tables.DelKey.PEER_ID)), nest.require(tables.DelKey.KEY_SLOT))


def _get_peer(ifindex: int, nest: Attributes) -> GetPeer:
    return GetPeer(ifindex, _peer_id(nest.require(tables.GetPeer.PEER_ID)))


_COMMANDS: Final[Mapping[int, tuple[Nest, Callable[[int, Attributes], Operation]]]] = {
    tables.CMD_NEW_PEER: (tables.NewPeer.NEST, _new_peer),
    tables.CMD_SET_PEER: (tables.SetPeer.NEST, _set_peer),
    tables.CMD_DEL_PEER: (tables.DelPeer.NEST, _del_peer),
    tables.CMD_NEW_KEY: (tables.NewKey.NEST, _new_key),
    tables.CMD_SWAP_KEYS: (tables.SwapKeys.NEST, _swap_keys),
    tables.CMD_DEL_KEY: (tables.DelKey.NEST, _del_key),
    tables.CMD_GET_PEER: (tables.GetPeer.NEST, _get_peer),
}
