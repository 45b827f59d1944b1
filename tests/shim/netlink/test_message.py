from __future__ import annotations

import struct
from errno import ENOENT

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nlmsg

from controlplane_shim.netlink.message import Message, build, build_done, build_error, generic_body, split
from tests.shim.netlink.conftest import NETLINK_GENERIC, ask_kernel, attribute, generic, message

messages = st.builds(
    message, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=40), seq=st.integers(0, 0xFFFFFFFF)
)


def padded(raw: bytes) -> bytes:
    return raw + b"\0" * (-len(raw) % 4)


@given(st.lists(messages, max_size=5))
def test_a_datagram_is_split_into_the_messages_it_was_made_of(raws: list[bytes]) -> None:
    assert [found.raw for found in split(b"".join(padded(raw) for raw in raws))] == raws


@given(messages)
def test_the_last_message_needs_no_padding(raw: bytes) -> None:
    assert [found.raw for found in split(raw)] == [raw]


@given(messages, messages)
def test_a_truncated_message_ends_the_datagram(first: bytes, second: bytes) -> None:
    assert [found.raw for found in split(padded(first) + second[:-1])] == [first]


@given(messages, st.integers(0, 15))
def test_a_length_shorter_than_the_header_ends_the_datagram(first: bytes, length: int) -> None:
    bad = struct.pack("=I", length) + message(1, 1, b"")[4:]
    assert [found.raw for found in split(padded(first) + bad + first)] == [first]


@given(st.binary(max_size=200))
def test_any_bytes_can_be_split(datagram: bytes) -> None:
    for found in split(datagram):
        assert found.raw in datagram
        assert len(found.raw) == struct.unpack_from("=I", found.raw)[0]


def test_header_fields_are_decoded() -> None:
    (found,) = split(message(0xD00, 0x305, b"body", seq=0xFFFFFFFF))
    assert (found.type, found.flags, found.seq, found.body) == (0xD00, 0x305, 0xFFFFFFFF, b"body")


def test_a_dump_has_both_bits() -> None:
    assert [Message(0, flags, 0, b"").is_dump for flags in (0x100, 0x200, 0x300, 0x305)] == [False, False, True, True]


def test_a_message_is_built_with_its_unpadded_length_and_then_padded() -> None:
    assert build(0xD00, 2, 7, 42, b"12345") == struct.pack("=IHHII", 21, 0xD00, 2, 7, 42) + b"12345\0\0\0"


def test_a_built_message_is_what_pyroute2_decodes() -> None:
    decoded = nlmsg(build(0xD00, 2, 7, 42, b"1234"))
    decoded.decode()
    header = {"length": 20, "type": 0xD00, "flags": 2, "sequence_number": 7, "pid": 42}
    assert {key: decoded["header"][key] for key in header} == header


def test_the_generic_header_is_command_version_and_zeros() -> None:
    assert generic_body(7, 1, b"rest") == b"\7\1\0\0rest"


def test_an_acknowledgement_is_byte_for_byte_the_kernels() -> None:
    noop = message(1, 0x5, b"", seq=11)
    answer, port_id = ask_kernel(NETLINK_GENERIC, noop)
    assert build_error(noop, port_id, 0) == answer


def test_an_acknowledgement_repeats_the_header_only() -> None:
    raw = generic(0xD00, 1, attribute(1, b"secret"), seq=11)
    expected = struct.pack("=IHHIIi", 36, 2, 0x100, 11, 42, 0) + raw[:16]
    assert build_error(raw, 42, 0) == expected


def test_an_error_is_byte_for_byte_the_kernels() -> None:
    # A name of 3 bytes, so that the request's length is no multiple of 4.
    raw = message(0x10, 0x5, b"\3\1\0\0" + attribute(2, b"no\0")[:-1], seq=12)
    answer, port_id = ask_kernel(NETLINK_GENERIC, raw)
    assert build_error(raw, port_id, ENOENT) == answer


def test_the_end_of_a_dump_is_multipart_and_holds_no_error() -> None:
    assert build_done(9, 42) == struct.pack("=IHHIIi", 20, 3, 2, 9, 42, 0)


def test_the_repr_shows_no_bytes() -> None:
    assert "EEEE" not in repr(split(message(0xD00, 5, b"EEEE")))
