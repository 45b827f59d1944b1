"""The generic netlink family ovpn-dco-v2, which OpenVPN 2.6 speaks (uapi header ovpn_dco.h of module ovpn-dco)."""

from __future__ import annotations

from typing import Final

from controlplane_shim.netlink.codec import Codec
from controlplane_shim.netlink.ovpn_dco_v2 import answers, requests, tables

CODEC: Final = Codec(
    introduction=tables.FAMILY,
    kind="ovpn-dco",
    commands=requests.COMMANDS,
    strict_header=False,
    build_peer=answers.build_peer,
    build_key=None,
    build_notice=answers.build_notice,
)
