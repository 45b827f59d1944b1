from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.supervisor import bpf_filter
from controlplane_shim.supervisor.architecture import AARCH64, X86_64, Architecture
from controlplane_shim.supervisor.bpf_filter import RET_ALLOW, RET_USER_NOTIF, Assembler

INJECTED = range(900, 1000)
WORD = st.integers(0, 2**32 - 1)
HIGH_HALF = st.sampled_from([0, 1, 0xFFFFFFFF])
NEAR_THE_RANGE = st.sampled_from([0, 3, 899, 900, 950, 999, 1000, 2**31, 2**32 - 1])


def interpret(program: bytes, data: bytes) -> int:
    """Runs classic BPF as the kernel does, for the instructions the filter may use."""
    instructions: list[tuple[int, int, int, int]] = list(struct.iter_unpack("<HBBI", program))
    accumulator = position = 0
    while True:
        code, then, otherwise, operand = instructions[position]
        position += 1
        if code == 0x20:  # ld [k]
            assert operand % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x15:  # jeq
            position += then if accumulator == operand else otherwise
        elif code == 0x35:  # jge
            position += then if accumulator >= operand else otherwise
        else:
            assert code == 0x06  # ret
            return operand


def verdict(architecture: Architecture, number: int, *arguments: int, audit: int | None = None) -> int:
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", _signed(number), architecture.audit if audit is None else audit, 0xDEADBEEF, *padded)
    return interpret(bpf_filter.build(architecture, INJECTED), data)


def oracle(architecture: Architecture, number: int, arguments: list[int]) -> int:
    low = [argument & 0xFFFFFFFF for argument in arguments]
    sends = {"sendmsg", "sendto", "setsockopt", "sendmmsg", "write", "writev"}
    if number == architecture.socket:
        return RET_USER_NOTIF if low[0] == socket.AF_NETLINK and low[2] in {0, 16} else RET_ALLOW
    if number == architecture.recvfrom:
        is_link_read = low[3] == 0x4000 and arguments[4] == 0 and arguments[2] >= 1024
        return RET_USER_NOTIF if is_link_read else RET_ALLOW
    if number in {getattr(architecture, name) for name in sends}:
        return RET_USER_NOTIF if low[0] in INJECTED else RET_ALLOW
    return RET_ALLOW


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


@pytest.mark.parametrize("architecture", [X86_64, AARCH64])
@given(data=st.data())
def test_filter_agrees_with_the_oracle(architecture: Architecture, data: st.DataObject) -> None:
    known = [getattr(architecture, name) for name in architecture.__slots__ if name not in {"audit", "foreign_abi_bit"}]
    number = data.draw(st.one_of(st.sampled_from(known), st.integers(0, 600)))
    low = st.one_of(NEAR_THE_RANGE, st.sampled_from([0, 2, 15, 16, 17, 1023, 1024, 0x4000]), WORD)
    arguments = [data.draw(low) | data.draw(HIGH_HALF) << 32 for _ in range(6)]
    assert verdict(architecture, number, *arguments) == oracle(architecture, number, arguments)


@given(
    audit=WORD.filter(lambda word: word != X86_64.audit), number=st.sampled_from([1, 41, 44, 46, 54]), fd=NEAR_THE_RANGE
)
def test_other_architectures_are_allowed_everything(audit: int, number: int, fd: int) -> None:
    assert verdict(X86_64, number, fd, 0, 16, audit=audit) == RET_ALLOW


@given(number=st.sampled_from([1, 20, 41, 44, 46, 54, 307]), fd=NEAR_THE_RANGE)
def test_x32_calls_are_allowed(number: int, fd: int) -> None:
    assert verdict(X86_64, number | 0x40000000, fd, 0, 16) == RET_ALLOW


def test_socket_type_does_not_matter() -> None:
    for kind in (0, socket.SOCK_RAW, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0xFFFF):
        assert verdict(X86_64, X86_64.socket, socket.AF_NETLINK, kind, 16) == RET_USER_NOTIF


def test_range_is_notified_from_its_first_to_its_last_descriptor() -> None:
    asked = {fd: verdict(X86_64, X86_64.sendmsg, fd) for fd in (899, 900, 999, 1000)}
    assert asked == {899: RET_ALLOW, 900: RET_USER_NOTIF, 999: RET_USER_NOTIF, 1000: RET_ALLOW}


@pytest.mark.parametrize(
    ("length", "flags", "address", "expected"),
    [
        (1500, 0x4000, 0, RET_USER_NOTIF),
        (1024, 0x4000, 0, RET_USER_NOTIF),
        (1 << 32, 0x4000, 0, RET_USER_NOTIF),
        (1023, 0x4000, 0, RET_ALLOW),
        (1500, 0, 0, RET_ALLOW),
        (1500, 0x4002, 0, RET_ALLOW),
        (1500, 0x4000, 1 << 32, RET_ALLOW),
    ],
)
def test_reads_are_notified_as_openvpn_reads_a_link(length: int, flags: int, address: int, expected: int) -> None:
    assert verdict(X86_64, X86_64.recvfrom, 5, 0x7FFF0000, length, flags, address, 0) == expected


def test_backward_jump_is_refused() -> None:
    program = Assembler()
    program.label("again")
    program.if_equal(1, then="again")
    with pytest.raises(ValueError, match="again"):
        program.assemble()


def test_jump_beyond_eight_bits_is_refused() -> None:
    program = Assembler()
    program.if_equal(1, then="far")
    for _ in range(256):
        program.load(0)
    program.label("far")
    with pytest.raises(ValueError, match="far"):
        program.assemble()
