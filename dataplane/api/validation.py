"""Checks of single request fields: each reports to Violations and returns the native value.

Knows ranges, formats and address rules. Must not know messages, gRPC or the engine's state. A reader
that found a violation returns None, or the value as it came where the type allows; it is never used,
because the request is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from dataplane.api.violations import Violations
from dataplane.engine.types import IPAddress, IPNetwork
from dataplane.vocabulary import PEER_ID_UNDEF, TCP_MSS_IPV4_MAX, TCP_MSS_IPV6_MAX, TCP_MSS_MIN

MAX_ADDRESSES: Final = 64
MAX_NETWORKS: Final = 256
MAX_KEEPALIVE_SECONDS: Final = 86_400
MAX_NAMESPACE_BYTES: Final = 255
MAX_INTERFACE_INDEX: Final = 2**31 - 1
MIN_BUFFER_BYTES: Final = 4096
MAX_BUFFER_BYTES: Final = 2**30 - 1
"""Linux doubles the size, gives no less than some KiB, and counts in an int (net/core/sock.c)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE = "1..63 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
# Linux refuses '/', ':' and white space; a '%' would make it choose another name.
_INTERFACE_NAME = re.compile(r"[!-$&-.0-9;-~]{1,15}")
_INTERFACE_RULE = "1..15 visible ASCII characters without '/', ':' and '%', other than '.' and '..'"
_TOKEN = re.compile(r"[0-9a-f]{32}")

T = TypeVar("T")


def is_name(value: str) -> bool:
    """Whether this may name a device or a socket."""
    return _NAME.fullmatch(value) is not None


def is_peer_id(value: int) -> bool:
    """Whether this is a peer-id on the wire other than the one that means "undefined"."""
    return 0 <= value < PEER_ID_UNDEF


def is_interface_name(value: str) -> bool:
    """Whether Linux takes this as the name of an interface, and exactly this."""
    return _INTERFACE_NAME.fullmatch(value) is not None and value not in {".", ".."}


def read_name(at: Violations, field: str, value: str) -> str:
    """Name of a device or socket; required."""
    if not value:
        at.add(field, f"is required: give {_NAME_RULE}")
    elif not is_name(value):
        at.add(field, f"must be {_NAME_RULE}; is {_shown(value)}")
    return value


def read_interface_name(at: Violations, field: str, value: str, device: str) -> str:
    """Interface name, or the device's name if empty."""
    if not value:
        # A device name that is wrong anyway was reported already.
        if is_name(device) and not is_interface_name(device):
            at.add(field, f"is required, since the device's name is no interface name: give {_INTERFACE_RULE}")
        return device
    if not is_interface_name(value):
        at.add(field, f"must be {_INTERFACE_RULE}; is {_shown(value)}")
    return value


def read_namespace(at: Violations, field: str, value: str) -> str:
    """Path of a network namespace, or empty for the daemon's own."""
    if value and (not value.startswith("/") or "\0" in value or len(value.encode()) > MAX_NAMESPACE_BYTES):
        rule = f"must be an absolute path of at most {MAX_NAMESPACE_BYTES} bytes, or empty for the daemon's own"
        at.add(field, f"{rule}; is {_shown(value)}")
    return value


def read_token(at: Violations, field: str, value: str) -> str:
    """Token of the hand-off socket; required."""
    if not _TOKEN.fullmatch(value):
        at.add(field, "must be the 32 hexadecimal digits that the hand-off socket answered")
    return value


def read_number(at: Violations, field: str, value: int, low: int, high: int) -> int:
    """Number in low..high."""
    if not low <= value <= high:
        at.add(field, f"must be {low}..{high}; is {value}")
    return value


def read_peer_id(at: Violations, field: str, value: int) -> int:
    """Peer-id on the wire, without the one that means "undefined"."""
    return read_number(at, field, value, 0, PEER_ID_UNDEF - 1)


def read_enum(
    at: Violations, field: str, number: int, numbers: Mapping[T, int], name_of: Callable[[int], str]
) -> T | None:
    """Enumeration value other than zero; `numbers`: native value to its number, `name_of`: number to its name."""
    for value, its_number in numbers.items():
        if its_number == number:
            return value
    names = ", ".join(name_of(known) for known in numbers.values())
    at.add(field, f"must be one of {names}; is {number or 'unspecified'}")
    return None


def read_whole_seconds(at: Violations, field: str, value: Duration) -> int:
    """Keepalive time; an absent one reads as 0."""
    if value.nanos or not 0 <= value.seconds <= MAX_KEEPALIVE_SECONDS:
        shown = f"{value.seconds} s and {value.nanos} ns" if value.nanos else f"{value.seconds} s"
        at.add(field, f"must be whole seconds, 0..{MAX_KEEPALIVE_SECONDS} s, 0 for none; is {shown}")
    return value.seconds


def read_tcp_mss_ipv4(at: Violations, field: str, value: int) -> int:
    """Limit of the MSS option over IPv4, or 0 for none."""
    return _read_tcp_mss(at, field, value, TCP_MSS_IPV4_MAX)


def read_tcp_mss_ipv6(at: Violations, field: str, value: int) -> int:
    """Limit of the MSS option over IPv6, or 0 for none."""
    return _read_tcp_mss(at, field, value, TCP_MSS_IPV6_MAX)


def _read_tcp_mss(at: Violations, field: str, value: int, high: int) -> int:
    if value and not TCP_MSS_MIN <= value <= high:
        at.add(field, f"must be 0 (segments are left alone) or {TCP_MSS_MIN}..{high}; is {value}")
    return value


def read_buffer_bytes(at: Violations, field: str, value: int) -> int:
    """Size of a socket's buffer, or 0 for the default."""
    if value and not MIN_BUFFER_BYTES <= value <= MAX_BUFFER_BYTES:
        at.add(field, f"must be 0 (the default) or {MIN_BUFFER_BYTES}..{MAX_BUFFER_BYTES}; is {value}")
    return value


def read_address(at: Violations, field: str, text: str) -> IPAddress | None:
    """IPv4 or IPv6 address; required. May be any kind of address."""
    if not text:
        at.add(field, "is required: give an IPv4 or IPv6 address")
        return None
    try:
        return ip_address(_without_scope(text))
    except ValueError:
        at.add(field, f"must be an IPv4 or IPv6 address without scope; is {_shown(text)}")
        return None


def read_transport_address(at: Violations, field: str, text: str) -> IPAddress | None:
    """Unicast address of a tunnel's end; required. A v4-mapped one is returned as IPv4."""
    address = read_address(at, field, text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    kind = _kind_but_unicast(address)
    if kind:
        at.add(field, f"must be a unicast address; {_shown(text)} is {kind}")
        return None
    return address


def read_bind_address(at: Violations, field: str, text: str, *, has_interface: bool = False) -> IPAddress | None:
    """Address that a socket may be bound to; required. has_interface: it is bound to an interface, too."""
    address = read_address(at, field, text)
    kind = _kind_but_unicast(address)
    if kind and kind != "unspecified":
        at.add(field, f"must be a unicast address or 0.0.0.0 or ::; {_shown(text)} is {kind}")
    elif isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        at.add(field, f"must not be v4-mapped: give {address.ipv4_mapped}")
    elif isinstance(address, IPv6Address) and address.is_link_local and not has_interface:
        at.add(field, "must not be link-local without bind_to_interface: give that, or :: or another address")
    return address


def read_vpn_ipv4(at: Violations, field: str, text: str) -> IPv4Address | None:
    """IPv4 address inside the tunnel; None if empty."""
    if not text:
        return None
    try:
        address = IPv4Address(text)
    except AddressValueError:
        at.add(field, f"must be an IPv4 address; is {_shown(text)}")
        return None
    _check_inside_tunnel(at, field, address)
    return address


def read_vpn_ipv6(at: Violations, field: str, text: str) -> IPv6Address | None:
    """IPv6 address inside the tunnel; None if empty."""
    if not text:
        return None
    try:
        address = IPv6Address(_without_scope(text))
    except ValueError:
        at.add(field, f"must be an IPv6 address without scope; is {_shown(text)}")
        return None
    _check_inside_tunnel(at, field, address)
    return address


def read_interface_addresses(
    at: Violations, field: str, texts: Sequence[str]
) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """Addresses of a TUN interface in CIDR notation, no two the same."""
    if len(texts) > MAX_ADDRESSES:
        at.add(field, f"must be {MAX_ADDRESSES} addresses at most; are {len(texts)}")
        return ()
    found: dict[IPAddress, IPv4Interface | IPv6Interface] = {}
    for index, text in enumerate(texts):
        element = f"{field}[{index}]"
        try:
            interface = ip_interface(_cidr(text))
        except ValueError:
            at.add(element, f"must be an address and its prefix length, as 10.8.0.1/24; is {_shown(text)}")
            continue
        _check_inside_tunnel(at, element, interface.ip)
        if interface.ip in found:
            at.add(element, f"must differ from the others; {interface.ip} is there twice")
        found[interface.ip] = interface
    return tuple(found.values())


def read_networks(at: Violations, field: str, texts: Sequence[str]) -> tuple[IPNetwork, ...]:
    """Networks behind a peer in CIDR notation without host bits, no two the same."""
    if len(texts) > MAX_NETWORKS:
        at.add(field, f"must be {MAX_NETWORKS} networks at most; are {len(texts)}")
        return ()
    found: dict[IPNetwork, None] = {}
    for index, text in enumerate(texts):
        element = f"{field}[{index}]"
        try:
            network = ip_network(_cidr(text))
        except ValueError:
            rule = "must be a network address without host bits and its prefix length, as 192.168.7.0/24"
            at.add(element, f"{rule}; is {_shown(text)}")
            continue
        if network.is_multicast:
            at.add(element, f"must not be multicast: see Device.forward_multicast; is {network}")
        if network in found:
            at.add(element, f"must differ from the others; {network} is there twice")
        found[network] = None
    return tuple(found)


def read_mask(at: Violations, field: str, mask: FieldMask, allowed: tuple[str, ...]) -> frozenset[str]:
    """Paths of an update mask: at least one, each allowed and named once."""
    rule = f"must name one or more of {', '.join(allowed)}"
    if not mask.paths:
        at.add(field, f"{rule}; is empty")
    elif len(mask.paths) > 2 * len(allowed):
        at.add(field, f"{rule}, each once; names {len(mask.paths)} paths")
    else:
        for path in sorted(set(mask.paths)):
            if path not in allowed:
                at.add(field, f"{rule}; {_shown(path)} is none of them")
            elif list(mask.paths).count(path) > 1:
                at.add(field, f"{rule}, each once; names {path} more than once")
    return frozenset(mask.paths)


def _check_inside_tunnel(at: Violations, field: str, address: IPAddress) -> None:
    kind = _kind_but_unicast(address)
    if address.is_loopback:
        kind = "a loopback address"
    elif isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        kind = "v4-mapped"
    if kind:
        at.add(field, f"must be a unicast address, not loopback and not v4-mapped; {address} is {kind}")


def _kind_but_unicast(address: IPAddress | None) -> str:
    if address is None:
        return ""
    if address.is_unspecified:
        return "unspecified"
    if address.is_multicast:
        return "multicast"
    if address == IPv4Address("255.255.255.255"):
        return "the broadcast address"
    return ""


def _cidr(text: str) -> str:
    """An address without scope and its prefix length, not looked at any further. Raises AddressValueError."""
    address, slash, prefix = text.partition("/")
    # ipaddress also takes netmasks and a missing prefix length; both are more often mistakes.
    if not (slash and prefix.isascii() and prefix.isdigit()):
        raise AddressValueError(text)
    return f"{_without_scope(address)}/{prefix}"


def _without_scope(text: str) -> str:
    # ipaddress would take "fe80::1%eth0"; the interface stands in a field of its own.
    if "%" in text:
        raise AddressValueError(text)
    return text


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")
