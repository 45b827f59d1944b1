"""Giving up everything the worker does not need, before the first packet.

Knows capabilities(7), prctl(2) and open descriptors. Must not know what the worker does: it was given its TUN
and sockets as descriptors, so it needs no privilege at all.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

# <linux/prctl.h>
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_SIGKILL: Final = 9
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
_MAX_FD: Final = 0x7FFFFFFF


class ParentGone(Exception):
    """The daemon died before the worker could ask to die with it."""


def close_stray_descriptors(keep: int) -> None:
    """Closes every descriptor but 0, 1, 2 and `keep`."""
    os.closerange(3, keep)
    os.closerange(max(3, keep + 1), _MAX_FD)


def give_up_privileges() -> None:
    """Drops all capabilities for good. Raises OSError if Linux refuses.

    The process also becomes non-dumpable: a core dump, or another process of the same user that attaches to it,
    would show keys. That makes its /proc files root's, of which the worker needs none.
    """
    libc = _libc()
    _drop_bounding_set(libc)
    _check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    # capset(2) takes version and thread (0: this one, there is no other), and twice effective, permitted, inheritable.
    version_and_thread = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    _check(libc.capset(version_and_thread, (ctypes.c_uint32 * 6)()))
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))


def die_with(daemon_pid: int) -> None:
    """Has the kernel kill this process when the thread that started it ends.

    Raises ParentGone if the daemon is not the parent (any more): then that thread may have ended before.
    """
    _check(_libc().prctl(PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
    if os.getppid() != daemon_pid:
        raise ParentGone(f"process {daemon_pid}, which made the command channel, is not the parent")


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return libc


def _drop_bounding_set(libc: ctypes.CDLL) -> None:
    capability = 0
    while libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            # No CAP_SETPCAP, so the daemon is unprivileged; NO_NEW_PRIVS makes the bounding set idle anyway.
            return
        capability += 1


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
