from __future__ import annotations

import contextlib
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.supervisor import outgoing
from controlplane_shim.supervisor.outgoing import MAX_DATAGRAM, MAX_VECTORS, Malformed, Outgoing

FD, FLAGS = 900, 0
KERNEL_ADDRESS = struct.pack("=HHII", 16, 0, 0, 0)


class FakeMemory:
    """Memory that holds what was put, each piece at an address of its own."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._next = 0x1000

    def put(self, data: bytes) -> int:
        address = self._next
        self._next += len(data) + 0x100
        self._pieces[address] = data
        return address

    def read(self, address: int, length: int) -> bytes:
        if not length:
            return b""
        for start, data in self._pieces.items():
            if start <= address and address + length <= start + len(data):
                return data[address - start :][:length]
        raise OSError(errno.EFAULT, "bad address")

    def vectors(self, pieces: list[bytes]) -> int:
        return self.put(b"".join(struct.pack("=QQ", self.put(piece), len(piece)) for piece in pieces))

    def header(self, vectors: int, count: int, name: bytes = b"") -> int:
        address = self.put(name) if name else 0
        return self.put(struct.pack("=QIIQQQQiI", address, len(name), 0, vectors, count, 0, 0, 0, 0))


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_sendmsg_gathers_its_vectors(pieces: list[bytes]) -> None:
    memory = FakeMemory()
    header = memory.header(memory.vectors(pieces), len(pieces))
    assert outgoing.of_sendmsg(memory, (FD, header, FLAGS)) == Outgoing(b"".join(pieces), None)


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_writev_gathers_its_vectors(pieces: list[bytes]) -> None:
    memory = FakeMemory()
    assert outgoing.of_writev(memory, (FD, memory.vectors(pieces), len(pieces))) == Outgoing(b"".join(pieces), None)


def test_write_takes_its_buffer() -> None:
    memory = FakeMemory()
    assert outgoing.of_write(memory, (FD, memory.put(b"abc"), 3)) == Outgoing(b"abc", None)


@given(port_id=st.integers(0, 2**32 - 1), groups=st.integers(0, 2**32 - 1))
def test_destination_is_told(port_id: int, groups: int) -> None:
    memory = FakeMemory()
    name = struct.pack("=HHII", 16, 0, port_id, groups)
    header = memory.header(memory.vectors([b"abc"]), 1, name)
    arguments = (FD, memory.put(b"abc"), 3, FLAGS, memory.put(name), len(name))
    expected = Outgoing(b"abc", (port_id, groups))
    assert outgoing.of_sendmsg(memory, (FD, header, FLAGS)) == expected
    assert outgoing.of_sendto(memory, arguments) == expected


def test_sendto_without_address_goes_where_the_socket_is_connected() -> None:
    memory = FakeMemory()
    assert outgoing.of_sendto(memory, (FD, memory.put(b"abc"), 3, FLAGS, 0, 0)).destination is None


@pytest.mark.parametrize("name", [KERNEL_ADDRESS[:11], struct.pack("=HHII", 2, 0, 0, 0)])
def test_address_that_is_not_netlinks_is_malformed(name: bytes) -> None:
    memory = FakeMemory()
    with pytest.raises(Malformed):
        outgoing.of_sendto(memory, (FD, memory.put(b"abc"), 3, FLAGS, memory.put(name), len(name)))


def test_too_many_vectors_are_malformed_and_not_read() -> None:
    with pytest.raises(Malformed):
        outgoing.of_writev(FakeMemory(), (FD, 0, MAX_VECTORS + 1))


def test_vectors_that_claim_too_much_are_malformed_and_not_read() -> None:
    memory = FakeMemory()
    vectors = memory.put(struct.pack("=QQQQ", 0x10, MAX_DATAGRAM, 0x10, 2**63))
    with pytest.raises(Malformed):
        outgoing.of_writev(memory, (FD, vectors, 2))


def test_buffer_that_is_too_long_is_malformed_and_not_read() -> None:
    with pytest.raises(Malformed):
        outgoing.of_write(FakeMemory(), (FD, 0, MAX_DATAGRAM + 1))


@given(st.integers(0, 2**64 - 1))
def test_bad_pointer_is_an_os_error(address: int) -> None:
    with pytest.raises(OSError, match="bad address"):
        outgoing.of_sendmsg(FakeMemory(), (FD, address, FLAGS))


@given(st.binary(min_size=56, max_size=56))
def test_any_header_is_either_read_or_refused(header: bytes) -> None:
    memory = FakeMemory()
    with contextlib.suppress(OSError, Malformed):
        assert isinstance(outgoing.of_sendmsg(memory, (FD, memory.put(header), FLAGS)), Outgoing)
