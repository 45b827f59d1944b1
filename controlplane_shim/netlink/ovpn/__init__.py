"""The generic netlink family ovpn, which OpenVPN 2.7 speaks (uapi header ovpn.h of Linux 6.16 and later)."""

from __future__ import annotations

from typing import Final

from controlplane_shim.netlink.codec import Codec
from controlplane_shim.netlink.ovpn import answers, requests, tables

CODEC: Final = Codec(
    introduction=tables.FAMILY,
    kind="ovpn",
    commands=requests.COMMANDS,
    strict_header=True,
    build_peer=answers.build_peer,
    build_key=answers.build_key,
    build_notice=answers.build_notice,
)
