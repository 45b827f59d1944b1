"""The checks of single fields, over arbitrary input."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from dataplane.api import validation
from dataplane.api.violations import InvalidRequest, Violations

NAME_CHARACTERS = "ABCXYZabcxyz0189._-"
addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
address_readers = st.sampled_from(
    [
        validation.read_address,
        validation.read_transport_address,
        validation.read_bind_address,
        validation.read_vpn_ipv4,
        validation.read_vpn_ipv6,
    ]
)


def problems(read: Callable[[Violations], object]) -> list[str]:
    """The fields that a reader reports."""
    found = Violations()
    read(found)
    try:
        found.raise_if_any()
    except InvalidRequest as refusal:
        return [violation.field for violation in refusal.violations]
    return []


def description(read: Callable[[Violations], object]) -> str:
    found = Violations()
    read(found)
    with pytest.raises(InvalidRequest) as raised:
        found.raise_if_any()
    return raised.value.violations[0].description


@given(st.text())
def test_a_name_is_1_to_63_of_its_characters_beginning_with_letter_or_digit(name: str) -> None:
    is_good = 1 <= len(name) <= 63 and set(name) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
    )
    is_good = is_good and name[0] not in "._-"
    assert validation.is_name(name) == is_good


@given(st.text(alphabet=NAME_CHARACTERS, min_size=1, max_size=70))
def test_a_name_of_its_characters_fails_only_by_length_and_beginning(name: str) -> None:
    assert validation.is_name(name) == (len(name) <= 63 and name[0] not in "._-")


@given(st.text(max_size=20))
def test_an_interface_name_is_taken_by_linux(name: str) -> None:
    if validation.is_interface_name(name):
        assert 1 <= len(name.encode()) <= 15
        assert not set(name) & set("/:%")
        assert name not in {".", ".."}
        assert not any(character.isspace() for character in name)


@given(addresses, address_readers)
def test_the_canonical_text_of_an_address_is_read_as_it_or_refused(
    address: IPv4Address | IPv6Address, read: Callable[[Violations, str, str], object]
) -> None:
    found = Violations()
    value = read(found, "f", str(address))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if not problems(lambda at: read(at, "f", str(address))):
        assert value in {address, mapped}


@given(st.text(), address_readers)
def test_no_text_fails_an_address_reader(text: str, read: Callable[[Violations, str, str], object]) -> None:
    assert problems(lambda at: read(at, "f", text)) in ([], ["f"])


@given(addresses)
def test_a_transport_address_is_never_multicast_unspecified_broadcast_or_mapped(
    address: IPv4Address | IPv6Address,
) -> None:
    value = validation.read_transport_address(Violations(), "f", str(address))
    if value is not None:
        assert not value.is_multicast
        assert not value.is_unspecified
        assert value != IPv4Address("255.255.255.255")
        assert not (isinstance(value, IPv6Address) and value.ipv4_mapped)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_whole_seconds_from_0_to_a_day_are_read_and_nothing_else(seconds: int, nanos: int) -> None:
    value = Duration(seconds=seconds, nanos=nanos)
    is_good = nanos == 0 and 0 <= seconds <= 86400
    assert problems(lambda at: validation.read_whole_seconds(at, "f", value)) == ([] if is_good else ["f"])


@given(st.lists(st.sampled_from(["a", "b", "c", "x", ""])))
def test_a_mask_names_allowed_paths_once(paths: list[str]) -> None:
    mask = FieldMask(paths=paths)
    is_good = bool(paths) and set(paths) <= {"a", "b", "c"} and len(set(paths)) == len(paths)
    assert (not problems(lambda at: validation.read_mask(at, "m", mask, ("a", "b", "c")))) == is_good


@given(st.lists(st.text(max_size=20) | st.sampled_from(["10.8.0.1/24", "fd00::1/64", "10.8.0.2/32"]), max_size=70))
def test_addresses_that_are_read_are_unicast_and_differ(texts: list[str]) -> None:
    found = Violations()
    interfaces = validation.read_interface_addresses(found, "a", texts)
    assert len({interface.ip for interface in interfaces}) == len(interfaces)
    if not problems(lambda at: validation.read_interface_addresses(at, "a", texts)):
        assert len(interfaces) == len(texts)
        assert not any(interface.ip.is_multicast or interface.ip.is_loopback for interface in interfaces)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (lambda at: validation.read_number(at, "f", 70000, 1, 65535), "must be 1..65535; is 70000"),
        (
            lambda at: validation.read_name(at, "f", ""),
            "is required: give 1..63 of A-Z a-z 0-9 . _ -, beginning with a letter or digit",
        ),
        (
            lambda at: validation.read_transport_address(at, "f", "224.0.0.1"),
            "must be a unicast address; '224.0.0.1' is multicast",
        ),
        (
            lambda at: validation.read_whole_seconds(at, "f", Duration(seconds=1, nanos=5)),
            "must be whole seconds, 0..86400 s, 0 for none; is 1 s and 5 ns",
        ),
        (
            lambda at: validation.read_mask(at, "f", FieldMask(paths=["x"]), ("mtu", "admin_up")),
            "must name one or more of mtu, admin_up; 'x' is none of them",
        ),
    ],
)
def test_a_description_names_the_rule_and_what_was_found(read: Callable[[Violations], object], text: str) -> None:
    assert description(read) == text


@given(st.text())
def test_a_description_quotes_little_and_only_printable_ascii(text: str) -> None:
    found = Violations()
    validation.read_address(found, "f", text)
    try:
        found.raise_if_any()
    except InvalidRequest as refusal:
        shown = refusal.violations[0].description
        assert len(shown) < 600
        assert shown.isascii()
        assert shown.isprintable()
    else:
        ip_address(text)
