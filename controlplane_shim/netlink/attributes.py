"""Netlink attributes: split, built, and checked against tables as strictly as the kernel does.

Knows struct nlattr (include/uapi/linux/netlink.h) and the rules of strict validation (lib/nlattr.c). Must not know
messages or families: their tables are made of U8 … Nest by the module of the family.

A table is a tuple of fields. Each names an attribute, its number, its type and its bounds, and both decodes and
encodes it, so that a family says everything once.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from errno import EINVAL, ERANGE
from typing import Any, Final, Protocol, TypeVar

from controlplane_shim.netlink.message import padding

NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF
_HEADER: Final = struct.Struct("=HH")  # length with this header, type with two flag bits

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RawAttribute:
    """An attribute before anything is known of its type; nested: NLA_F_NESTED is set. The payload may be a key.

    offset: of its header, in bytes from the beginning of the message.
    """

    type: int
    nested: bool
    payload: bytes = field(repr=False)
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a request is wrong, as extended acknowledgements tell it (NLMSGERR_ATTR_OFFS and those that follow).

    offset: of the bad attribute in the message; row: what that attribute should be; missing: number of an attribute
    that is not there; missing_in: offset of the nest in which it should be, None at the top.
    """

    offset: int | None = None
    row: Field[Any] | None = None
    missing: int | None = None
    missing_in: int | None = None


class Malformed(Exception):
    """The kernel would refuse this request.

    errno: positive. text: which rule was broken, and by what, for the log. sentence: what the core of netlink says of
    it in an extended acknowledgement; empty if it is the driver that says the text. fault: where.
    """

    def __init__(self, errno: int, text: str, sentence: str = "", fault: Fault | None = None) -> None:
        super().__init__(text)
        self.errno = errno
        self.sentence = sentence
        self.fault = fault


def split(data: bytes, start: int = 0) -> tuple[list[RawAttribute], bytes]:
    """The whole attributes at the beginning of data, and what is left behind them. start: where it is in a message."""
    found = []
    offset = 0
    while len(data) - offset >= _HEADER.size:
        length, type_ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            break
        payload = data[offset + _HEADER.size : offset + length]
        found.append(RawAttribute(type_ & _NLA_TYPE_MASK, bool(type_ & NLA_F_NESTED), payload, start + offset))
        offset += length + padding(length)
    return found, data[offset:]


def payloads(data: bytes) -> dict[int, bytes]:
    """Payloads by type, the last of each, unchecked: how families older than strict validation are read."""
    return {attribute.type: attribute.payload for attribute in split(data)[0]}


def build(type_: int, payload: bytes) -> bytes:
    """An attribute, padded to 4 bytes. type_: with NLA_F_NESTED where the reader expects it."""
    return _HEADER.pack(_HEADER.size + len(payload), type_) + payload + bytes(padding(len(payload)))


def string(type_: int, text: str) -> bytes:
    """An attribute that holds text, ended by NUL (NLA_NUL_STRING)."""
    return build(type_, text.encode() + b"\0")


class Field(Protocol[T_co]):
    """One row of a table."""

    @property
    def number(self) -> int:
        """The attribute's type number."""

    @property
    def name(self) -> str:
        """The attribute's name, for error texts."""

    def decode(self, attribute: RawAttribute) -> T_co:
        """The value. Raises Malformed."""


class Attributes:
    """The checked attributes of one nest. Has no repr, for values may be keys."""

    __slots__ = ("_nest_offset", "_offsets", "_values")

    def __init__(self, values: Mapping[int, Any], offsets: Mapping[int, int], nest_offset: int | None) -> None:
        """offsets: of each attribute in the message; nest_offset: of their nest, None for the attributes at the top."""
        self._values = values
        self._offsets = offsets
        self._nest_offset = nest_offset

    def get(self, row: Field[T]) -> T | None:
        """The value of an attribute, None if it is absent."""
        value: T | None = self._values.get(row.number)
        return value

    def require(self, row: Field[T]) -> T:
        """The value of an attribute. Raises Malformed (EINVAL) if it is absent."""
        value = self.get(row)
        if value is None:
            fault = Fault(missing=row.number, missing_in=self._nest_offset)
            raise Malformed(EINVAL, f"{row.name} is missing", fault=fault)
        return value

    def fault(self, row: Field[Any]) -> Fault:
        """Says that this attribute is the bad one."""
        return Fault(self._offsets.get(row.number))

    def numbers(self) -> list[int]:
        """The numbers of the attributes that are there, ascending."""
        return sorted(self._values)


def parse(data: bytes, table: tuple[Field[Any], ...], start: int = 0, nest_offset: int | None = None) -> Attributes:
    """Checks every attribute in order of appearance; of equal ones the last counts.

    Raises Malformed: EINVAL for unknown attributes, wrong sizes, a nested flag that is missing or out of place,
    and bytes left over; ERANGE for values and variable lengths out of bounds.
    start: data's place in the message; nest_offset: of the nest that data is in, if it is in one.
    """
    rows = {row.number: row for row in table}
    attributes, leftover = split(data, start)
    values = {}
    offsets = {}
    for attribute in attributes:
        if attribute.type not in rows:
            is_gap = 0 < attribute.type < max(rows, default=0)
            raise Malformed(
                EINVAL,
                f"unknown attribute {attribute.type}",
                "Unsupported attribute" if is_gap else "Unknown attribute type",
                Fault(attribute.offset),
            )
        values[attribute.type] = rows[attribute.type].decode(attribute)
        offsets[attribute.type] = attribute.offset
    if leftover:
        text = f"{len(leftover)} bytes left over after the attributes"
        raise Malformed(EINVAL, text, "bytes leftover after parsing attributes")
    return Attributes(values, offsets, nest_offset)


def _refusal(errno: int, attribute: RawAttribute, row: Field[Any], text: str, sentence: str) -> Malformed:
    return Malformed(errno, f"{row.name} {text}", sentence, Fault(attribute.offset, row))


def _expect_size(attribute: RawAttribute, row: Field[Any], sizes: tuple[int, ...]) -> None:
    size = len(attribute.payload)
    if size not in sizes:
        text = f"has {size} bytes, not {' or '.join(map(str, sizes))}"
        raise _refusal(EINVAL, attribute, row, text, "invalid attribute length")


def _expect_flat(attribute: RawAttribute, row: Field[Any]) -> None:
    if attribute.nested:
        raise _refusal(EINVAL, attribute, row, "is marked as nested", "NLA_F_NESTED not expected")


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer of exactly one size.

    layout: of module struct; minimum, maximum: None for all that fits. lenient: other layouts that some program is
    known to send and that the kernel would refuse.
    """

    number: int
    name: str
    layout: str
    maximum: int | None = None
    minimum: int | None = None
    lenient: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return struct.calcsize(self.layout)

    def decode(self, attribute: RawAttribute) -> int:
        """The value. Raises Malformed: EINVAL for another size, ERANGE out of minimum to maximum."""
        layouts = {struct.calcsize(layout): layout for layout in (self.layout, *self.lenient)}
        _expect_size(attribute, self, tuple(layouts))
        _expect_flat(attribute, self)
        value: int = struct.unpack(layouts[len(attribute.payload)], attribute.payload)[0]
        if self.maximum is not None and value > self.maximum:
            raise _refusal(ERANGE, attribute, self, f"is {value}, above {self.maximum}", "integer out of range")
        if self.minimum is not None and value < self.minimum:
            raise _refusal(ERANGE, attribute, self, f"is {value}, below {self.minimum}", "integer out of range")
        return value

    def encode(self, value: int) -> bytes:
        """The attribute."""
        return build(self.number, struct.pack(self.layout, value))


@dataclass(frozen=True, slots=True)
class VariableInteger:
    """An unsigned integer of 4 or 8 bytes, as it needs (NLA_UINT)."""

    number: int
    name: str

    def decode(self, attribute: RawAttribute) -> int:
        """The value. Raises Malformed: EINVAL for another size."""
        _expect_flat(attribute, self)
        _expect_size(attribute, self, (4, 8))
        return int.from_bytes(attribute.payload, sys.byteorder)

    def encode(self, value: int) -> bytes:
        """The attribute, as short as it can be."""
        return build(self.number, value.to_bytes(4 if value <= 0xFFFFFFFF else 8, sys.byteorder))


def u8(number: int, name: str, maximum: int | None = None) -> Integer:
    """An integer of 8 bits."""
    return Integer(number, name, "=B", maximum)


def u16(number: int, name: str) -> Integer:
    """An integer of 16 bits."""
    return Integer(number, name, "=H")


def u32(number: int, name: str, maximum: int | None = None, lenient: tuple[str, ...] = ()) -> Integer:
    """An integer of 32 bits."""
    return Integer(number, name, "=I", maximum, lenient=lenient)


def s32(number: int, name: str) -> Integer:
    """A signed integer of 32 bits."""
    return Integer(number, name, "=i")


def u64(number: int, name: str) -> Integer:
    """An integer of 64 bits."""
    return Integer(number, name, "=Q")


def s64(number: int, name: str) -> Integer:
    """A signed integer of 64 bits."""
    return Integer(number, name, "=q")


def be16(number: int, name: str, minimum: int | None = None) -> Integer:
    """An integer of 16 bits in network byte order."""
    return Integer(number, name, ">H", minimum=minimum)


def be32(number: int, name: str) -> Integer:
    """An integer of 32 bits in network byte order."""
    return Integer(number, name, ">I")


@dataclass(frozen=True, slots=True)
class Binary:
    """Bytes, minimum to maximum of them."""

    number: int
    name: str
    minimum: int = 0
    maximum: int = 0xFFFF

    def decode(self, attribute: RawAttribute) -> bytes:
        """The bytes. Raises Malformed: ERANGE for a length out of bounds."""
        _expect_flat(attribute, self)
        size = len(attribute.payload)
        if not self.minimum <= size <= self.maximum:
            text = f"has {size} bytes, not {self.minimum} to {self.maximum}"
            raise _refusal(ERANGE, attribute, self, text, "binary attribute size out of range")
        return attribute.payload

    def encode(self, value: bytes) -> bytes:
        """The attribute."""
        return build(self.number, value)


@dataclass(frozen=True, slots=True)
class Nest:
    """Attributes within an attribute."""

    number: int
    name: str
    table: tuple[Field[Any], ...]

    def decode(self, attribute: RawAttribute) -> Attributes:
        """The checked attributes within. Raises Malformed as parse() does; EINVAL without the nested flag."""
        if not attribute.nested:
            raise _refusal(EINVAL, attribute, self, "is not marked as nested", "NLA_F_NESTED is missing")
        if 0 < len(attribute.payload) < _HEADER.size:
            text = "is too short for an attribute"
            raise _refusal(ERANGE, attribute, self, text, "Attribute failed policy validation")
        return parse(attribute.payload, self.table, attribute.offset + _HEADER.size, attribute.offset)

    def encode(self, attributes: bytes) -> bytes:
        """The attribute, marked as nested."""
        return build(self.number | NLA_F_NESTED, attributes)
