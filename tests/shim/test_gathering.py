"""UDP_GRO on a shared port, over links that merge: who gets what, from whom, and when it is not done at all."""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from errno import ENOPROTOOPT, EPERM
from typing import Any, TypeVar

import pytest
from structlog.testing import LogCapture

from controlplane_shim import gathering as gathering_module
from controlplane_shim.control_injection import ControlPacket, Injector
from controlplane_shim.gathering import Gathering, prepare_gathering
from controlplane_shim.udp_split import split
from dataplane.transport.udp import UdpTransport
from lab.gro import merge_on
from lab.lab import Lab
from lab.netns import Link, Namespace
from tests.descriptors import open_fds

pytestmark = pytest.mark.root

FLOWS = 32
ROUNDS = 20
DATA, CONTROL = 9 << 3, 4 << 3
FIRST_PORT = 30000
IP_PKTINFO = 8
SO_RCVBUFFORCE = 33
UDP_GRO = (17, 104)

SENDER = """
import socket, sys, time
address, port, first_port, flows, rounds = sys.argv[1], *map(int, sys.argv[2:])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
senders = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(flows)]
for number, sender in enumerate(senders):
    sender.bind(("", first_port + number))
    sender.connect(socket.getaddrinfo(address, port, family)[0][4])  # with the interface of a link-local address
for number in range(rounds):
    for flow, sender in enumerate(senders):
        if flow % 8 == 0:
            time.sleep(0.01)  # a veth device holds 256 packets and drops what comes then
        for place in range(10):  # the control packet is at every place in turn, as long as the others or shorter
            opcode, length = (4, 80 if number % 2 else 40) if place == number % 10 else (9, 80)
            sender.send(bytes([opcode << 3, number, place]) + bytes(length))
"""

T = TypeVar("T")


@dataclass
class Received:
    """What came. data: by port of the sender; trains: those of them that came merged; control: numbers, in order."""

    data: Counter[int] = field(default_factory=Counter)
    trains: Counter[int] = field(default_factory=Counter)
    control: defaultdict[tuple[Any, ...], list[int]] = field(default_factory=lambda: defaultdict(list))
    refused: int = 0


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    """A merging link; its end `a` is OpenVPN's host."""
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        link = lab.link(lab.namespace("a"), lab.namespace("b"))
        merge_on(link)
        link.a.ip("address", "add", "fe80::1/64", "dev", "to-1a", "nodad")
        link.b.ip("address", "add", "fe80::2/64", "dev", "to-1b", "nodad")
        yield link


@pytest.fixture(scope="module")
def on_host(link: Link) -> Iterator[Callable[[Callable[[], T]], T]]:
    """Runs a function in a thread that is in the host's namespace."""

    def enter() -> None:
        fd = os.open(f"/run/netns/{link.a.name}", os.O_RDONLY)
        assert ctypes.CDLL(None).setns(fd, 0) == 0
        os.close(fd)

    with ThreadPoolExecutor(1, initializer=enter) as executor:
        yield lambda function: executor.submit(function).result()


def openvpn_socket(address: str, *, v6only: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)  # the twin gets as much
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    made.bind((address, 0))
    return made


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def start_sender(namespace: Namespace, address: str, port: int, flows: int = FLOWS) -> subprocess.Popen[bytes]:
    numbers = [str(number) for number in (port, FIRST_PORT, flows, ROUNDS)]
    return subprocess.Popen(namespace.command([sys.executable, "-c", SENDER, address, *numbers]))


def serve(transport: UdpTransport, openvpn: socket.socket, received: Received, done: Callable[[], bool]) -> None:
    """What the worker does with each segment, and what OpenVPN reads, until all is there."""
    deadline = time.monotonic() + 20
    openvpn.setblocking(False)
    while not done() and time.monotonic() < deadline:
        batch = transport.receive_batch(1)
        for payload, source, local in batch:
            if payload[0] == DATA:
                received.data[source[1]] += 1
                received.trains[source[1]] += len(batch) > 1
            else:
                assert transport.control is not None
                received.refused += not transport.control.send(payload, source, local)
        try:
            payload, _, _, source = openvpn.recvmsg(65535)
        except BlockingIOError:
            continue
        assert payload[0] == CONTROL
        assert len(payload) == (83 if payload[1] % 2 else 43)
        received.control[source].append(payload[1])


def gathered(openvpn: socket.socket, log: Any, stack: ExitStack) -> tuple[Gathering, UdpTransport]:
    """The port of `openvpn`, gathered by a data plane that consists of the transport only."""
    gathering = prepare_gathering(openvpn, log)
    assert gathering is not None
    stack.callback(gathering.close)
    ours = stack.enter_context(split(openvpn))
    transport = UdpTransport(1, ours.fileno(), gathering.outlet.fileno())
    stack.callback(transport.close)
    assert gathering.begin(ours, has_outlet=True)
    return gathering, transport


@pytest.mark.parametrize(
    ("bound_to", "v6only", "ipv6"),
    [
        ("0.0.0.0", False, False),
        ("198.18.1.1", False, False),
        ("::", True, True),
        ("2001:db8:0:1::1", False, True),
        ("::", False, True),
        ("::", False, False),
    ],
)
def test_every_flow_is_merged_and_every_control_packet_reaches_openvpn(
    link: Link, on_host: Callable[[Callable[[], Received]], Received], log: Any, bound_to: str, v6only: bool, ipv6: bool
) -> None:
    def receive() -> Received:
        received = Received()
        with openvpn_socket(bound_to, v6only=v6only) as openvpn, ExitStack() as stack:
            _, transport = gathered(openvpn, log, stack)
            sender = start_sender(link.b, link.ipv6(1) if ipv6 else link.ipv4(1), port_of(openvpn))
            serve(
                transport,
                openvpn,
                received,
                lambda: received.data.total() + sum(map(len, received.control.values())) == FLOWS * ROUNDS * 10,
            )
            assert sender.wait(10) == 0
        return received

    received = on_host(receive)
    ports = range(FIRST_PORT, FIRST_PORT + FLOWS)
    host = link.ipv6(2) if ipv6 else link.ipv4(2)
    if ":" in bound_to and not ipv6:
        host = f"::ffff:{host}"
    scope = (0, 0) if ":" in bound_to else ()
    assert received.control == {(host, port, *scope): list(range(ROUNDS)) for port in ports}
    assert received.data == dict.fromkeys(ports, ROUNDS * 9)
    assert {port for port, trains in received.trains.items() if trains} == set(ports)
    assert received.refused == 0


def test_a_link_local_source_keeps_its_interface(
    link: Link, on_host: Callable[[Callable[[], Received]], Received], log: Any
) -> None:
    def receive() -> Received:
        received = Received()
        with openvpn_socket("::") as openvpn, ExitStack() as stack:
            _, transport = gathered(openvpn, log, stack)
            sender = start_sender(link.b, "fe80::1%to-1b", port_of(openvpn), flows=1)
            serve(transport, openvpn, received, lambda: sum(map(len, received.control.values())) == ROUNDS)
            assert sender.wait(10) == 0
            assert list(received.control) == [("fe80::2", FIRST_PORT, 0, socket.if_nametoindex("to-1a"))]
        return received

    assert list(on_host(receive).control.values()) == [list(range(ROUNDS))]


def test_what_comes_by_loopback_goes_by_opcode(on_host: Callable[[Callable[[], None]], None], log: Any) -> None:
    def try_it() -> None:
        with openvpn_socket("0.0.0.0") as openvpn, ExitStack() as stack:
            _, transport = gathered(openvpn, log, stack)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for opcode in (CONTROL, DATA):
                    client.sendto(bytes([opcode]), ("127.0.0.1", port_of(openvpn)))
            openvpn.settimeout(5)
            assert openvpn.recv(10) == bytes([CONTROL])
            assert [payload for payload, _, _ in transport.receive_batch(10)] == [bytes([DATA])]

    on_host(try_it)


def test_at_the_end_openvpn_has_its_port_as_before(
    on_host: Callable[[Callable[[], None]], None], link: Link, log: Any
) -> None:
    def try_it() -> None:
        before = open_fds()
        with openvpn_socket("0.0.0.0") as openvpn:
            with ExitStack() as stack:
                gathering, _ = gathered(openvpn, log, stack)
                assert openvpn.getsockopt(*UDP_GRO) == 1
                gathering.end()
                assert openvpn.getsockopt(*UDP_GRO) == 0
            received = Received()
            sender = start_sender(link.b, link.ipv4(1), port_of(openvpn), flows=1)
            openvpn.settimeout(5)
            opcodes = Counter(openvpn.recv(100)[0] for _ in range(ROUNDS * 10))
            assert sender.wait(10) == 0
            assert opcodes == {DATA: ROUNDS * 9, CONTROL: ROUNDS}
            assert received.refused == 0
        assert open_fds() <= before

    on_host(try_it)


def test_what_waits_is_handed_back_at_the_end(on_host: Callable[[Callable[[], None]], None], log: Any) -> None:
    def try_it() -> None:
        with openvpn_socket("127.0.0.1") as openvpn, ExitStack() as stack:
            gathering, transport = gathered(openvpn, log, stack)
            assert transport.control is not None
            for number in range(100):
                assert transport.control.send(bytes([CONTROL, number]), ("192.0.2.7", 7), socket.inet_aton("127.0.0.1"))
            transport.close()
            gathering.close()
            openvpn.settimeout(5)
            assert [openvpn.recvfrom(10) for _ in range(100)] == [
                (bytes([CONTROL, number]), ("192.0.2.7", 7)) for number in range(100)
            ]

    on_host(try_it)


def fill(outlet: socket.socket) -> int:
    """Sends junk until there is no room; how many found some."""
    for accepted in itertools.count():
        try:
            outlet.send(b"junk", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return accepted
    raise AssertionError


def test_a_flood_is_bounded_and_junk_is_logged_once(
    on_host: Callable[[Callable[[], None]], None], log: Any, log_entries: LogCapture
) -> None:
    def try_it() -> None:
        with openvpn_socket("127.0.0.1") as openvpn, ExitStack() as stack:
            gathering = prepare_gathering(openvpn, log)
            assert gathering is not None
            stack.callback(gathering.close)
            with gathering.outlet.dup() as outlet, split(openvpn) as ours:
                assert 100 < fill(outlet) < 10_000
                assert gathering.begin(ours, has_outlet=True)

    on_host(try_it)
    assert [(entry["event"], entry["reason"]) for entry in log_entries.entries] == [
        ("control packet not handed back", "4 bytes are no control packet")
    ]


def reason_of_refusal(openvpn: socket.socket, log: Any, log_entries: LogCapture) -> str:
    before = open_fds()
    assert prepare_gathering(openvpn, log) is None
    assert open_fds() <= before
    (entry,) = log_entries.entries
    assert (entry["event"], entry["log_level"], entry["port"]) == ("UDP_GRO stays off", "warning", port_of(openvpn))
    return str(entry["reason"])


@pytest.mark.parametrize(
    ("address", "level", "option"),
    [("127.0.0.1", socket.IPPROTO_IP, IP_PKTINFO), ("::1", socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)],
)
def test_a_multihomed_openvpn_keeps_the_split(
    log: Any, log_entries: LogCapture, address: str, level: int, option: int
) -> None:
    with openvpn_socket(address) as openvpn:
        openvpn.setsockopt(level, option, 1)
        assert "--multihome" in reason_of_refusal(openvpn, log, log_entries)


def test_without_the_right_to_inject_the_split_is_kept(
    log: Any, log_entries: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_versions: list[int]) -> Injector:
        raise PermissionError(EPERM, os.strerror(EPERM))

    monkeypatch.setattr(gathering_module, "Injector", refuse)
    with openvpn_socket("127.0.0.1") as openvpn:
        assert "not permitted" in reason_of_refusal(openvpn, log, log_entries)


def test_where_injected_packets_are_lost_the_split_is_kept(
    log: Any, log_entries: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering_module, "TRIAL_SECONDS", 0.05)
    monkeypatch.setattr(Injector, "inject", lambda *_: None)
    with openvpn_socket("127.0.0.1") as openvpn:
        assert reason_of_refusal(openvpn, log, log_entries) == "an injected IPv4 packet did not arrive"


def test_where_injected_packets_change_their_source_the_split_is_kept(
    log: Any, log_entries: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject = Injector.inject

    def masquerade(injector: Injector, packet: ControlPacket, port: int) -> None:
        inject(injector, ControlPacket(4, packet.source, 7, 0, packet.local, packet.payload), port)

    monkeypatch.setattr(Injector, "inject", masquerade)
    with openvpn_socket("127.0.0.1") as openvpn:
        reason = reason_of_refusal(openvpn, log, log_entries)
    assert reason == "an injected IPv4 packet came from 192.0.2.1 port 7"


def test_a_kernel_without_udp_gro_keeps_the_split(
    log: Any, log_entries: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_openvpn: socket.socket, _ours: socket.socket) -> None:
        raise OSError(ENOPROTOOPT, os.strerror(ENOPROTOOPT))

    monkeypatch.setattr(gathering_module, "gather", refuse)
    with openvpn_socket("127.0.0.1") as openvpn:
        assert os.strerror(ENOPROTOOPT) in reason_of_refusal(openvpn, log, log_entries)


def test_a_data_plane_that_knows_no_outlet_keeps_the_split(log: Any, log_entries: LogCapture) -> None:
    with openvpn_socket("127.0.0.1") as openvpn, split(openvpn) as ours:
        gathering = prepare_gathering(openvpn, log)
        assert gathering is not None
        assert not gathering.begin(ours, has_outlet=False)
        gathering.close()
        assert (openvpn.getsockopt(*UDP_GRO), ours.getsockopt(*UDP_GRO)) == (0, 0)
    (entry,) = log_entries.entries
    assert "too old" in entry["reason"]


def test_nothing_is_left_open(log: Any) -> None:
    before = open_fds()
    with openvpn_socket("127.0.0.1") as openvpn, ExitStack() as stack:
        gathered(openvpn, log, stack)
    assert open_fds() <= before


def test_openvpn_can_bind_the_port_again_once_all_is_closed(log: Any) -> None:
    openvpn = openvpn_socket("127.0.0.1")
    port = port_of(openvpn)
    with ExitStack() as stack:
        gathering, transport = gathered(openvpn, log, stack)
        openvpn.close()
        gathering.end()
        transport.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as next_one:
        next_one.bind(("127.0.0.1", port))
