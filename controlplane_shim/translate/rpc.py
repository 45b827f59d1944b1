"""Operations to RPC requests, and what the data plane answers to the model's terms.

Knows the contract (ovpn.dataplane.v1) and what OpenVPN makes of each errno. Must not know netlink bytes, gRPC or
descriptors: device and socket names, tokens and status codes come in as plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EADDRINUSE, EEXIST, EINVAL, EIO, ENOENT, ENOSPC, ENOTSOCK, EPERM
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from ovpn.dataplane.v1 import common_pb2, device_pb2, key_pb2, peer_pb2

from controlplane_shim.netlink.sockaddr import unmap
from controlplane_shim.operations import (
    DelKey,
    DelPeer,
    DelReason,
    Failed,
    GetKey,
    GetPeer,
    KeyInfo,
    NewKey,
    NewLink,
    NewPeer,
    Operation,
    PeerInfo,
    Remote,
    SetPeer,
    SwapKeys,
)

KEEPALIVE_MAX_SECONDS: Final = 86_400
"""Longest keepalive that the data plane takes. The kernel takes 32 bits; a day serves a peer better than a refusal."""

LINGER_SECONDS: Final = 60
"""How long a secondary key that OpenVPN deletes still opens: a queue of 1 MiB and what kernels hold of a TCP connection
take that long on a link of 1 Mbit/s. OpenVPN that opens for itself keeps an elder key for up to an hour."""

_SLOTS: Final[Mapping[int, common_pb2.KeySlot]] = {
    0: common_pb2.KEY_SLOT_PRIMARY,
    1: common_pb2.KEY_SLOT_SECONDARY,
}
_CIPHERS: Final[Mapping[int, common_pb2.Cipher]] = {
    1: common_pb2.CIPHER_AES_GCM,
    2: common_pb2.CIPHER_CHACHA20_POLY1305,
}
_DEL_REASONS: Final[Mapping[int, DelReason]] = {
    common_pb2.DEL_REASON_TEARDOWN: DelReason.TEARDOWN,
    common_pb2.DEL_REASON_USERSPACE: DelReason.USERSPACE,
    common_pb2.DEL_REASON_EXPIRED: DelReason.EXPIRED,
    common_pb2.DEL_REASON_TRANSPORT_ERROR: DelReason.TRANSPORT_ERROR,
    common_pb2.DEL_REASON_TRANSPORT_DISCONNECT: DelReason.TRANSPORT_DISCONNECT,
}

# What OpenVPN does with an errno decides which one it gets.
# ENODEV, ENOMEM and ENOBUFS end the whole process whatever they answer, so none of them stands here.
# NEW_PEER, SET_PEER, SWAP_KEYS, DEL_KEY: any other one costs that client its session, and a server lives on.
# DEL_PEER, GET_PEER: any is survived, but ENOENT is the one that says "already gone" in the log.
# NEW_KEY: any ends the process; the session answers it otherwise.
# Among the harmless ones it is the kernel driver's own, so that the log reads as administrators know it.
_ERRNO_BY_REASON: Final[Mapping[str, int]] = {
    "PEER_NOT_FOUND": ENOENT,
    "KEY_SLOT_EMPTY": ENOENT,
    "PEER_EXISTS": EEXIST,
    "VPN_ADDRESS_IN_USE": EADDRINUSE,
    "DEVICE_NOT_FOUND": EINVAL,  # the kernel's would be ENODEV
    "FIELD_INVALID": EINVAL,
    "ADDRESS_FAMILY_MISMATCH": EINVAL,
    "SOCKET_NOT_FOUND": ENOTSOCK,
    "NOT_A_UDP_SOCKET": ENOTSOCK,
    "SOCKET_NOT_BOUND": ENOTSOCK,
    "SOCKET_NOT_CONNECTED": ENOTSOCK,
    "SOCKET_IN_USE": ENOTSOCK,
    "SOCKET_CLOSED": ENOTSOCK,
    "HANDOFF_TOKEN_UNKNOWN": EIO,
}
_ERRNO_BY_CODE: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": EINVAL,
    "FAILED_PRECONDITION": EINVAL,
    "NOT_FOUND": ENOENT,
    "ALREADY_EXISTS": EEXIST,
    "RESOURCE_EXHAUSTED": ENOSPC,  # of no meaning to OpenVPN, and its text is the nearest
    "PERMISSION_DENIED": EPERM,
    "UNAUTHENTICATED": EPERM,
}
# UNAVAILABLE, DEADLINE_EXCEEDED and all others: the data plane itself fails. Not EAGAIN, which OpenVPN reports as a
# "blocking read" of its own, nor EINTR, which it ignores.
_ERRNO_OTHERWISE: Final = EIO


def failure(operation: Operation, code: str, reason: str, message: str) -> Failed:
    """What OpenVPN is told when an RPC failed.

    Args:
        operation: What it was done for.
        code: Name of the gRPC status code, such as "NOT_FOUND".
        reason: As in ErrorInfo, such as "PEER_NOT_FOUND"; empty if there was none.
        message: For the log.
    """
    text = f"{reason or code}: {message}"
    if isinstance(operation, NewLink):
        # Any errno but EPERM makes `--dev tun` try the next of 256 names. Worth it only if the name is the trouble.
        return Failed(EEXIST if reason == "INTERFACE_EXISTS" else EPERM, text)
    return Failed(_ERRNO_BY_REASON.get(reason, _ERRNO_BY_CODE.get(code, _ERRNO_OTHERWISE)), text)


def create_device(operation: NewLink, device: str, tun_token: str, mss: int = 0) -> device_pb2.CreateDeviceRequest:
    """CreateDevice for a link whose TUN was handed over; the device ends with the hand-off connection.

    The kernel's driver finds a peer by the gateway of a route, so OpenVPN makes its `iroute`s kernel routes.
    mss: of TCP over IPv4 in bytes, 0 to leave it alone; packets of the same size over IPv6 carry 20 less.
    """
    return device_pb2.CreateDeviceRequest(
        device=device_pb2.Device(
            name=device,
            mode=common_pb2.DEVICE_MODE_MP if operation.multipeer else common_pb2.DEVICE_MODE_P2P,
            follow_kernel_routes=operation.multipeer,
            tcp_mss_ipv4=mss,
            tcp_mss_ipv6=mss - 20 if mss else 0,
        ),
        tun_token=tun_token,
        delete_on_handoff_close=True,
    )


def create_peer(operation: NewPeer, device: str, socket: str, *, multipeer: bool) -> peer_pb2.CreatePeerRequest:
    """CreatePeer. On a P2P device the kernel takes VPN addresses and uses them for nothing; here they are left out."""
    peer = peer_pb2.Peer(
        device=device,
        peer_id=operation.peer_id,
        socket=socket,
        local_address=_text(operation.local),
        vpn_ipv4=_text(operation.vpn_ipv4 if multipeer else None),
        vpn_ipv6=_text(operation.vpn_ipv6 if multipeer else None),
    )
    if operation.remote is not None:
        peer.remote.CopyFrom(_endpoint(operation.remote))
    if operation.keepalive_interval is not None:
        peer.keepalive_interval.CopyFrom(_keepalive(operation.keepalive_interval))
    if operation.keepalive_timeout is not None:
        peer.keepalive_timeout.CopyFrom(_keepalive(operation.keepalive_timeout))
    if operation.tx_id is not None:
        peer.tx_id = operation.tx_id
    return peer_pb2.CreatePeerRequest(peer=peer)


def update_peer(operation: SetPeer, device: str) -> peer_pb2.UpdatePeerRequest:
    """UpdatePeer of what the operation names. One that names nothing has an empty mask, which must not be sent."""
    peer = peer_pb2.Peer(device=device, peer_id=operation.peer_id)
    mask = FieldMask()
    if operation.remote is not None:
        peer.remote.CopyFrom(_endpoint(operation.remote))
        peer.local_address = _text(operation.local)
        mask.paths.extend(("remote", "local_address"))
    if operation.vpn_ipv4 is not None:
        peer.vpn_ipv4 = _text_unless_unspecified(operation.vpn_ipv4)
        mask.paths.append("vpn_ipv4")
    if operation.vpn_ipv6 is not None:
        peer.vpn_ipv6 = _text_unless_unspecified(operation.vpn_ipv6)
        mask.paths.append("vpn_ipv6")
    if operation.keepalive_interval is not None:
        peer.keepalive_interval.CopyFrom(_keepalive(operation.keepalive_interval))
        mask.paths.append("keepalive_interval")
    if operation.keepalive_timeout is not None:
        peer.keepalive_timeout.CopyFrom(_keepalive(operation.keepalive_timeout))
        mask.paths.append("keepalive_timeout")
    if operation.tx_id is not None:
        peer.tx_id = operation.tx_id
        mask.paths.append("tx_id")
    return peer_pb2.UpdatePeerRequest(peer=peer, update_mask=mask)


def delete_peer(operation: DelPeer, device: str) -> peer_pb2.DeletePeerRequest:
    """DeletePeer; a missing peer is an error, as in the kernel."""
    return peer_pb2.DeletePeerRequest(device=device, peer_id=operation.peer_id)


def get_peer(operation: GetPeer, device: str) -> peer_pb2.GetPeerRequest:
    """GetPeer."""
    return peer_pb2.GetPeerRequest(device=device, peer_id=operation.peer_id)


def install_key(operation: NewKey, device: str) -> key_pb2.InstallKeyRequest:
    """InstallKey."""
    return key_pb2.InstallKeyRequest(
        device=device,
        peer_id=operation.peer_id,
        slot=_SLOTS[operation.slot],
        key_id=operation.key_id,
        cipher=_CIPHERS[operation.cipher],
        encrypt=key_pb2.KeyDirection(cipher_key=operation.encrypt_key, nonce_tail=operation.encrypt_nonce_tail),
        decrypt=key_pb2.KeyDirection(cipher_key=operation.decrypt_key, nonce_tail=operation.decrypt_nonce_tail),
    )


def get_key(operation: GetKey, device: str) -> key_pb2.GetKeyRequest:
    """GetKey."""
    return key_pb2.GetKeyRequest(device=device, peer_id=operation.peer_id, slot=_SLOTS[operation.slot])


def swap_keys(operation: SwapKeys, device: str) -> key_pb2.SwapKeysRequest:
    """SwapKeys."""
    return key_pb2.SwapKeysRequest(device=device, peer_id=operation.peer_id)


def delete_key(operation: DelKey, device: str) -> key_pb2.DeleteKeyRequest:
    """DeleteKey; a secondary key lingers."""
    slot = _SLOTS[operation.slot]
    linger = Duration(seconds=LINGER_SECONDS) if slot == common_pb2.KEY_SLOT_SECONDARY else None
    return key_pb2.DeleteKeyRequest(device=device, peer_id=operation.peer_id, slot=slot, linger=linger)


def peer_info(peer: peer_pb2.Peer, local_port: int) -> PeerInfo:
    """What GET_PEER tells of a peer. local_port: of its socket, which the data plane's Peer does not name.

    Raises ValueError if the data plane sent an address that is none.
    """
    counters = peer.counters
    return PeerInfo(
        peer_id=peer.peer_id,
        tx_id=peer.tx_id if peer.HasField("tx_id") else peer.peer_id,
        remote=remote(peer.remote) if peer.HasField("remote") else None,
        local=ip_address(peer.local_address) if peer.local_address else None,
        local_port=local_port,
        vpn_ipv4=IPv4Address(peer.vpn_ipv4) if peer.vpn_ipv4 else None,
        vpn_ipv6=IPv6Address(peer.vpn_ipv6) if peer.vpn_ipv6 else None,
        keepalive_interval=peer.keepalive_interval.seconds,
        keepalive_timeout=peer.keepalive_timeout.seconds,
        vpn_rx_bytes=counters.vpn_rx.bytes,
        vpn_tx_bytes=counters.vpn_tx.bytes,
        vpn_rx_packets=counters.vpn_rx.packets,
        vpn_tx_packets=counters.vpn_tx.packets,
        link_rx_bytes=counters.link_rx.bytes,
        link_tx_bytes=counters.link_tx.bytes,
        link_rx_packets=counters.link_rx.packets,
        link_tx_packets=counters.link_tx.packets,
    )


def key_info(operation: GetKey, key: key_pb2.Key) -> KeyInfo:
    """What GET_KEY tells of a key; a cipher that the families have no number for is told as none."""
    ciphers = {cipher: number for number, cipher in _CIPHERS.items()}
    return KeyInfo(operation.peer_id, operation.slot, key.key_id, ciphers.get(key.cipher, 0))


def remote(endpoint: common_pb2.Endpoint) -> Remote:
    """Where a peer is, v4-mapped addresses unmapped. Raises ValueError if the data plane sent no address."""
    return Remote(unmap(ip_address(endpoint.address)), endpoint.port, endpoint.scope_id)


def del_reason(reason: int) -> DelReason:
    """The kernel's word for a DelReason of the contract; one that we do not know yet is a failure of the transport.

    OpenVPN then closes that client's instance, which is right for any peer that is gone.
    """
    return _DEL_REASONS.get(reason, DelReason.TRANSPORT_ERROR)


def _text(address: IPv4Address | IPv6Address | None) -> str:
    return "" if address is None else str(address)


def _endpoint(remote: Remote) -> common_pb2.Endpoint:
    # The data plane refuses a scope where it means nothing; the kernel ignores it there.
    scoped = isinstance(remote.address, IPv6Address) and remote.address.is_link_local
    return common_pb2.Endpoint(address=str(remote.address), port=remote.port, scope_id=remote.scope_id if scoped else 0)


def _text_unless_unspecified(address: IPv4Address | IPv6Address) -> str:
    return "" if address.is_unspecified else str(address)


def _keepalive(seconds: int) -> Duration:
    return Duration(seconds=min(seconds, KEEPALIVE_MAX_SECONDS))
