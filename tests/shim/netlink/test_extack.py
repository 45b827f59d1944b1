from __future__ import annotations

import socket
import struct
from errno import EINVAL

import pytest

from controlplane_shim.netlink import attributes
from controlplane_shim.netlink.attributes import Fault, Malformed, parse
from controlplane_shim.netlink.extack import SENTENCE_CHARACTERS, explain
from controlplane_shim.netlink.message import AckOptions, build_error
from tests.shim.netlink.conftest import DUMP_ACK, NETLINK_GENERIC, attribute, generic, u8, u32

SOL_NETLINK, CAP_ACK, EXT_ACK = 270, 10, 11
GETPOLICY = (attributes.u16(1, "FAMILY_ID"), attributes.Binary(2, "FAMILY_NAME"), attributes.u32(10, "OP"))
"""What the control family of the kernel takes in CTRL_CMD_GETPOLICY, which it checks strictly."""


def ask_kernel(request: bytes, *, capped: bool) -> tuple[bytes, int]:
    """What the kernel answers to a socket that wants explanations, and the port id that it answered to."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(5)
        netlink.setsockopt(SOL_NETLINK, EXT_ACK, 1)
        netlink.setsockopt(SOL_NETLINK, CAP_ACK, capped)
        netlink.sendto(request, (0, 0))
        return netlink.recv(65536), netlink.getsockname()[0]


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param((attribute(1, b"12345678"),), id="wrong size, with its policy"),
        pytest.param((u32(10, 3), u32(99, 1)), id="unknown attribute"),
        pytest.param((u32(3, 1),), id="attribute that the command does not take"),
        pytest.param((attribute(2, b"nlctrl\0"), attribute(0x8000 | 10, b"\0\0\0\0")), id="nested without reason"),
        pytest.param((attribute(2, b"nlctrl\0"), b"\0\0\0"), id="bytes left over"),
    ],
)
def test_a_refusal_is_explained_byte_for_byte_as_the_kernel_does(asked: tuple[bytes, ...], capped: bool) -> None:
    request = generic(0x10, 10, *asked, flags=DUMP_ACK)
    with pytest.raises(Malformed) as refused:
        parse(request[20:], GETPOLICY, 20)
    ours = explain(refused.value.sentence, refused.value.fault)
    answer, port_id = ask_kernel(request, capped=capped)
    assert build_error(request, port_id, EINVAL, AckOptions(extended=True, capped=capped), ours) == answer


def test_a_missing_attribute_is_named_with_its_nest() -> None:
    text = attribute(1, b"ID is missing\0")
    assert explain("ID is missing", Fault(missing=1, missing_in=28)) == text + u32(5, 1) + u32(6, 28)
    assert explain("", Fault(missing=1)) == u32(5, 1)


def test_a_sentence_is_cut_before_it_fills_the_readers_buffer() -> None:
    assert explain("x" * 100_000) == attribute(1, b"x" * SENTENCE_CHARACTERS + b"\0")


def test_an_attribute_without_a_policy_to_tell_is_only_placed() -> None:
    assert explain("", Fault(32, attributes.be16(5, "PORT", minimum=1))) == u32(2, 32)


def test_a_value_out_of_range_has_its_bounds() -> None:
    with pytest.raises(Malformed) as refused:
        parse(u8(1, 9), (attributes.u8(1, "SLOT", maximum=1),), 20)
    bounds = struct.pack("=HHQ", 12, 4, 0) + struct.pack("=HHQ", 12, 5, 1) + u32(1, 2)
    sentence = attribute(1, b"integer out of range\0")
    assert explain(refused.value.sentence, refused.value.fault) == sentence + u32(2, 20) + attribute(0x8004, bounds)
