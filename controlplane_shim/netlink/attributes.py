"""Netlink attributes: split, built, and checked against tables as strictly as the kernel does.

Knows struct nlattr (include/uapi/linux/netlink.h) and the rules of strict validation (lib/nlattr.c). Must not know
messages or families: their tables are made of U8 … Nest by the module of the family.

A table is a tuple of fields. Each names an attribute, its number, its type and its bounds, and both decodes and
encodes it, so that a family says everything once.
"""

from __future__ import annotations

import struct
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


class Malformed(Exception):
    """The kernel would refuse this request. errno: positive; the text tells which rule was broken."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


@dataclass(frozen=True, slots=True)
class RawAttribute:
    """An attribute before anything is known of its type; nested: NLA_F_NESTED is set. The payload may be a key."""

    type: int
    nested: bool
    payload: bytes = field(repr=False)


def split(data: bytes) -> tuple[list[RawAttribute], bytes]:
    """The whole attributes at the beginning of data, and what is left behind them."""
    found = []
    offset = 0
    while len(data) - offset >= _HEADER.size:
        length, type_ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            break
        payload = data[offset + _HEADER.size : offset + length]
        found.append(RawAttribute(type_ & _NLA_TYPE_MASK, bool(type_ & NLA_F_NESTED), payload))
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

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[int, Any]) -> None:
        self._values = values

    def get(self, row: Field[T]) -> T | None:
        """The value of an attribute, None if it is absent."""
        value: T | None = self._values.get(row.number)
        return value

    def require(self, row: Field[T]) -> T:
        """The value of an attribute. Raises Malformed (EINVAL) if it is absent."""
        value = self.get(row)
        if value is None:
            raise Malformed(EINVAL, f"{row.name} is missing")
        return value


def parse(data: bytes, table: tuple[Field[Any], ...]) -> Attributes:
    """Checks every attribute in order of appearance; of equal ones the last counts.

    Raises Malformed: EINVAL for unknown attributes, wrong sizes, a nested flag that is missing or out of place,
    and bytes left over; ERANGE for values and variable lengths out of bounds.
    """
    rows = {row.number: row for row in table}
    attributes, leftover = split(data)
    values = {}
    for attribute in attributes:
        if attribute.type not in rows:
            raise Malformed(EINVAL, f"unknown attribute {attribute.type}")
        values[attribute.type] = rows[attribute.type].decode(attribute)
    if leftover:
        raise Malformed(EINVAL, f"{len(leftover)} bytes left over after the attributes")
    return Attributes(values)


def _expect_flat(attribute: RawAttribute, name: str) -> None:
    if attribute.nested:
        raise Malformed(EINVAL, f"{name} is marked as nested")


@dataclass(frozen=True, slots=True)
class Integer:
    """An unsigned integer of exactly one size. layout: of module struct; maximum: None for all that fits."""

    number: int
    name: str
    layout: str
    maximum: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return struct.calcsize(self.layout)

    def decode(self, attribute: RawAttribute) -> int:
        """The value. Raises Malformed: EINVAL for another size, ERANGE above maximum."""
        if len(attribute.payload) != self.size:
            raise Malformed(EINVAL, f"{self.name} has {len(attribute.payload)} bytes, not {self.size}")
        _expect_flat(attribute, self.name)
        value: int = struct.unpack(self.layout, attribute.payload)[0]
        if self.maximum is not None and value > self.maximum:
            raise Malformed(ERANGE, f"{self.name} is {value}, above {self.maximum}")
        return value

    def encode(self, value: int) -> bytes:
        """The attribute."""
        return build(self.number, struct.pack(self.layout, value))


def u8(number: int, name: str, maximum: int | None = None) -> Integer:
    """An integer of 8 bits."""
    return Integer(number, name, "=B", maximum)


def u16(number: int, name: str) -> Integer:
    """An integer of 16 bits."""
    return Integer(number, name, "=H")


def u32(number: int, name: str) -> Integer:
    """An integer of 32 bits."""
    return Integer(number, name, "=I")


def u64(number: int, name: str) -> Integer:
    """An integer of 64 bits."""
    return Integer(number, name, "=Q")


def be16(number: int, name: str) -> Integer:
    """An integer of 16 bits in network byte order."""
    return Integer(number, name, ">H")


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
        _expect_flat(attribute, self.name)
        if not self.minimum <= len(attribute.payload) <= self.maximum:
            raise Malformed(
                ERANGE, f"{self.name} has {len(attribute.payload)} bytes, not {self.minimum} to {self.maximum}"
            )
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
            raise Malformed(EINVAL, f"{self.name} is not marked as nested")
        if 0 < len(attribute.payload) < _HEADER.size:
            raise Malformed(ERANGE, f"{self.name} is too short for an attribute")
        return parse(attribute.payload, self.table)

    def encode(self, attributes: bytes) -> bytes:
        """The attribute, marked as nested."""
        return build(self.number | NLA_F_NESTED, attributes)
