"""Running a function inside another network namespace.

Knows setns(2). Must not know what the function does: a TUN or a socket belongs for life to the
namespace it was made in, so only its making has to happen there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

CLONE_NEWNET: Final = 0x40000000

T = TypeVar("T")


def in_network_namespace(path: str, function: Callable[[], T]) -> T:
    """Calls a function in the network namespace at `path` (such as "/run/netns/blue") and returns what it returns.

    An empty path means the caller's namespace. The function runs in a thread of its own, which ends with it: no
    other thread is affected, and no failure can leave one in the wrong namespace. Blocks meanwhile.
    Raises what the function raises, and OSError whose filename is `path`: ENOENT, no such path; EINVAL, not a
    network namespace; EPERM, no CAP_SYS_ADMIN.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as thread:
        return thread.submit(_enter_and_call, path, function).result()


def _enter_and_call(path: str, function: Callable[[], T]) -> T:
    if path:
        _enter(path)
    return function()


def _enter(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)
