"""System call numbers and ABI facts, an entry per processor architecture.

The only place that knows numbers (asm/unistd.h, linux/audit.h). Served and tested: x86_64. The entry for aarch64
stands ready but is not claimed to work.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """audit: AUDIT_ARCH_*; foreign_abi_bit: set in numbers of a second ABI under the same audit value, 0 if none."""

    audit: int
    foreign_abi_bit: int
    seccomp: int
    socket: int
    setsockopt: int
    sendto: int
    sendmsg: int
    sendmmsg: int
    write: int
    writev: int
    recvfrom: int


X86_64 = Architecture(
    audit=0xC000003E,
    foreign_abi_bit=0x40000000,  # __X32_SYSCALL_BIT
    seccomp=317,
    socket=41,
    setsockopt=54,
    sendto=44,
    sendmsg=46,
    sendmmsg=307,
    write=1,
    writev=20,
    recvfrom=45,
)

AARCH64 = Architecture(
    audit=0xC00000B7,
    foreign_abi_bit=0,
    seccomp=277,
    socket=198,
    setsockopt=208,
    sendto=206,
    sendmsg=211,
    sendmmsg=269,
    write=64,
    writev=66,
    recvfrom=207,
)

_BY_MACHINE = {"x86_64": X86_64, "aarch64": AARCH64}


def current() -> Architecture:
    """The architecture of this machine. Raises OSError if it has no entry."""
    machine = platform.machine()
    if machine not in _BY_MACHINE:
        raise OSError(f"system calls of {machine} are not known")
    return _BY_MACHINE[machine]
