"""Whole frames for OpenVPN: first the frames of a TCP stream, then a program that reads them under the shim."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.supervisor.link_reads import Unframed, is_link, peek_frame, take_frame
from tests.shim.supervisor.conftest import Shim

BUFFER = 2000


def frame(packet: bytes) -> bytes:
    return struct.pack("!H", len(packet)) + packet


def is_readable(link: socket.socket) -> bool:
    return bool(select.select([link], [], [], 0)[0])


class Connection:
    """Two ends of a TCP connection; `link` is OpenVPN's."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.remote = socket.create_connection(server.getsockname())
            self.link, _address = server.accept()
        self.remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.link.setblocking(False)

    def send(self, data: bytes) -> None:
        wanted = self.waiting() + len(data)
        self.remote.sendall(data)
        while self.waiting() < wanted:
            os.sched_yield()

    def waiting(self) -> int:
        """Bytes that have arrived and were not read."""
        return int.from_bytes(fcntl.ioctl(self.link, termios.FIONREAD, bytes(4)), sys.byteorder)

    def close(self) -> None:
        self.remote.close()
        self.link.close()


@pytest.fixture
def connection() -> Iterator[Connection]:
    made = Connection()
    yield made
    made.close()


def read(link: socket.socket) -> bytes:
    """What OpenVPN's read would get."""
    found = peek_frame(link, BUFFER)
    assert isinstance(found, bytes)
    buffer = ctypes.create_string_buffer(BUFFER)
    memory = os.open("/proc/self/mem", os.O_RDWR)
    try:
        take_frame(link, found, memory, ctypes.addressof(buffer))
    finally:
        os.close(memory)
    assert buffer.raw.startswith(found)
    return found


def test_frames_are_read_one_by_one_however_many_wait(connection: Connection) -> None:
    connection.send(frame(b"first") + frame(b"second") + frame(b"third")[:3])
    assert [read(connection.link), read(connection.link)] == [frame(b"first"), frame(b"second")]
    assert peek_frame(connection.link, BUFFER) is Unframed.PARTIAL


@pytest.mark.parametrize("first", [1, 2, 3, 6])
def test_a_socket_with_a_part_of_a_frame_is_readable_when_the_rest_has_come(connection: Connection, first: int) -> None:
    whole = frame(b"packet")
    connection.send(whole[:first])
    assert peek_frame(connection.link, BUFFER) is Unframed.PARTIAL
    connection.send(whole[first:-1])
    while is_readable(connection.link):  # so far for the prefix alone
        assert peek_frame(connection.link, BUFFER) is Unframed.PARTIAL
    connection.send(whole[-1:])
    assert is_readable(connection.link)
    assert read(connection.link) == whole
    connection.send(b"\0")
    assert is_readable(connection.link)


@pytest.mark.parametrize("stream", [b"GET / HTTP/1.1", struct.pack("!H", BUFFER - 1), bytes(2), bytes(5)])
def test_what_openvpn_refuses_is_left_to_the_kernel(connection: Connection, stream: bytes) -> None:
    connection.send(stream)
    assert peek_frame(connection.link, BUFFER) is Unframed.NATIVE


def test_an_empty_socket_is_left_to_the_kernel(connection: Connection) -> None:
    assert peek_frame(connection.link, BUFFER) is Unframed.NATIVE


def test_frames_before_the_end_are_whole_and_the_rest_is_left_to_the_kernel(connection: Connection) -> None:
    connection.send(frame(b"last") + b"\0")
    connection.remote.shutdown(socket.SHUT_WR)
    assert read(connection.link) == frame(b"last")
    assert peek_frame(connection.link, BUFFER) is Unframed.NATIVE
    connection.link.recv(1)
    assert peek_frame(connection.link, BUFFER) is Unframed.NATIVE


def test_a_frame_that_cannot_be_delivered_stays(connection: Connection) -> None:
    connection.send(frame(b"packet"))
    memory = os.open("/proc/self/mem", os.O_RDWR)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            take_frame(connection.link, frame(b"packet"), memory, 8)
    finally:
        os.close(memory)
    assert read(connection.link) == frame(b"packet")


def test_only_nonblocking_tcp_sockets_are_links(connection: Connection) -> None:
    assert is_link(connection.link)
    assert not is_link(connection.remote)
    for family, kind in ((socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)):
        with socket.socket(family, kind) as other:
            other.setblocking(False)
            assert not is_link(other)


@given(packets=st.lists(st.binary(min_size=1, max_size=300), max_size=8), cuts=st.lists(st.integers(1, 400)))
def test_any_split_of_the_stream_gives_the_same_frames(packets: list[bytes], cuts: list[int]) -> None:
    connection = Connection()
    rest = b"".join(map(frame, packets))
    found = []
    for cut in [*cuts, len(rest)]:
        if rest:
            connection.send(rest[:cut])
            rest = rest[cut:]
        while isinstance(peek_frame(connection.link, BUFFER), bytes):
            found.append(read(connection.link)[2:])
    connection.close()
    assert found == packets


PROGRAM = """
import select
server = socket.create_server(("127.0.0.1", 0))
remote = socket.create_connection(server.getsockname())
remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
link = server.accept()[0]
link.setblocking(False)
def send(data):
    remote.sendall(data)
    select.select([link], [], [], 0.1)
def read(length=2000, flags=socket.MSG_NOSIGNAL):
    try: return link.recv(length, flags)
    except BlockingIOError: return "later"
"""


@pytest.mark.root
def test_a_program_reads_whole_frames(shim: Shim) -> None:
    found = shim.output(
        PROGRAM
        + """
say(read())
send(b"\\0\\3ab")
say(read())
send(b"c\\0\\2de\\0")
say(read(), read(), read())
remote.close()
say(read(), read())
""".replace("\\", "\\")
    )
    assert found == ["later", "later", r"b'\x00\x03abc'", r"b'\x00\x02de'", "later", r"b'\x00'", "b''"]


@pytest.mark.root
@pytest.mark.parametrize("call", ["read(2000, 0)", "read(1023)", "link.recvfrom(2000, socket.MSG_NOSIGNAL)[0]"])
def test_other_reads_are_native(shim: Shim, call: str) -> None:
    assert shim.output(PROGRAM + f"send(b'\\0\\3ab')\nsay({call})") == [r"b'\x00\x03ab'"]


@pytest.mark.root
def test_reads_of_a_program_with_its_own_data_channel_are_native(shim: Shim) -> None:
    done = shim.run(*shim.python(PROGRAM + "send(b'\\0\\3ab')\nsay(read())"), env={"FAKE_TARGET": "declined"})
    assert done.stdout.split() == [r"b'\x00\x03ab'"]


@pytest.mark.root
def test_reads_of_a_process_that_the_program_forked_are_native(shim: Shim) -> None:
    found = shim.output(PROGRAM + "send(b'\\0\\3ab')\nif not os.fork():\n    say(read())\n    os._exit(0)\nos.wait()")
    assert found == [r"b'\x00\x03ab'"]


@pytest.mark.root
def test_a_read_into_bad_memory_is_judged_by_the_kernel(shim: Shim) -> None:
    found = shim.output(
        PROGRAM
        + """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
send(b"\\0\\3abc")
say(libc.recv(link.fileno(), ctypes.c_void_p(8), ctypes.c_size_t(2000), 0x4000), ctypes.get_errno(), read())
"""
    )
    assert found == ["-1", "14", r"b'\x00\x03abc'"]
