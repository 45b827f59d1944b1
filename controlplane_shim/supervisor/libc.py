"""The system calls that Python does not offer, as plain functions over ctypes.

Knows argument layouts and errno. Must not know what the calls are made for. Standard library only: the front and
the launcher use it too. Every function raises OSError with the errno of the call.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable
from functools import cache

PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
SYS_PIDFD_GETFD = 438  # the same number on every architecture
SYS_CLOSE_RANGE = 436  # likewise
CLOSE_RANGE_UNSHARE = 2
EPOLL_CTL_ADD, EPOLL_CTL_DEL = 1, 2
SECCOMP_SET_MODE_FILTER = 1
SFD_CLOEXEC, SFD_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
SIGSET_BYTES = 128  # sigset_t of glibc and musl
BPF_INSTRUCTION_BYTES = 8


class _IoVector(ctypes.Structure):
    """Struct iovec (readv(2))."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _EpollEvent(ctypes.Structure):
    """Struct epoll_event (epoll_ctl(2))."""

    if platform.machine() == "x86_64":
        _pack_ = 1
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class _FilterProgram(ctypes.Structure):
    """Struct sock_fprog (linux/filter.h)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    library.process_vm_readv.restype = ctypes.c_ssize_t
    return library


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _prctl(option: int, value: int) -> None:
    unused = ctypes.c_ulong(0)
    _checked(_library().prctl(option, ctypes.c_ulong(value), unused, unused, unused))


def set_child_subreaper() -> None:
    """Orphans among the descendants become children of this process (prctl(2))."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_no_new_privileges() -> None:
    """Set-uid programs give no privileges any more; what seccomp(2) wants of a caller without CAP_SYS_ADMIN."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def forbid_core_dump() -> None:
    """Neither a file nor a core handler gets this process (prctl(2)); a limit of 0 would not keep it from a handler."""
    _prctl(PR_SET_DUMPABLE, 0)


def signalfd(signals: Iterable[int]) -> int:
    """A descriptor that reads struct signalfd_siginfo of these signals, non-blocking (signalfd(2)); block them."""
    mask = sum(1 << (number - 1) for number in signals)
    return _checked(_library().signalfd(-1, mask.to_bytes(SIGSET_BYTES, "little"), SFD_CLOEXEC | SFD_NONBLOCK))


def install_seccomp_filter(syscall_number: int, program: bytes, flags: int) -> int:
    """seccomp(SECCOMP_SET_MODE_FILTER): returns the listener when the flags ask for one.

    Args:
        syscall_number: of seccomp(2) on this architecture.
        program: classic BPF, struct sock_filter after struct sock_filter (8 bytes each).
        flags: SECCOMP_FILTER_FLAG_* of linux/seccomp.h.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    loaded = _FilterProgram(len(program) // BPF_INSTRUCTION_BYTES, ctypes.addressof(instructions))
    arguments = ctypes.c_long(SECCOMP_SET_MODE_FILTER), ctypes.c_long(flags), ctypes.byref(loaded)
    return int(_checked(_library().syscall(ctypes.c_long(syscall_number), *arguments)))


def read_process_memory(pid: int, address: int, length: int) -> bytes:
    """Up to length bytes of another process; fewer where readable memory ends (process_vm_readv(2)). EFAULT if none."""
    buffer = ctypes.create_string_buffer(length)
    local = _IoVector(ctypes.addressof(buffer), length)
    remote = _IoVector(address, length)
    count = _library().process_vm_readv(
        pid, ctypes.byref(local), ctypes.c_ulong(1), ctypes.byref(remote), ctypes.c_ulong(1), ctypes.c_ulong(0)
    )
    return buffer.raw[: _checked(count)]


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A copy of another process's descriptor, close-on-exec (pidfd_getfd(2))."""
    arguments = (ctypes.c_long(number) for number in (SYS_PIDFD_GETFD, pidfd, fd, 0))
    return int(_checked(_library().syscall(*arguments)))


def unshare_descriptors() -> None:
    """Gives the calling thread a copy of the descriptor table for itself (close_range(2), of an empty range).

    Not by unshare(2), which container profiles forbid.
    """
    last = ctypes.c_ulong(0xFFFFFFFF)
    _checked(_library().syscall(ctypes.c_long(SYS_CLOSE_RANGE), last, last, ctypes.c_ulong(CLOSE_RANGE_UNSHARE)))


def epoll_add(epoll: int, fd: int, events: int, data: int) -> None:
    """Registers a descriptor with any 64 bits of data (epoll_ctl(2)), which Python's own offers for its number only."""
    _checked(_library().epoll_ctl(epoll, EPOLL_CTL_ADD, fd, ctypes.byref(_EpollEvent(events, data))))


def epoll_delete(epoll: int, fd: int) -> None:
    """Takes back a registration. ENOENT if there is none of this file under this number."""
    _checked(_library().epoll_ctl(epoll, EPOLL_CTL_DEL, fd, None))
