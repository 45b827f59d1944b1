"""Netlink datagrams to operations, and outcomes to netlink datagrams.

Knows which messages are ours, and in what datagrams the kernel would answer them. Must not know who carries the
operations out, nor sockets. Holds no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from errno import EINVAL, EIO, ENOBUFS, ENODEV, ENOENT, ENOMEM
from functools import partial
from typing import Final

from controlplane_shim.netlink import control, ovpn, ovpn_dco_v2, rtnl
from controlplane_shim.netlink.attributes import Fault, Malformed
from controlplane_shim.netlink.codec import Codec, decode
from controlplane_shim.netlink.control import PolicyQuestion
from controlplane_shim.netlink.extack import explain
from controlplane_shim.netlink.message import (
    NLM_F_ACK,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLMSG_NOOP,
    PLAIN_ACKS,
    AckOptions,
    Message,
    build,
    build_done,
    build_error,
    split,
)
from controlplane_shim.operations import (
    Failed,
    Family,
    GetFamily,
    GetPolicy,
    KeyFound,
    Operation,
    Outcome,
    PeerFound,
    PeerNotice,
    PeersFound,
)

NETLINK_ROUTE: Final = 0
NETLINK_GENERIC: Final = 16

_NO_TYPE_OF_RTNETLINK: Final = 0xFFFF

DATAGRAM_BYTES: Final = 3776
"""Largest datagram of a dump: the kernel's NLMSG_GOODSIZE, which every reader's buffer holds."""

_HARMLESS: Final[Mapping[int, int]] = {ENODEV: EINVAL, ENOMEM: EIO, ENOBUFS: EIO}
"""Errnos that end the whole OpenVPN process, and what leaves the shim instead.

libnl takes ENOBUFS for ENOMEM, and OpenVPN treats NLE_NOMEM and NLE_NODEV as fatal wherever they come from.
"""


_CODECS: Final[Mapping[Family, Codec]] = {Family.OVPN_DCO_V2: ovpn_dco_v2.CODEC, Family.OVPN: ovpn.CODEC}
_FAMILY_BY_KIND: Final[Mapping[str, Family]] = {codec.kind: family for family, codec in _CODECS.items()}
_FAMILY_BY_ID: Final[Mapping[int, Family]] = {codec.introduction.family_id: family for family, codec in _CODECS.items()}

Modes = Mapping[Family, Mapping[int, bool]]
"""Whether a device is MP, by its family and ifindex."""

_NO_DEVICES: Final[Modes] = {}


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
        sentence, fault: What an extended acknowledgement says of the error beyond its text.
    """

    protocol: int
    raw: bytes = field(repr=False)
    seq: int
    flags: int
    operation: Operation | None
    family: Family | None
    error: Failed | None
    sentence: str = ""
    fault: Fault | None = None


class Translator:
    """Both directions, for all families."""

    def requests(
        self, protocol: int, datagram: bytes, modes: Modes = _NO_DEVICES, *, is_admin: bool = True
    ) -> list[Request]:
        """The messages of a datagram, in order. Never raises; bytes that the kernel would skip are skipped.

        modes: the devices that there are, some of whose checks come before others of the request itself.
        is_admin: whether the asker has CAP_NET_ADMIN.
        """
        return [_request(protocol, message, modes, is_admin=is_admin) for message in split(datagram)]

    def replies(
        self, request: Request, port_id: int, outcome: Outcome, options: AckOptions = PLAIN_ACKS
    ) -> list[bytes]:
        """The datagrams for the asker, in order. options: what its socket wants of acknowledgements.

        A failure is always told. Success gives first what was asked for, then an acknowledgement if the request
        has NLM_F_ACK; a dump ends by NLMSG_DONE instead.
        """
        seq = request.seq
        if isinstance(outcome, Failed):
            errno = _HARMLESS.get(outcome.errno, outcome.errno)
            return [build_error(request.raw, port_id, errno, options, _explanation(request, outcome))]
        if isinstance(request.operation, GetPolicy):
            return _policies(request, request.operation, port_id, options)
        codec = _CODECS[request.family or Family.OVPN_DCO_V2]
        replies = []
        match outcome:
            case PeersFound(peers):
                told = (codec.build_peer(peer, NLM_F_MULTI, seq, port_id) for peer in peers)
                return [*_dump(told), build_done(seq, port_id)]
            case PeerFound(peer):
                replies.append(codec.build_peer(peer, 0, seq, port_id))
            case KeyFound(key) if codec.build_key is not None:
                replies.append(codec.build_key(key, seq, port_id))
            case _ if isinstance(request.operation, GetFamily):
                replies.append(control.build_new_family(codec.introduction, seq, port_id))
        if request.flags & NLM_F_ACK:
            replies.append(build_error(request.raw, port_id, 0))
        return replies

    def kernel_ack(self, request: Request) -> bytes:
        """A message that the kernel acknowledges as it would the request, if the asker's own socket sends it.

        For whoever accepts an acknowledgement from port id 0 only, as iproute2 does.
        """
        return build(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, request.seq, 0)

    def kernel_refusal(self, request: Request) -> bytes:
        """A message of rtnetlink that the kernel refuses with EOPNOTSUPP, with the sequence number of the request.

        For the same readers: they wait for ever for an error that does not come from port id 0.
        """
        return build(_NO_TYPE_OF_RTNETLINK, NLM_F_REQUEST | NLM_F_ACK, request.seq, 0)

    def notice(self, notice: PeerNotice) -> bytes | None:
        """The datagram for the members of the family's group; None if the family has no word for it."""
        return _CODECS[notice.family].build_notice(notice)

    def group_of(self, group: int) -> Family | None:
        """Whose multicast group of generic netlink this number is, None if it is the kernel's."""
        for family, codec in _CODECS.items():
            if group in {number for _, number in codec.introduction.groups}:
                return family
        return None


def _request(protocol: int, message: Message, modes: Modes, *, is_admin: bool) -> Request:
    plain = partial(Request, protocol, message.raw, message.seq, message.flags)
    family = _family_of(protocol, message, is_admin=is_admin)
    if family is None:
        return plain(None, None, None)
    try:
        return plain(_decode(protocol, message, family, modes, is_admin=is_admin), family, None)
    except Malformed as malformed:
        error = Failed(malformed.errno, str(malformed))
        return plain(None, family, error, malformed.sentence, malformed.fault)


def _family_of(protocol: int, message: Message, *, is_admin: bool) -> Family | None:
    """None: not ours. Without NLM_F_REQUEST the kernel looks at no type, so such a message is its own as well.

    So is a new link for who may make none: it says EPERM before it looks for a kind.
    """
    if not message.flags & NLM_F_REQUEST:
        return None
    if protocol == NETLINK_ROUTE:
        return _FAMILY_BY_KIND.get(rtnl.kind_of(message) or "") if is_admin else None
    if protocol != NETLINK_GENERIC:
        return None
    if message.type == control.GENL_ID_CTRL:
        return next((family for family in _CODECS if _question(message, family) is not None), None)
    return _FAMILY_BY_ID.get(message.type)


def _decode(protocol: int, message: Message, family: Family, modes: Modes, *, is_admin: bool) -> Operation | None:
    """The operation of a message of ours. Raises Malformed."""
    if protocol == NETLINK_ROUTE:
        return rtnl.decode(message, _CODECS[family].kind)
    if message.type == control.GENL_ID_CTRL:
        return _question(message, family)
    return decode(message, _CODECS[family], modes.get(family, {}), is_admin=is_admin)


def _question(message: Message, family: Family) -> GetFamily | GetPolicy | None:
    """What a message to the control family wants to know of a family of ours."""
    introduction = _CODECS[family].introduction
    if control.asks_for_family(message, introduction):
        return GetFamily(family)
    question = control.asks_for_policy(message, introduction)
    return None if question is None else GetPolicy(family, question.command)


def _explanation(request: Request, failed: Failed) -> bytes:
    """What the kernel's core says, it says by itself; a driver begins with its name."""
    if failed is request.error and request.sentence:
        return explain(request.sentence, request.fault)
    name = request.family.value if request.family is not None else "ovpn"
    return explain(f"{name}: {failed.text}" if failed.text else "", request.fault)


def _policies(request: Request, operation: GetPolicy, port_id: int, options: AckOptions) -> list[bytes]:
    family = _CODECS[operation.family].introduction
    if operation.command is not None and not control.has_command(family, operation.command):
        return [build_error(request.raw, port_id, ENOENT, options)]
    question = PolicyQuestion(operation.command)
    return [
        *_dump(control.build_policies(family, question, request.seq, port_id)),
        build_done(request.seq, port_id),
    ]


def _dump(messages: Iterable[bytes]) -> list[bytes]:
    """The messages of a dump, as many in a datagram as it holds."""
    datagrams: list[bytes] = []
    current = b""
    for message in messages:
        if len(current) + len(message) > DATAGRAM_BYTES:
            datagrams.append(current)
            current = b""
        current += message
    return [*datagrams, current] if current else datagrams
