"""The seccomp filter: which system calls of the program are shown to the supervisor.

Knows classic BPF and struct seccomp_data (linux/seccomp.h, little-endian). Must not know what is done with a
notification. The filter shows

* socket(AF_NETLINK, any type, 0 or 16), so that the supervisor can give the program a socket in the injected range;
* sends and setsockopt on descriptors within the injected range;
* recvfrom(any descriptor, buffer, at least LINK_READ_BYTES, MSG_NOSIGNAL, NULL, any), as OpenVPN reads a TCP link;

and allows everything else, calls of other ABIs included: the program is served, not confined.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from controlplane_shim.supervisor.architecture import Architecture

AF_NETLINK = 16
NETLINK_ROUTE, NETLINK_GENERIC = 0, 16
MSG_NOSIGNAL = 0x4000

LINK_READ_BYTES = 1024
"""Shortest buffer of a read that is shown. OpenVPN's for its link hold 1500 bytes or more; those for its management
interface (256) and for proxies (1) are shorter, and what is left of a frame that it has begun by itself mostly is."""

LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K

RET_ALLOW = 0x7FFF0000
RET_USER_NOTIF = 0x7FC00000

# offsets in struct seccomp_data
NUMBER = 0
ARCHITECTURE = 4
FIRST_ARGUMENT = 16  # six of 8 bytes

_INSTRUCTION = struct.Struct("<HBBI")
_MAX_JUMP = 255


@dataclass(frozen=True, slots=True)
class _Instruction:
    """One instruction; jumps name labels, None is the next instruction."""

    code: int
    operand: int
    then: str | None = None
    otherwise: str | None = None


class Assembler:
    """Collects instructions and labels; jumps go forward only, as classic BPF demands."""

    def __init__(self) -> None:
        self._instructions: list[_Instruction] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """Names the next instruction."""
        self._labels[name] = len(self._instructions)

    def load(self, offset: int) -> None:
        """Loads the 32-bit word at this offset of struct seccomp_data."""
        self._instructions.append(_Instruction(LOAD_WORD, offset))

    def if_equal(self, value: int, *, then: str | None = None, otherwise: str | None = None) -> None:
        """Compares the loaded word."""
        self._instructions.append(_Instruction(JUMP_IF_EQUAL, value, then, otherwise))

    def if_at_least(self, value: int, *, then: str | None = None, otherwise: str | None = None) -> None:
        """Compares the loaded word, unsigned."""
        self._instructions.append(_Instruction(JUMP_IF_AT_LEAST, value, then, otherwise))

    def give(self, verdict: int) -> None:
        """Ends with SECCOMP_RET_*."""
        self._instructions.append(_Instruction(RETURN, verdict))

    def assemble(self) -> bytes:
        """The program as struct sock_filter after struct sock_filter. Raises ValueError for a jump that cannot be."""
        return b"".join(
            _INSTRUCTION.pack(
                instruction.code,
                self._distance(position, instruction.then),
                self._distance(position, instruction.otherwise),
                instruction.operand,
            )
            for position, instruction in enumerate(self._instructions)
        )

    def _distance(self, position: int, label: str | None) -> int:
        if label is None:
            return 0
        distance = self._labels[label] - position - 1
        if not 0 <= distance <= _MAX_JUMP:
            raise ValueError(f"jump from {position} to {label} is out of reach")
        return distance


def build(architecture: Architecture, injected: range) -> bytes:
    """The filter for this architecture and range of injected descriptors."""
    program = Assembler()
    program.load(ARCHITECTURE)
    program.if_equal(architecture.audit, otherwise="allow")
    program.load(NUMBER)
    if architecture.foreign_abi_bit:
        program.if_at_least(architecture.foreign_abi_bit, then="allow")
    program.if_equal(architecture.socket, then="socket")
    program.if_equal(architecture.recvfrom, then="link read")
    for number in (
        architecture.sendmsg,
        architecture.sendto,
        architecture.setsockopt,
        architecture.sendmmsg,
        architecture.write,
        architecture.writev,
    ):
        program.if_equal(number, then="descriptor")
    program.give(RET_ALLOW)

    program.label("socket")  # domain, type, protocol
    program.load(_argument(0))
    program.if_equal(AF_NETLINK, otherwise="allow")
    program.load(_argument(2))
    program.if_equal(NETLINK_ROUTE, then="notify")
    program.if_equal(NETLINK_GENERIC, then="notify", otherwise="allow")

    program.label("link read")  # descriptor, buffer, length, flags, address, address length
    program.load(_argument(3))
    program.if_equal(MSG_NOSIGNAL, otherwise="allow")
    for half in (0, 4):  # of a pointer
        program.load(_argument(4) + half)
        program.if_equal(0, otherwise="allow")
    program.load(_argument(2) + 4)
    program.if_equal(0, otherwise="notify")
    program.load(_argument(2))
    program.if_at_least(LINK_READ_BYTES, then="notify", otherwise="allow")

    program.label("descriptor")  # the first argument of each
    program.load(_argument(0))
    program.if_at_least(injected.start, otherwise="allow")
    program.if_at_least(injected.stop, then="allow")

    program.label("notify")
    program.give(RET_USER_NOTIF)
    program.label("allow")
    program.give(RET_ALLOW)
    return program.assemble()


def _argument(index: int) -> int:
    """Where the low half of an argument stands; the kernel takes descriptors and ints from it alone."""
    return FIRST_ARGUMENT + 8 * index
