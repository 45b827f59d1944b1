"""A TUN descriptor: opening, checking, reading and writing whole IP packets in batches.

Knows <linux/if_tun.h>. Must not know what the packets mean, nor link settings (see link.py). With IFF_VNET_HDR the
kernel gives and takes frames that stand for many packets; split.py and merge.py do that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dataplane.tun.merge import merge
from dataplane.tun.split import split
from dataplane.tun.virtio import FRAME_MAX, HEADER_SIZE

TUNSETIFF: Final = 0x400454CA
TUNGETIFF: Final = 0x800454D2
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUNSETCARRIER: Final = 0x400454E2
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000

IFNAMSIZ: Final = 16
_IFREQ: Final = struct.Struct(f"{IFNAMSIZ}sH22x")  # name, flags, rest of the union

_OFFLOAD_CSUM: Final = 0x01
_OFFLOAD_TCP: Final = _OFFLOAD_CSUM | 0x02 | 0x04  # TSO4, TSO6
_OFFLOAD_UDP: Final = _OFFLOAD_TCP | 0x20 | 0x40  # USO4, USO6; Linux 6.2


class NotATun(Exception):
    """The descriptor is no TUN."""


class DeviceGone(Exception):
    """The interface behind the descriptor was deleted. errno: what the kernel said (EBADFD as a rule)."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


def open_tun(name: str) -> tuple[int, str]:
    """Makes a TUN interface with virtio headers in the calling thread's network namespace.

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
        request = _IFREQ.pack(encoded, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL)
        real_name, _ = _unpack(fcntl.ioctl(fd, TUNSETIFF, request))
    except OSError:
        os.close(fd)
        raise
    return fd, real_name


def inspect_tun(fd: int) -> str:
    """Returns the interface name behind a descriptor that somebody handed over, with or without IFF_VNET_HDR.

    Raises NotATun unless it is an attached TUN. It cannot see IFF_NO_PI, whose bit TUNGETIFF
    also sets to say that no filter is attached (IFF_NOFILTER): see link.Link.packet_info.
    """
    try:
        name, flags = _name_and_flags(fd)
    except OSError as error:
        raise NotATun(f"not a descriptor of a TUN interface: {error.strerror}") from error
    if not flags & IFF_TUN:
        raise NotATun(f"{name} is a TAP, not a TUN")
    return name


def set_carrier(fd: int, *, on: bool) -> None:
    """Sets the carrier of a TUN's interface, for all who hold a descriptor of it. Needs no privilege.

    Without it the interface keeps its addresses and routes, but Linux sends nothing into it (no IFF_LOWER_UP).
    Raises OSError: EINVAL, Linux before 5.0; EBADFD, the interface was deleted.
    """
    fcntl.ioctl(fd, _TUNSETCARRIER, struct.pack("=i", on))


def _name_and_flags(fd: int) -> tuple[str, int]:
    return _unpack(fcntl.ioctl(fd, TUNGETIFF, bytes(_IFREQ.size)))


def _unpack(ifreq: bytes) -> tuple[str, int]:
    name, flags = _IFREQ.unpack(ifreq)
    return os.fsdecode(name.rstrip(b"\0")), flags


@dataclass(frozen=True, slots=True)
class TunOffload:
    """Whether packets have a virtio header (of HEADER_SIZE bytes), and what it may be used for.

    tcp, udp: whether the device takes and gives frames that stand for many packets of the protocol.
    """

    virtio_header: bool
    tcp: bool
    udp: bool


def tun_offload(fd: int) -> TunOffload:
    """Switches on what a TUN can do, and tells it. Needs no privilege and may be repeated.

    A descriptor without IFF_VNET_HDR, or that is no TUN (any more), can do nothing.
    """
    try:
        _, flags = _name_and_flags(fd)
        if not flags & IFF_VNET_HDR:
            return TunOffload(virtio_header=False, tcp=False, udp=False)
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("=i", HEADER_SIZE))
    except OSError:
        return TunOffload(virtio_header=False, tcp=False, udp=False)
    on = next((mask for mask in (_OFFLOAD_UDP, _OFFLOAD_TCP, _OFFLOAD_CSUM, 0) if _accepts(fd, mask)), 0)
    return TunOffload(virtio_header=True, tcp=on >= _OFFLOAD_TCP, udp=on == _OFFLOAD_UDP)


def _accepts(fd: int, mask: int) -> bool:
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, mask)
    except OSError:
        return False
    return True


class TunDevice:
    """Reads and writes packets of a TUN, which becomes non-blocking. Works on a duplicate of the descriptor, `fd`."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._offload = tun_offload(fd)
        self.fd = os.dup(fd)

    def read_batch(self, limit: int) -> tuple[list[bytes], int]:
        """Reads the packets that wait, until there are `limit`, and all of the last frame.

        Also tells how many frames were left out because their virtio header does not fit. Raises DeviceGone.
        """
        packets: list[bytes] = []
        malformed = 0
        try:
            while len(packets) + malformed < limit:
                frame = os.read(self.fd, FRAME_MAX)
                segments = split(frame) if self._offload.virtio_header else [frame]
                if segments is None:
                    malformed += 1
                else:
                    packets += segments
        except BlockingIOError:
            pass
        except OSError as error:
            raise DeviceGone(error.errno or errno.EIO) from error
        return packets, malformed

    def write_batch(self, packets: Sequence[bytes]) -> list[bool]:
        """Writes packets, those of a flow in order; tells of each whether the device took it.

        It takes none while it is down (EIO) or gone; that it is gone is for read_batch to say.
        """
        if not self._offload.virtio_header:
            return [self._write(packet) for packet in packets]
        taken = [False] * len(packets)
        for frame in merge(packets, tcp=self._offload.tcp, udp=self._offload.udp):
            frame_was_taken = self._write(frame.data)
            for index in frame.indexes:
                taken[index] = frame_was_taken
        return taken

    def _write(self, data: bytes) -> bool:
        try:
            os.write(self.fd, data)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Closes the duplicate; the interface goes with the last descriptor of it."""
        os.close(self.fd)
