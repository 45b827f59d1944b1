"""What a caller without CAP_NET_ADMIN is told: EPERM to every command of both families, and a link by the kernel."""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP, EPERM

import pytest

from tests.shim.bad_requests.conftest import MP, PORT_ID, Program, Told, new_link
from tests.shim.netlink.conftest import DCO, NETLINK_GENERIC, NETLINK_ROUTE, OVPN, attribute, generic, nest, only, u32

FAMILIES = [
    pytest.param(b"ovpn-dco", DCO, range(1, 8), (7,), id="ovpn-dco-v2"),
    pytest.param(b"ovpn", OVPN, (1, 2, 3, 4, 6, 7, 8, 10), (3,), id="ovpn"),
]


@pytest.mark.parametrize(("kind", "family", "dos", "dumps"), FAMILIES)
def test_every_command_is_refused_before_a_look_at_what_it_says(
    program: Program, kind: bytes, family: int, dos: tuple[int, ...], dumps: tuple[int, ...]
) -> None:
    program.make_devices(kind, [])
    program.caller.admin = False
    for command in dos:
        told = Told(EPERM, f"{program_name(family)}: command {command} takes CAP_NET_ADMIN")
        assert program.ask(generic(family, command)) == told
        assert program.ask(generic(family, command, u32(1, MP), nest(2, u32(1, 3)))) == told
    for command in dumps:
        assert program.ask(generic(family, command, u32(1, MP), flags=0x305)).errno == EPERM
    assert program.ask(generic(family, 99)).errno == EOPNOTSUPP
    program.caller.admin = True
    assert program.ask(generic(family, 1)).errno == EINVAL


def program_name(family: int) -> str:
    return {DCO: "ovpn-dco-v2", OVPN: "ovpn"}[family]


@pytest.mark.parametrize("kind", [b"ovpn-dco", b"ovpn"])
def test_a_new_link_is_left_to_the_kernel_which_says_so_before_it_looks_for_a_kind(
    program: Program, kind: bytes
) -> None:
    program.caller.admin = False
    request = new_link(kind, b"tun0\0", 1)
    handled = program.session.handle(NETLINK_ROUTE, request, PORT_ID, program.caller)
    assert (handled.pass_through, handled.kernel_messages, handled.replies) == ([request], [], [])


def test_anybody_may_ask_for_the_family(program: Program) -> None:
    program.caller.admin = False
    request = generic(16, 3, attribute(2, b"ovpn\0"))
    introduction, acknowledged = program.session.handle(NETLINK_GENERIC, request, PORT_ID, program.caller).replies
    assert (only(introduction).type, only(acknowledged).type) == (16, 2)
