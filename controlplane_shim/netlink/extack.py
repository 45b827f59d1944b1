"""Extended acknowledgements: why a request was refused, and where it is wrong.

Knows NLMSGERR_ATTR_* (include/uapi/linux/netlink.h) and their order in netlink_ack(). Must not know who asked for one.
"""

from __future__ import annotations

from typing import Final

from controlplane_shim.netlink import attributes
from controlplane_shim.netlink.attributes import NLA_F_NESTED, Fault
from controlplane_shim.netlink.policy import describe

SENTENCE_CHARACTERS: Final = 500
"""What is said is cut here: a sentence of the data plane may be of any length, an answer must fit a reader's buffer."""

_MESSAGE: Final = 1
_OFFSET: Final = attributes.u32(2, "OFFS")
_POLICY: Final = 4
_MISSING_TYPE: Final = attributes.u32(5, "MISS_TYPE")
_MISSING_NEST: Final = attributes.u32(6, "MISS_NEST")


def explain(sentence: str, fault: Fault | None = None) -> bytes:
    """The attributes that follow the request in an NLMSG_ERROR. sentence: "" for none."""
    explanation = attributes.string(_MESSAGE, sentence[:SENTENCE_CHARACTERS]) if sentence else b""
    if fault is None:
        return explanation
    if fault.offset is not None:
        explanation += _OFFSET.encode(fault.offset)
    if fault.row is not None and (described := describe(fault.row)):
        explanation += attributes.build(_POLICY | NLA_F_NESTED, described)
    if fault.missing is not None:
        explanation += _MISSING_TYPE.encode(fault.missing)
    if fault.missing_in is not None:
        explanation += _MISSING_NEST.encode(fault.missing_in)
    return explanation
