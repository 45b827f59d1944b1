"""How much of a refusal a program is told: what its socket asked for."""

from __future__ import annotations

import struct
from errno import ENOENT, ERANGE
from typing import Any

import pytest

from controlplane_shim.netlink.message import AckOptions
from tests.shim.bad_requests.conftest import MP, PORT_ID, Program
from tests.shim.netlink.conftest import NETLINK_GENERIC, OVPN, attribute, generic, message, nest, u32

UNKNOWN_PEER = generic(OVPN, 3, u32(1, MP), nest(2, u32(1, 8)))
SLOT_AT = 40


@pytest.fixture
def server(program: Program) -> Program:
    program.make_devices(b"ovpn", [])
    return program


def test_a_socket_that_wants_no_explanation_gets_none(server: Program) -> None:
    request = UNKNOWN_PEER
    (plain,) = server.session.handle(NETLINK_GENERIC, request, PORT_ID, server.caller).replies
    assert plain == struct.pack("=IHHIIi", 20 + len(request), 2, 0, 7, PORT_ID, -ENOENT) + request


def test_a_socket_that_wants_short_answers_gets_the_header_of_its_request_only(server: Program) -> None:
    request = UNKNOWN_PEER
    options = AckOptions(extended=True, capped=True)
    (told,) = server.session.handle(NETLINK_GENERIC, request, PORT_ID, server.caller, options).replies
    sentence = attribute(1, b"ovpn: cannot find peer with id 8\0")
    body = struct.pack("=i", -ENOENT) + request[:16] + sentence
    assert told == message(2, 0x300, body, port_id=PORT_ID)


def test_the_policy_that_was_broken_is_told(server: Program) -> None:
    request = generic(OVPN, 10, u32(1, MP), nest(3, u32(1, 3), u32(2, 2)))
    options = AckOptions(extended=True)
    (told,) = server.session.handle(NETLINK_GENERIC, request, PORT_ID, server.caller, options).replies
    bounds = attribute(4, struct.pack("=Q", 0)) + attribute(5, struct.pack("=Q", 1)) + u32(1, 4)
    explanation: Any = attribute(1, b"integer out of range\0") + u32(2, SLOT_AT) + nest(4, bounds)
    assert told == message(2, 0x200, struct.pack("=i", -ERANGE) + request + explanation, port_id=PORT_ID)
