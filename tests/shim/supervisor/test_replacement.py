"""A descriptor of a program that is blocked gets another file, and epoll goes on with that."""

from __future__ import annotations

import errno

import pytest

from tests.shim.supervisor.conftest import Shim

pytestmark = pytest.mark.root

PROGRAM = """
import ctypes, fcntl, select
libc = ctypes.CDLL(None, use_errno=True)
class Event(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))
ADD, DELETE, MODIFY = 1, 2, 3
def control(epoll, operation, fd, events=1, data=0):
    done = libc.epoll_ctl(epoll.fileno(), operation, fd, ctypes.byref(Event(events, data)))
    return 0 if not done else ctypes.get_errno()
def ready(epoll):
    event = Event()
    count = libc.epoll_wait(epoll.fileno(), ctypes.byref(event), 1, 1000 if epoll is first else 0)
    return (event.events, hex(event.data)) if count else None
first, second = select.epoll(), select.epoll()
server = socket.create_server(("127.0.0.1", 0))
remote = socket.create_connection(server.getsockname())
link = server.accept()[0]
link.setblocking(False)
def switch(fd, text=b"hello"):
    return struct.unpack("=I", ask(netlink(), request(SWITCH, struct.pack("=I", fd) + text))[0][0])[0]
"""


def test_the_number_reads_from_the_new_file(shim: Shim) -> None:
    found = shim.output(PROGRAM + "say(switch(link.fileno()), os.read(link.fileno(), 100))")
    assert found == ["0", "b'hello'"]


def test_epoll_tells_of_the_new_file_with_the_same_events_and_data_and_no_more_of_the_old(shim: Shim) -> None:
    found = shim.output(
        PROGRAM
        + """
fd, data = link.fileno(), 0xFEDCBA9876543210
assert not control(first, ADD, fd, select.EPOLLIN | select.EPOLLRDHUP, data)
kept = link.dup()
say(switch(fd), *ready(first))
os.read(fd, 100)
remote.send(b"to the old one")
assert select.select([kept], [], [], 5)[0]
say(first.poll(0))
say(control(first, MODIFY, fd, select.EPOLLOUT, 7), *ready(first))
say(control(first, DELETE, fd), control(first, DELETE, fd))
"""
    )
    assert " ".join(found) == f"0 1 0xfedcba9876543210 [] 0 4 0x7 0 {errno.ENOENT}"


def test_every_epoll_file_is_moved_and_other_numbers_stay(shim: Shim) -> None:
    found = shim.output(
        PROGRAM
        + """
other = link.dup()
for epoll, fd in ((first, link.fileno()), (second, link.fileno()), (second, other.fileno())):
    assert not control(epoll, ADD, fd, select.EPOLLIN, fd)
say(switch(link.fileno()))
say(ready(first) == ready(second) == (1, hex(link.fileno())))
say(control(second, DELETE, other.fileno()))
"""
    )
    assert found == ["0", "True", "0"]


def test_any_number_is_moved_whatever_the_shim_uses_it_for(shim: Shim) -> None:
    found = shim.output(
        PROGRAM
        + """
moved = list(range(max(server.fileno(), remote.fileno(), link.fileno(), first.fileno(), second.fileno()) + 1, 60))
for fd in moved:
    os.dup2(link.fileno(), fd)
    assert not control(first, ADD, fd, select.EPOLLIN, fd), fd
    assert not switch(fd), fd
    assert ready(first) == (1, hex(fd)), fd
    assert not control(first, DELETE, fd), fd
say(len(moved) > 40)
"""
    )
    assert found == ["True"]


@pytest.mark.parametrize("inheritable", [False, True])
def test_close_on_exec_stays(shim: Shim, inheritable: bool) -> None:
    found = shim.output(
        PROGRAM + f"link.set_inheritable({inheritable})\nsay(switch(link.fileno()), link.get_inheritable())"
    )
    assert found == ["0", str(inheritable)]


def test_a_number_that_is_not_open_is_an_error(shim: Shim) -> None:
    assert shim.output(PROGRAM + "say(switch(999) in (2, 9))") == ["True"]
