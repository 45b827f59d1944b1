"""A TUN descriptor: opening, checking, reading and writing whole IP packets in batches.

Knows <linux/if_tun.h>. Must not know what the packets mean, nor link settings (see link.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import Final

TUNSETIFF: Final = 0x400454CA
TUNGETIFF: Final = 0x800454D2
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000

IFNAMSIZ: Final = 16
_IFREQ: Final = struct.Struct(f"{IFNAMSIZ}sH22x")  # name, flags, rest of the union
_LONGEST_PACKET: Final = 65535


class NotATun(Exception):
    """The descriptor is no TUN, or its packets have a virtio header in front."""


class DeviceGone(Exception):
    """The interface behind the descriptor was deleted. errno: what the kernel said (EBADFD as a rule)."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


def open_tun(name: str) -> tuple[int, str]:
    """Makes a TUN interface in the calling thread's network namespace.

    Returns its descriptor (non-blocking; the interface lives as long as it) and its name, which
    differs from `name` if that was a pattern such as "tun%d".
    Raises ValueError for a name over 15 bytes and OSError: EBUSY, the interface exists; EPERM, no
    CAP_NET_ADMIN; EINVAL, no legal name; ENOENT, no /dev/net/tun.
    """
    encoded = os.fsencode(name)
    if len(encoded) >= IFNAMSIZ:
        raise ValueError(f"interface name {name!r} is longer than {IFNAMSIZ - 1} bytes")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Without EXCL the kernel would attach us to a persistent interface of that name.
        request = _IFREQ.pack(encoded, IFF_TUN | IFF_NO_PI | IFF_TUN_EXCL)
        real_name, _ = _unpack(fcntl.ioctl(fd, TUNSETIFF, request))
    except OSError:
        os.close(fd)
        raise
    return fd, real_name


def inspect_tun(fd: int) -> str:
    """Returns the interface name behind a descriptor that somebody handed over.

    Raises NotATun unless it is an attached TUN without IFF_VNET_HDR. It cannot see IFF_NO_PI, whose bit TUNGETIFF
    also sets to say that no filter is attached (IFF_NOFILTER): see link.Link.packet_info.
    """
    try:
        name, flags = _unpack(fcntl.ioctl(fd, TUNGETIFF, bytes(_IFREQ.size)))
    except OSError as error:
        raise NotATun(f"not a descriptor of a TUN interface: {error.strerror}") from error
    if not flags & IFF_TUN:
        raise NotATun(f"{name} is a TAP, not a TUN")
    if flags & IFF_VNET_HDR:
        raise NotATun(f"{name} was opened with IFF_VNET_HDR")
    return name


def _unpack(ifreq: bytes) -> tuple[str, int]:
    name, flags = _IFREQ.unpack(ifreq)
    return os.fsdecode(name.rstrip(b"\0")), flags


class TunDevice:
    """Reads and writes packets of a TUN, which becomes non-blocking. Works on a duplicate of the descriptor, `fd`."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = os.dup(fd)

    def read_batch(self, limit: int) -> list[bytes]:
        """Reads the packets that wait, `limit` at most. Raises DeviceGone."""
        packets: list[bytes] = []
        try:
            while len(packets) < limit:
                packets.append(os.read(self.fd, _LONGEST_PACKET))
        except BlockingIOError:
            pass
        except OSError as error:
            raise DeviceGone(error.errno or errno.EIO) from error
        return packets

    def write_batch(self, packets: Sequence[bytes]) -> list[bool]:
        """Writes packets in order; tells of each whether the device took it.

        It takes none while it is down (EIO) or gone; that it is gone is for read_batch to say.
        """
        return [self._write(packet) for packet in packets]

    def _write(self, packet: bytes) -> bool:
        try:
            os.write(self.fd, packet)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Closes the duplicate; the interface goes with the last descriptor of it."""
        os.close(self.fd)
