"""Netlink datagrams to operations, and outcomes to netlink datagrams.

Knows which messages are ours, and in what datagrams the kernel would answer them. Must not know who carries the
operations out, nor sockets. Holds no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from errno import EINVAL, EIO, ENOBUFS, ENODEV, ENOMEM
from typing import Final

from controlplane_shim.netlink import control, rtnl
from controlplane_shim.netlink.attributes import Malformed
from controlplane_shim.netlink.message import (
    NLM_F_ACK,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLMSG_NOOP,
    Message,
    build,
    build_done,
    build_error,
    split,
)
from controlplane_shim.netlink.ovpn_dco_v2 import answers, requests, tables
from controlplane_shim.operations import (
    DeletionNotice,
    Failed,
    Family,
    GetFamily,
    Operation,
    Outcome,
    PeerFound,
    PeerInfo,
    PeersFound,
)

NETLINK_ROUTE: Final = 0
NETLINK_GENERIC: Final = 16

DATAGRAM_BYTES: Final = 3776
"""Largest datagram of a dump: the kernel's NLMSG_GOODSIZE, which every reader's buffer holds."""

_HARMLESS: Final[Mapping[int, int]] = {ENODEV: EINVAL, ENOMEM: EIO, ENOBUFS: EIO}
"""Errnos that end the whole OpenVPN process, and what leaves the shim instead.

libnl takes ENOBUFS for ENOMEM, and OpenVPN treats NLE_NOMEM and NLE_NODEV as fatal wherever they come from.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """One message of the program.

    Attributes:
        protocol: 0 rtnetlink, 16 generic netlink.
        raw: The whole message as sent, without the padding behind it. May hold keys.
        seq: Its sequence number.
        flags: Its NLM_F_ flags.
        operation: What it asks for; None, together with error, if it is not ours and belongs to the kernel.
        family: Whose it is, if it is ours.
        error: It is ours, but malformed, and this is the answer; operation is then None.
    """

    protocol: int
    raw: bytes = field(repr=False)
    seq: int
    flags: int
    operation: Operation | None
    family: Family | None
    error: Failed | None


class Translator:
    """Both directions, for all families."""

    def requests(self, protocol: int, datagram: bytes) -> list[Request]:
        """The messages of a datagram, in order. Never raises; bytes that the kernel would skip are skipped."""
        return [_request(protocol, message) for message in split(datagram)]

    def replies(self, request: Request, port_id: int, outcome: Outcome) -> list[bytes]:
        """The datagrams for the asker, in order.

        A failure is always told. Success gives first what was asked for, then an acknowledgement if the request
        has NLM_F_ACK; a dump ends by NLMSG_DONE instead.
        """
        seq = request.seq
        if isinstance(outcome, Failed):
            return [build_error(request.raw, seq, port_id, _HARMLESS.get(outcome.errno, outcome.errno))]
        if isinstance(outcome, PeersFound):
            return [*_dump(outcome.peers, seq, port_id), build_done(seq, port_id)]
        replies = []
        if isinstance(outcome, PeerFound):
            replies.append(answers.build_peer(outcome.peer, 0, seq, port_id))
        elif isinstance(request.operation, GetFamily):
            replies.append(control.build_new_family(tables.FAMILY, seq, port_id))
        if request.flags & NLM_F_ACK:
            replies.append(build_error(request.raw, seq, port_id, 0))
        return replies

    def kernel_ack(self, request: Request) -> bytes:
        """A message that the kernel acknowledges as it would the request, if the asker's own socket sends it.

        For whoever accepts an acknowledgement from port id 0 only, as iproute2 does.
        """
        return build(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, request.seq, 0)

    def deletion_notice(self, notice: DeletionNotice) -> bytes:
        """The datagram for the members of the family's group."""
        return answers.build_deletion(notice)

    def group_of(self, group: int) -> Family | None:
        """Whose multicast group of generic netlink this number is, None if it is the kernel's."""
        return Family.OVPN_DCO_V2 if group in {number for _, number in tables.FAMILY.groups} else None


def _request(protocol: int, message: Message) -> Request:
    operation = error = None
    try:
        operation = _decode(protocol, message)
    except Malformed as malformed:
        error = Failed(malformed.errno, str(malformed))
    family = Family.OVPN_DCO_V2 if operation or error else None
    return Request(protocol, message.raw, message.seq, message.flags, operation, family, error)


def _decode(protocol: int, message: Message) -> Operation | None:
    """None: not ours. Without NLM_F_REQUEST the kernel looks at no type, so such a message is its own as well."""
    if not message.flags & NLM_F_REQUEST:
        return None
    if protocol == NETLINK_ROUTE:
        return rtnl.decode(message)
    if protocol != NETLINK_GENERIC:
        return None
    if message.type == tables.FAMILY.family_id:
        return requests.decode(message)
    return GetFamily(Family.OVPN_DCO_V2) if control.is_about(message, tables.FAMILY) else None


def _dump(peers: tuple[PeerInfo, ...], seq: int, port_id: int) -> list[bytes]:
    """The peers, as many in a datagram as it holds."""
    datagrams: list[bytes] = []
    current = b""
    for peer in peers:
        message = answers.build_peer(peer, NLM_F_MULTI, seq, port_id)
        if len(current) + len(message) > DATAGRAM_BYTES:
            datagrams.append(current)
            current = b""
        current += message
    return [*datagrams, current] if current else datagrams
