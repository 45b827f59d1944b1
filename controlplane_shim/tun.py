"""TUN interfaces in the shim's own network namespace, which is OpenVPN's.

Knows linux/if_tun.h and one rtnetlink request. Must not know who carries the packets.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import Final

TUN_PATH: Final = "/dev/net/tun"

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_IFF_TUN_EXCL: Final = 0x8000
_NAME_SIZE_MAX: Final = 15
_IFREQ: Final = struct.Struct("16sH22x")

_RTM_DELLINK: Final = 17
_NLM_F_REQUEST_ACK: Final = 0x0005
_DELETE_LINK: Final = struct.Struct("=IHHII BxHiII")
"""nlmsghdr (length, type, flags, sequence, port id), ifinfomsg (family, type, index, flags, change)."""
_ACK_SIZE: Final = 4096


def interface_exists(name: str) -> bool:
    """Whether an interface has this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def open_tun(name: str) -> int:
    """Makes the interface `name` (1..15 bytes) and returns its non-blocking descriptor.

    Closing the last copy of it deletes the interface. Packets are IP packets, each behind a virtio header of
    10 bytes, so that whoever carries them may use offloads. Raises OSError: EBUSY if the name is taken, EPERM
    without CAP_NET_ADMIN.
    """
    if len(name.encode()) > _NAME_SIZE_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    fd = os.open(TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except OSError:
        os.close(fd)
        raise
    return fd


def delete_interface(ifindex: int) -> None:
    """Deletes an interface, whoever else still holds a descriptor of it. One that is gone is not an error."""
    request = _DELETE_LINK.pack(
        _DELETE_LINK.size, _RTM_DELLINK, _NLM_F_REQUEST_ACK, 1, 0, socket.AF_UNSPEC, 0, ifindex, 0, 0
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as rtnetlink:
        rtnetlink.sendto(request, (0, 0))
        rtnetlink.recv(_ACK_SIZE)
