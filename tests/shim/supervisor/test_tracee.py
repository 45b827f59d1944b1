from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.supervisor import libc
from controlplane_shim.supervisor.tracee import MAX_READ, Tracee


def errno_of(call: Callable[..., object], *arguments: int) -> int | None:
    with pytest.raises(OSError) as raised:
        call(*arguments)
    return raised.value.errno


@given(st.binary(min_size=1, max_size=10000))
def test_memory_is_read_as_it_is(data: bytes) -> None:
    buffer = ctypes.create_string_buffer(data, len(data))
    with Tracee(os.getpid()) as tracee:
        assert tracee.read(ctypes.addressof(buffer), len(data)) == data


def test_memory_is_read_through_proc_where_the_call_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_arguments: int) -> bytes:
        raise PermissionError(errno.EPERM, "forbidden by a profile")

    monkeypatch.setattr(libc, "read_process_memory", forbidden)
    buffer = ctypes.create_string_buffer(b"hello", 5)
    with Tracee(os.getpid()) as tracee:
        assert tracee.read(ctypes.addressof(buffer), 5) == b"hello"
        assert errno_of(tracee.read, 8, 5) == errno.EFAULT


@pytest.mark.parametrize("address", [0, 8, 2**47, 2**63 - 1, 2**63, 2**64 - 1])
def test_bad_pointer_is_efault(address: int) -> None:
    with Tracee(os.getpid()) as tracee:
        assert errno_of(tracee.read, address, 16) == errno.EFAULT


def test_range_that_ends_in_unmapped_memory_is_efault() -> None:
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    library = ctypes.CDLL(None, use_errno=True)
    assert library.mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    with Tracee(os.getpid()) as tracee:
        assert tracee.read(start + mmap.PAGESIZE - 4, 4) == bytes(4)
        assert errno_of(tracee.read, start + mmap.PAGESIZE - 4, 8) == errno.EFAULT


def test_nothing_is_read_for_no_length_even_from_a_bad_pointer() -> None:
    with Tracee(os.getpid()) as tracee:
        assert tracee.read(0, 0) == b""


def test_huge_length_is_refused() -> None:
    with Tracee(os.getpid()) as tracee:
        assert errno_of(tracee.read, 0, MAX_READ + 1) == errno.EMSGSIZE


def test_descriptor_is_fetched_as_a_copy_of_the_same_file() -> None:
    one, other = socket.socketpair()
    with one, other, Tracee(os.getpid()) as tracee:
        copy = tracee.fetch_fd(one.fileno())
        try:
            assert copy != one.fileno()
            assert os.fstat(copy).st_ino == os.fstat(one.fileno()).st_ino
            assert not os.get_inheritable(copy)
        finally:
            os.close(copy)


def test_descriptor_that_is_not_open_is_ebadf() -> None:
    with Tracee(os.getpid()) as tracee:
        assert errno_of(tracee.fetch_fd, 9999) == errno.EBADF
        assert not tracee.has_fd(9999)


def test_open_descriptor_is_in_use() -> None:
    with Tracee(os.getpid()) as tracee:
        assert tracee.has_fd(0)


def test_thread_belongs_to_its_process() -> None:
    tids: list[int] = []
    asked = threading.Event()

    def wait() -> None:
        tids.append(threading.get_native_id())
        asked.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        while not tids:
            os.sched_yield()
        with Tracee(tids[0]) as tracee:
            assert tracee.pid == os.getpid()
            assert tids[0] != os.getpid()
    finally:
        asked.set()
        thread.join()


def test_executable_and_namespace_are_the_files_behind_the_links() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with Tracee(child.pid) as tracee, Tracee(os.getpid()) as own:
            assert tracee.network_namespace() == own.network_namespace()
            python = Path(sys.executable).stat()
            assert own.executable() == (python.st_dev, python.st_ino)
    finally:
        child.communicate(b"\n")


def test_thread_that_has_gone_is_an_os_error() -> None:
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    with Tracee(child.pid) as tracee:
        assert errno_of(tracee.fetch_fd, 0) in {errno.ENOENT, errno.ESRCH}
        assert errno_of(tracee.read, 4096, 4) == errno.ESRCH
        assert errno_of(tracee.executable) == errno.ENOENT


@pytest.mark.parametrize("inheritable", [True, False])
def test_close_on_exec_is_told(inheritable: bool) -> None:
    with socket.socket() as one, Tracee(os.getpid()) as tracee:
        one.set_inheritable(inheritable)
        assert tracee.is_close_on_exec(one.fileno()) is not inheritable
        assert errno_of(tracee.is_close_on_exec, 9999) == errno.ENOENT


def test_parent_is_told_of_any_thread() -> None:
    with Tracee(os.getpid()) as tracee:
        assert tracee.parent == os.getppid()


def test_memory_is_written_through_a_descriptor_that_outlives_the_tracee() -> None:
    buffer = ctypes.create_string_buffer(b"before", 6)
    with Tracee(os.getpid()) as tracee:
        memory = tracee.open_memory()
    assert not os.get_inheritable(memory)
    os.pwrite(memory, b"after!", ctypes.addressof(buffer))
    os.close(memory)
    assert buffer.raw == b"after!"


def is_admin(*program: str) -> bool:
    """Of a program that waits for the end of its input once it is what it is to be."""
    child = subprocess.Popen([*program, "sh", "-c", "echo; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child, Tracee(child.pid) as tracee:
        assert child.stdout is not None
        child.stdout.readline()
        return tracee.is_admin()


@pytest.mark.parametrize(
    ("program", "admin"),
    [
        ((), True),
        (("setpriv", "--bounding-set", "-net_admin"), False),
        (("setpriv", "--reuid", "65534", "--clear-groups"), False),
        (("setpriv", "--reuid", "65534", "--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"), True),
        (("unshare", "--user", "--map-root-user"), False),
    ],
)
def test_admin_is_who_has_net_admin_in_our_user_namespace(program: tuple[str, ...], admin: bool) -> None:
    assert is_admin(*program) is admin
