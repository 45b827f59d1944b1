from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shim.supervisor.conftest import Shim

pytestmark = pytest.mark.root

ENOENT, EFAULT, EMSGSIZE, EINVAL = (str(code) for code in (errno.ENOENT, errno.EFAULT, errno.EMSGSIZE, errno.EINVAL))

LIBC = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    ctypes.set_errno(0)
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return getattr(libc, name)(*wide), ctypes.get_errno()
"""


def test_family_of_ours_is_found_with_reply_and_acknowledgement(shim: Shim) -> None:
    found = shim.output("""
replies, error = ask(netlink(), get_family("ovpn-dco-v2"))
say(struct.unpack_from("=H", replies[0], 8)[0], error)
""")
    assert found == ["3328", "0"]


def test_family_of_the_kernel_is_answered_by_the_kernel(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
client.send(get_family("nlctrl"))
data, (sender, _groups) = client.recvfrom(65536)
say(messages(data)[0][0] == CONTROL_FAMILY, sender)
""")
    assert found == ["True", "0"]


def test_socket_is_injected_into_the_high_range(shim: Shim) -> None:
    assert (
        shim.output("say(netlink().fileno() >= INJECTED_FROM, netlink(ROUTE).fileno() >= INJECTED_FROM)")
        == ["True"] * 2
    )


def test_other_netlink_protocols_are_native(shim: Shim) -> None:
    assert shim.output("say(netlink(15).fileno() < 100)") == ["True"]


def test_type_and_flags_are_those_asked_for(shim: Shim) -> None:
    found = shim.output("""
import fcntl
def flags(kind):
    fd = libc.socket(16, int(kind), 16)
    copy = socket.socket(fileno=fd)
    return (int(copy.type), fcntl.fcntl(fd, fcntl.F_GETFD), bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK))
import ctypes
libc = ctypes.CDLL(None)
say(*flags(socket.SOCK_RAW))
say(*flags(socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
say(*flags(socket.SOCK_RAW | socket.SOCK_NONBLOCK))
""")
    assert found == ["3", "0", "False", "2", "1", "False", "3", "0", "True"]


def test_kernel_judges_a_type_it_does_not_know(shim: Shim) -> None:
    assert shim.output(LIBC + 'say(*call("socket", 16, 9, 16))') == ["-1", str(errno.ESOCKTNOSUPPORT)]


def test_closed_descriptors_are_used_again(shim: Shim) -> None:
    found = shim.output("""
numbers = set()
for _ in range(20):
    client = netlink()
    numbers.add(client.fileno())
    client.close()
kept = [netlink() for _ in range(20)]
say(len(numbers), len({one.fileno() for one in kept}))
""")
    assert found == ["1", "20"]


def test_program_that_takes_all_injected_descriptors_goes_on_with_native_ones(shim: Shim) -> None:
    found = shim.output("""
kept = [netlink() for _ in range(1030)]
say(min(one.fileno() for one in kept) < 100, ask(kept[0], request(ECHO, b"abcd"))[1])
""")
    assert found == ["True", "0"]


@pytest.mark.parametrize(
    "send",
    [
        "client.send(asked)",
        "client.sendto(asked, (0, 0))",
        "client.sendmsg([asked[:5], asked[5:]])",
        "client.sendmsg([asked], [], 0, (0, 0))",
        "os.write(client.fileno(), asked)",
        "os.writev(client.fileno(), [asked[:9], b'', asked[9:]])",
    ],
)
def test_every_way_to_send_reaches_the_session_and_returns_the_length(shim: Shim, send: str) -> None:
    found = shim.output(f"""
client = netlink()
asked = request(ECHO, b"abcd")
say({send} == len(asked), receive(client)[0][2], error_of(receive(client)[0][2]))
""")
    assert found == ["True", "b'abcd'", "0"]


def test_answers_are_queued_before_the_send_returns(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
client.setblocking(False)
for number in range(200):
    client.send(request(ECHO, struct.pack("=I", number), number))
    assert receive(client) == [(FAKE_FAMILY, number, struct.pack("=I", number))]
    assert error_of(receive(client)[0][2]) == 0
say("always")
""")
    assert found == ["always"]


def test_request_without_an_answer_is_swallowed(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
client.setblocking(False)
say(client.send(request(SILENT)))
try: client.recv(100)
except BlockingIOError: say("nothing")
""")
    assert found == ["20", "nothing"]


def test_port_id_chosen_by_the_program_is_answered(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
client.bind((123456, 0))
say(ask(client, request(ECHO, b"abcd"))[1], client.getsockname()[0])
""")
    assert found == ["0", "123456"]


def test_what_the_program_wants_of_acknowledgements_reaches_the_session(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
told = [ask(client, request(OPTIONS))[0][0]]
for option in (11, 10):  # NETLINK_EXT_ACK, NETLINK_CAP_ACK
    client.setsockopt(SOL_NETLINK, option, 1)
    told.append(ask(client, request(OPTIONS))[0][0])
say(*(struct.unpack("=4x??", one) for one in told))
""")
    assert " ".join(found) == "(False, False) (True, False) (True, True)"


def test_datagram_for_the_session_and_the_kernel_is_answered_by_both(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
client.send(request(ECHO, b"abcd", 1) + get_family("nlctrl", 2))
found = [found for _ in range(4) for found in receive(client)]
say(*sorted((sequence, kind) for kind, sequence, _body in found))
""")
    assert " ".join(found) == "(1, 2) (1, 3328) (2, 2) (2, 16)"


def test_kernel_itself_answers_a_kernel_message(shim: Shim) -> None:
    """iproute2 believes none but the kernel."""
    done = shim.run("ip", "link", "add", "ovpn-test", "type", "ovpn-dco")
    assert (done.returncode, done.stdout) == (0, "")


def test_routes_are_native(shim: Shim) -> None:
    found = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert shim.run("ip", "-o", "link", "show", "lo").stdout in found


def test_handler_that_raises_leaves_the_call_to_the_kernel(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
say(ask(client, request(RAISE))[1], ask(client, request(ECHO, b"abcd"))[1])
""")
    assert found == [ENOENT, "0"]


def test_handler_that_raises_is_logged_without_the_text_of_the_exception(shim: Shim) -> None:
    done = shim.run(*shim.python("ask(netlink(), request(RAISE))"))
    lines = [line for line in done.stderr.splitlines() if "could not be served" in line]
    assert len(lines) == 1
    assert "RuntimeError" in lines[0]
    assert "the session has a fault" not in done.stderr


def test_descriptor_is_fetched_from_the_caller(shim: Shim) -> None:
    found = shim.output("""
one, other = socket.socketpair()
replies, error = ask(netlink(), request(INODE, struct.pack("=I", one.fileno())))
say(struct.unpack("=QI", replies[0]) == (os.fstat(one.fileno()).st_ino, os.getpid()))
""")
    assert found == ["True"]


def test_other_thread_and_forked_child_are_served_too(shim: Shim) -> None:
    found = shim.output("""
import threading
def act():
    say(ask(netlink(), request(INODE, struct.pack("=I", 0)))[0][0][8:] == struct.pack("=I", os.getpid()))
thread = threading.Thread(target=act)
thread.start()
thread.join()
if os.fork() == 0:
    act()
    os._exit(0)
os.wait()
""")
    assert found == ["True", "True"]


class TestGroups:
    def test_notice_reaches_a_member(self, shim: Shim) -> None:
        found = shim.output("""
client, member = netlink(), netlink()
member.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, FAKE_GROUP)
ask(client, request(NOTICE, struct.pack("=I", 1)))
say(receive(member)[0][0])
""")
        assert found == ["3328"]

    def test_notice_reaches_none_who_has_left(self, shim: Shim) -> None:
        found = shim.output("""
client, gone, member = netlink(), netlink(), netlink()
for one in (gone, member):
    one.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, FAKE_GROUP)
gone.setsockopt(SOL_NETLINK, DROP_MEMBERSHIP, FAKE_GROUP)
gone.setblocking(False)
ask(client, request(NOTICE, struct.pack("=I", 1)))
receive(member)
try: gone.recv(100)
except BlockingIOError: say("nothing")
""")
        assert found == ["nothing"]

    def test_group_of_the_kernel_is_joined_natively(self, shim: Shim) -> None:
        found = shim.output("""
client = netlink()
client.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, 16)  # nlctrl notify
say(client.getsockopt(SOL_NETLINK, 9, 8)[1])  # NETLINK_LIST_MEMBERSHIPS, a bitmap from group 1 on
""")
        assert found == ["128"]

    def test_group_the_kernel_does_not_have_is_refused_by_it(self, shim: Shim) -> None:
        found = shim.output("""
try: netlink().setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, 0xFFFFFF)
except OSError as error: say(error.errno)
""")
        assert found == [EINVAL]

    def test_the_same_number_is_another_group_with_rtnetlink(self, shim: Shim) -> None:
        found = shim.output("""
try: netlink(ROUTE).setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, FAKE_GROUP)
except OSError as error: say(error.errno)
""")
        assert found == [EINVAL]

    def test_member_that_has_closed_is_reported_to_the_session(self, shim: Shim) -> None:
        found = shim.output("""
client, gone, member = netlink(), netlink(), netlink()
for one in (gone, member):
    one.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, FAKE_GROUP)
gone.close()
ask(client, request(NOTICE, struct.pack("=I", 1)))
receive(member)
say(struct.unpack("=I", ask(client, request(COUNT))[0][0])[0])
""")
        assert found == ["1000"]

    def test_slow_member_loses_no_notice(self, shim: Shim) -> None:
        found = shim.output("""
client, member = netlink(), netlink()
member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
member.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, FAKE_GROUP)
ask(client, request(NOTICE, struct.pack("=I", 100)))
say(ask(client, request(ECHO, b"abcd"))[1])  # served meanwhile
say(sum(len(receive(member)) for _ in range(100)))
""")
        assert found == ["0", "100"]


def test_answer_that_is_larger_than_the_queue_arrives_whole_and_in_order(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
replies, error = ask(client, request(FLOOD, struct.pack("=I", 100)))
say([struct.unpack_from("=I", reply)[0] for reply in replies] == list(range(100)), error)
""")
    assert found == ["True", "0"]


def test_other_executable_under_the_filter_is_native(shim: Shim, tmp_path: Path) -> None:
    copy = tmp_path / "python"
    shutil.copy(Path(sys.executable).resolve(), copy)
    code = "import socket; print(socket.socket(16, 3, 16).fileno() < 100)"
    found = shim.output(f"""
import subprocess
say(netlink().fileno() > INJECTED_FROM)
subprocess.run([{str(copy)!r}, "-S", "-c", {code!r}], check=True, env={{"PYTHONHOME": sys.base_prefix}})
""")
    assert found == ["True", "True"]


def test_script_with_ip_works(shim: Shim) -> None:
    found = shim.output("""
import subprocess
subprocess.run(["sh", "-c", "ip -o link show lo | cut -d: -f2"], check=True)
""")
    assert found == ["lo"]


def test_program_in_another_network_namespace_is_native(shim: Shim) -> None:
    found = shim.output("""
import ctypes
say(netlink().fileno() > INJECTED_FROM)
assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
say(netlink().fileno() < 100)
""")
    assert found == ["True", "True"]


def test_message_to_another_port_id_is_native(shim: Shim) -> None:
    found = shim.output("""
one, other = netlink(), netlink()
other.bind((0, 0))
one.sendto(request(ECHO, b"abcd"), (other.getsockname()[0], 0))
say(receive(other)[0][0])
""")
    assert found == ["3328"]


def test_socket_connected_to_another_port_id_is_native(shim: Shim) -> None:
    found = shim.output("""
one, other = netlink(), netlink()
other.bind((0, 0))
one.connect((other.getsockname()[0], 0))
one.send(request(ECHO, b"abcd"))
say(receive(other)[0][0])
""")
    assert found == ["3328"]


def test_descriptor_of_another_kind_in_the_range_is_native(shim: Shim) -> None:
    found = shim.output("""
number = netlink().detach()
reader, writer = os.pipe()
os.dup2(writer, number)
say(os.write(number, b"abc"), os.read(reader, 10))
one, other = socket.socketpair()
os.dup2(one.fileno(), number)
say(socket.socket(fileno=number).send(b"abc"), other.recv(10))
""")
    assert found == ["3", "b'abc'", "3", "b'abc'"]


def test_bad_pointer_is_efault_as_ever(shim: Shim) -> None:
    found = shim.output(
        LIBC
        + """
client = netlink()
fd = client.fileno()
for bad in (1, 0x7FFFFFFFF000, 2**63 - 8, -8):
    say(*call("sendto", fd, bad, 100, 0, 0, 0))
    say(*call("sendmsg", fd, bad, 0))
    say(*call("write", fd, bad, 100))
    say(*call("writev", fd, bad, 1))
    say(*call("setsockopt", fd, SOL_NETLINK, ADD_MEMBERSHIP, bad, 4))
    say(*call("sendto", fd, b"x" * 20, 20, 0, bad, 12))
"""
    )
    assert found == ["-1", EFAULT] * 24


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        ('"sendto", fd, b"", 0, 0, 0, 0', ["-1", str(errno.ENODATA)]),
        ('"writev", fd, 0, 5000', ["-1", EINVAL]),
        ('"sendto", fd, b"x" * 20, 20, 0, b"\\2\\0" + bytes(10), 12', ["-1", EINVAL]),
        ('"sendto", fd, b"x" * 20, 20, 0, b"\\x10\\0" + bytes(10), 4', ["-1", EINVAL]),
        ('"sendto", fd, bytes(1 << 22), 1 << 22, 0, 0, 0', ["-1", EMSGSIZE]),
        ('"setsockopt", fd, 270, 1, b"", 2', ["-1", EINVAL]),
        ('"sendmmsg", fd, 0, 0, 0', ["0", "0"]),
    ],
)
def test_kernel_judges_what_is_not_understood(shim: Shim, attempt: str, expected: list[str]) -> None:
    assert shim.output(LIBC + f"client = netlink(); fd = client.fileno(); say(*call({attempt}))") == expected


def test_fast_timer_neither_interrupts_nor_repeats_a_request(shim: Shim) -> None:
    """A system call that the supervisor did not take yet is interrupted, and made again for handlers like OpenVPN's."""
    found = shim.output("""
ticks = 0
def tick(*_):
    global ticks
    ticks += 1
signal.signal(signal.SIGALRM, tick)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
for _ in range(50):
    client = netlink()
    for _ in range(4):
        assert ask(client, request(ECHO, b"abcd")) == ([b"abcd"], 0)
    client.close()
while ticks < 3: signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
say(struct.unpack("=I", ask(netlink(), request(COUNT))[0][0])[0])
""")
    assert found == ["200"]


def test_caller_killed_in_its_system_call_does_no_harm(shim: Shim) -> None:
    found = shim.output("""
client = netlink()
for _ in range(50):
    child = os.fork()
    if child == 0:
        while True: ask(netlink(), request(ECHO, b"abcd"))
    assert ask(client, request(ECHO, b"abcd"))[1] == 0
    os.kill(child, signal.SIGKILL)
    os.wait()
say(ask(client, request(ECHO, b"abcd"))[1])
""")
    assert found == ["0"]


def test_openvpn_runs(shim: Shim) -> None:
    done = shim.run("/usr/sbin/openvpn", "--version")
    assert done.stdout.startswith("OpenVPN 2.")
    assert (
        done.returncode
        == subprocess.run(["/usr/sbin/openvpn", "--version"], capture_output=True, check=False).returncode
    )
