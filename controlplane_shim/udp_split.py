"""Two sockets on OpenVPN's UDP port, and who of them gets which datagram.

Both belong to one SO_REUSEPORT group, and a classic BPF program on the group chooses the member. Members are numbered
in the order in which they joined, and the last one takes the number of one that leaves: OpenVPN's socket (0) must be
there first and ours (1) must leave first. Knows sockets and the opcode. Must not know peers or the data plane.

Split, opcode 9 (DATA_V2) chooses ours and anything else OpenVPN's. UDP_GRO must be off then: it glues control packets
to data packets, and the program sees the first byte of such a train only.

Gathered, whatever comes from a network device chooses ours, so that trains arrive whole, and only what comes by `lo`
(which merges nothing) goes by opcode. UDP_GRO is on for both sockets, because what decides on merging looks a member
up by hash, without the program. It is on OpenVPN's, too, only as long as no train can reach that.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from errno import EINVAL
from typing import Final

from controlplane_shim.link_socket import UnsuitableSocketError

_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_INTERFACE_NAME_SIZE: Final = 16

_SOCK_FILTER: Final = struct.Struct("=HBBI")
_SOCK_FPROG: Final = struct.Struct("@HP")
_SOL_UDP: Final = 17
_UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10  # <linux/in.h>
_IPV6_MTU_DISCOVER: Final = 23  # <linux/in6.h>
_LOOPBACK_IFINDEX: Final = 1  # in every network namespace
_SKF_AD_IFINDEX: Final = 0xFFFFF000 + 8  # <linux/filter.h>: the ancillary load of the incoming device

_BY_OPCODE: Final = (
    (0x30, 0, 0, 0),  # A = first byte of the UDP payload; an empty datagram ends the program with 0
    (0x74, 0, 0, 3),  # A >>= 3: the opcode
    (0x15, 0, 1, 9),  # if A == 9 (DATA_V2) go on, else skip one
    (0x06, 0, 0, 1),  # return 1
    (0x06, 0, 0, 0),  # return 0
)
_BY_OPCODE_IF_LOCAL: Final = (
    (0x20, 0, 0, _SKF_AD_IFINDEX),  # A = index of the device that the datagram came from
    (0x15, 1, 0, _LOOPBACK_IFINDEX),  # if A == lo skip one, else go on
    (0x06, 0, 0, 1),  # return 1
    *_BY_OPCODE,
)


def split(openvpn: socket.socket) -> socket.socket:
    """Makes the second socket, bound to the address that `openvpn` (UDP, IPv4 or IPv6) is bound to.

    It has the same mark, device, buffers, IPV6_V6ONLY and way with long packets (--mtu-disc), and is non-blocking.
    Between its bind and the program's attachment, some microseconds, the kernel still chooses by hash; what is then
    misdirected is lost, as any datagram may be. Closing every copy of it undoes the split.
    Raises UnsuitableSocketError.
    """
    address = openvpn.getsockname()
    if address[1] == 0:
        raise UnsuitableSocketError(EINVAL, "the UDP socket is not bound")
    if _is_connected(openvpn):
        raise UnsuitableSocketError(EINVAL, "the UDP socket is connected")
    ours = socket.socket(openvpn.family, socket.SOCK_DGRAM)
    try:
        ours.setblocking(False)
        _copy_options(openvpn, ours)
        _copy_owner(openvpn, ours)
        for member in (openvpn, ours):
            member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ours.bind(address)
        _attach_program(ours, _BY_OPCODE)
    except OSError as error:
        ours.close()
        text = f"no second socket at {address[0]} port {address[1]}: {error.strerror}"
        raise UnsuitableSocketError(EINVAL, text) from error
    return ours


def gather(openvpn: socket.socket, ours: socket.socket) -> None:
    """Gives all that comes from a network device to `ours` (made by split()), and switches UDP_GRO on.

    Whoever reads `ours` must look at the opcode of every segment and hand back what is not DATA_V2, over `lo`.
    Raises OSError, ENOPROTOOPT from a kernel without UDP_GRO (older than 5.0); the port is then as it was.
    """
    try:
        _attach_program(ours, _BY_OPCODE_IF_LOCAL)
        for member in (ours, openvpn):
            member.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError:
        _attach_program(ours, _BY_OPCODE)
        raise


def scatter(openvpn: socket.socket) -> None:
    """Undoes gather(), but for UDP_GRO on our socket, which is about to be closed. Repeatable. Raises OSError."""
    openvpn.setsockopt(_SOL_UDP, _UDP_GRO, 0)
    _attach_program(openvpn, _BY_OPCODE)


def _is_connected(openvpn: socket.socket) -> bool:
    try:
        openvpn.getpeername()
    except OSError:
        return False
    return True


def _copy_owner(source: socket.socket, target: socket.socket) -> None:
    # A group takes only sockets of one uid, and OpenVPN may have made its own as another user.
    owner = os.fstat(source.fileno()).st_uid
    if owner != os.fstat(target.fileno()).st_uid:
        os.fchown(target.fileno(), owner, -1)


def _copy_options(source: socket.socket, target: socket.socket) -> None:
    if source.family == socket.AF_INET6:
        only_v6 = source.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        target.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
        _copy(source, target, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER)
    _copy(source, target, socket.IPPROTO_IP, _IP_MTU_DISCOVER)
    if mark := source.getsockopt(socket.SOL_SOCKET, socket.SO_MARK):
        target.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if device := source.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _INTERFACE_NAME_SIZE).rstrip(b"\0"):
        target.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    for option, forced in ((socket.SO_SNDBUF, _SO_SNDBUFFORCE), (socket.SO_RCVBUF, _SO_RCVBUFFORCE)):
        # The kernel reports twice the size that was asked for (socket(7)).
        target.setsockopt(socket.SOL_SOCKET, forced, source.getsockopt(socket.SOL_SOCKET, option) // 2)


def _copy(source: socket.socket, target: socket.socket, level: int, option: int) -> None:
    target.setsockopt(level, option, source.getsockopt(level, option))


def _attach_program(member: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    instructions = b"".join(_SOCK_FILTER.pack(*instruction) for instruction in program)
    memory = ctypes.create_string_buffer(instructions, len(instructions))
    fprog = _SOCK_FPROG.pack(len(program), ctypes.addressof(memory))
    member.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, fprog)
