"""A program that asks the drivers for what it may not have, for the tests: `python -m tests.e2e.asker USER NAMESPACE`.

It makes a link of each kind and then asks, as somebody who has lost CAP_NET_ADMIN, for every command of both families
and for another link; prints a JSON object with the errno of each answer. USER: the uid to become; NAMESPACE: whether
(1) or not (0) a user namespace is made, in which it has every capability again.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import sys

from tests.shim.netlink.conftest import (
    DCO,
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    OVPN,
    attribute,
    generic,
    message,
    nest,
    u8,
    u32,
)

CLONE_NEWUSER = 0x10000000
SECONDS = 10
KINDS = {b"ovpn-dco": "vpn1", b"ovpn": "vpn2"}
COMMANDS = {
    "ovpn-dco-v2": (
        DCO,
        {"NEW_PEER": 1, "SET_PEER": 2, "DEL_PEER": 3, "NEW_KEY": 4, "SWAP_KEYS": 5, "DEL_KEY": 6, "GET_PEER": 7},
    ),
    "ovpn": (
        OVPN,
        {
            "PEER_NEW": 1,
            "PEER_SET": 2,
            "PEER_GET": 3,
            "PEER_DEL": 4,
            "KEY_NEW": 6,
            "KEY_GET": 7,
            "KEY_SWAP": 8,
            "KEY_DEL": 10,
        },
    ),
}


def ask(protocol: int, request: bytes) -> int:
    """The errno of the answer, 0 for an acknowledgement or a dump; on a socket of its own."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(SECONDS)
        netlink.sendto(request, (0, 0))
        while True:
            answer = netlink.recv(65536)
            type_: int
            code: int
            _, type_, _, _, _, code = struct.unpack_from("=IHHIIi", answer)
            if type_ in {2, 3}:  # NLMSG_ERROR, NLMSG_DONE
                return -code


def new_link(kind: bytes, name: str) -> bytes:
    info = attribute(1, kind + b"\0") + attribute(2, u8(1, 1))
    return message(16, 0x605, bytes(16) + attribute(3, name.encode() + b"\0") + attribute(18, info))


def answers(links: dict[bytes, str]) -> dict[str, int]:
    """The errno of each command, asked of the device `links` has of its kind, and of a new link of each kind."""
    told = {}
    for (family, (number, commands)), device in zip(COMMANDS.items(), links.values(), strict=True):
        ifindex = u32(1, socket.if_nametoindex(device))
        for name, command in commands.items():
            told[f"{family} {name}"] = ask(NETLINK_GENERIC, generic(number, command, ifindex, nest(2, u32(1, 3))))
        get = commands.get("GET_PEER", commands.get("PEER_GET", 0))
        told[f"{family} dump"] = ask(NETLINK_GENERIC, generic(number, get, ifindex, flags=0x305))
    for kind, device in links.items():
        told[f"link {kind.decode()}"] = ask(NETLINK_ROUTE, new_link(kind, f"{device}-2"))
    return told


def main(user: int, namespace: bool) -> None:
    """Makes the links as it was started; asks as somebody else."""
    for name in COMMANDS:
        assert ask(NETLINK_GENERIC, generic(16, 3, attribute(2, name.encode() + b"\0"))) == 0
    for kind, name in KINDS.items():
        assert ask(NETLINK_ROUTE, new_link(kind, name)) == 0
    os.setgroups([])
    os.setresuid(user, user, user)
    if namespace and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    sys.stdout.write(json.dumps(answers(KINDS)) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "1")
