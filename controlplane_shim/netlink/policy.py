"""What a table demands, told to whoever asks: the policies of generic netlink.

Knows NL_POLICY_TYPE_ATTR_* and NL_ATTR_TYPE_* (include/uapi/linux/netlink.h), and what the kernel leaves out
(net/netlink/policy.c). Must not know families.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from controlplane_shim.netlink import attributes
from controlplane_shim.netlink.attributes import NLA_F_NESTED, Binary, Field, Integer, Nest, VariableInteger

Table = tuple[Field[Any], ...]

_TYPE: Final = attributes.u32(1, "TYPE")
_MIN_VALUE_S: Final = attributes.s64(2, "MIN_VALUE_S")
_MAX_VALUE_S: Final = attributes.s64(3, "MAX_VALUE_S")
_MIN_VALUE_U: Final = attributes.u64(4, "MIN_VALUE_U")
_MAX_VALUE_U: Final = attributes.u64(5, "MAX_VALUE_U")
_MIN_LENGTH: Final = attributes.u32(6, "MIN_LENGTH")
_MAX_LENGTH: Final = attributes.u32(7, "MAX_LENGTH")
_POLICY_INDEX: Final = attributes.u32(8, "POLICY_IDX")
_POLICY_MAX_TYPE: Final = attributes.u32(9, "POLICY_MAXTYPE")

_UNSIGNED: Final[Mapping[str, int]] = {"=B": 2, "=H": 3, "=I": 4, "=Q": 5}
_SIGNED: Final[Mapping[str, int]] = {"=i": 8}
_BINARY: Final = 10
_NESTED: Final = 13
_UINT: Final = 17
_BINARY_MAX: Final = 0xFFFF


def index_of(policies: list[Table], table: Table) -> int:
    """Where a table itself is among them, -1 if it is not; an equal one is another."""
    return next((index for index, known in enumerate(policies) if known is table), -1)


def describe(row: Field[Any], policies: list[Table] | None = None) -> bytes:
    """The attributes that describe a row; none for integers in network byte order, which the kernel leaves out too.

    policies: where the tables of nests are found, for their numbers; None where the kernel names no number.
    """
    match row:
        case Integer(layout=layout) if layout in _UNSIGNED:
            most = row.maximum if row.maximum is not None else (1 << 8 * row.size) - 1
            return _MIN_VALUE_U.encode(row.minimum or 0) + _MAX_VALUE_U.encode(most) + _TYPE.encode(_UNSIGNED[layout])
        case Integer(layout=layout) if layout in _SIGNED:
            limit = 1 << 8 * row.size - 1
            return _MIN_VALUE_S.encode(-limit) + _MAX_VALUE_S.encode(limit - 1) + _TYPE.encode(_SIGNED[layout])
        case VariableInteger():
            return _MIN_VALUE_U.encode(0) + _MAX_VALUE_U.encode((1 << 64) - 1) + _TYPE.encode(_UINT)
        case Binary(minimum=least, maximum=most):
            lengths = _MIN_LENGTH.encode(least) if least else b""
            lengths += _MAX_LENGTH.encode(most) if most < _BINARY_MAX else b""
            return lengths + _TYPE.encode(_BINARY)
        case Nest(table=table):
            inner = b""
            if policies is not None and table:
                inner = _POLICY_INDEX.encode(index_of(policies, table)) + _POLICY_MAX_TYPE.encode(max_type(table))
            return inner + _TYPE.encode(_NESTED)
        case _:
            return b""


def collect(tables: Iterable[Table]) -> list[Table]:
    """The tables and those of the nests in them, each once, numbered as the kernel numbers them."""
    policies: list[Table] = []
    for table in tables:
        _add(policies, table)
        for known in policies:  # which grows on the way
            for row in sorted(known, key=lambda row: row.number):
                if isinstance(row, Nest):
                    _add(policies, row.table)
    return policies


def dump(policies: list[Table]) -> Iterator[bytes]:
    """For each described row of each table, in order, the content of a CTRL_ATTR_POLICY."""
    for index, table in enumerate(policies):
        for row in sorted(table, key=lambda row: row.number):
            if described := describe(row, policies):
                attribute = attributes.build(row.number | NLA_F_NESTED, described)
                yield attributes.build(index | NLA_F_NESTED, attribute)


def max_type(table: Table) -> int:
    """The highest number in a table."""
    return max(row.number for row in table)


def _add(policies: list[Table], table: Table) -> None:
    if table and index_of(policies, table) < 0:
        policies.append(table)
