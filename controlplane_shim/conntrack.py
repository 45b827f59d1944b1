"""Where a peer had sent a datagram before netfilter translated the destination.

Knows Linux's connection tracking as far as one question goes (nfnetlink: IPCTNL_MSG_CT_GET of
<linux/netfilter/nfnetlink_conntrack.h>). Must not know why it is asked.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import Final, Self

from controlplane_shim.netlink import message
from controlplane_shim.netlink.attributes import NLA_F_NESTED, build, payloads

Endpoint = tuple[bytes, int]
"""Packed address of 4 or 16 bytes, and port."""

_ENTRIES: Final = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_NETLINK_NETFILTER: Final = 12
_CT_NEW: Final = 0x100
_CT_GET: Final = 0x101
_REPLY_SIZE: Final = 8192
_NFGENMSG: Final = struct.Struct("=BBH")  # family, version, resource id
_PORT: Final = struct.Struct(">H")

_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY = 1, 2
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
# CTA_IP_V4_SRC, _DST; CTA_IP_V6_SRC, _DST
_CTA_IP_SRC_DST: Final = {4: (1, 2), 16: (3, 4)}
_FAMILY: Final = {4: socket.AF_INET, 16: socket.AF_INET6}


class ConnectionTracking:
    """The connection tracking of the network namespace in which it is made."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):  # a kernel without nfnetlink tracks nothing
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the netlink socket."""
        if self._socket is not None:
            self._socket.close()

    def original_destination(self, peer: Endpoint, local: Endpoint) -> Endpoint:
        """The UDP endpoint to which `peer` had sent what came to `local`; `local` itself where nothing is known."""
        # Asked where nothing is tracked, the kernel would load modules to have an answer.
        if self._socket is None or not _is_tracking():
            return local
        request = message.build(_CT_GET, message.NLM_F_REQUEST, 0, 0, _question(peer, local))
        try:
            self._socket.send(request)
            replies = message.split(self._socket.recv(_REPLY_SIZE, socket.MSG_DONTWAIT))
        except OSError:
            return local
        return next((_destination(reply.body) for reply in replies if reply.type == _CT_NEW), None) or local


def _is_tracking() -> bool:
    try:
        return _ENTRIES.read_text() != "0\n"
    except OSError:
        return False


def _question(peer: Endpoint, local: Endpoint) -> bytes:
    """Asks by the tuple of the answers, which go from the untranslated local endpoint to the peer."""
    source, destination = _CTA_IP_SRC_DST[len(peer[0])]
    addresses = build(source, local[0]) + build(destination, peer[0])
    protocol = (
        build(_CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP]))
        + build(_CTA_PROTO_SRC_PORT, _PORT.pack(local[1]))
        + build(_CTA_PROTO_DST_PORT, _PORT.pack(peer[1]))
    )
    answers = build(_CTA_TUPLE_IP | NLA_F_NESTED, addresses) + build(_CTA_TUPLE_PROTO | NLA_F_NESTED, protocol)
    header = _NFGENMSG.pack(_FAMILY[len(peer[0])], 0, 0)
    return header + build(_CTA_TUPLE_REPLY | NLA_F_NESTED, answers)


def _destination(body: bytes) -> Endpoint | None:
    try:
        original = payloads(payloads(body[_NFGENMSG.size :])[_CTA_TUPLE_ORIG])
        addresses, protocol = payloads(original[_CTA_TUPLE_IP]), payloads(original[_CTA_TUPLE_PROTO])
        _, destination = _CTA_IP_SRC_DST[4 if _CTA_IP_SRC_DST[4][1] in addresses else 16]
        return addresses[destination], _PORT.unpack(protocol[_CTA_PROTO_DST_PORT])[0]
    except (KeyError, struct.error):
        return None
