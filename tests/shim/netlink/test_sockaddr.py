from __future__ import annotations

from errno import EINVAL
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.netlink import sockaddr
from controlplane_shim.netlink.attributes import Malformed
from controlplane_shim.operations import Remote
from tests.shim.netlink.conftest import sockaddr_in, sockaddr_in6

ports = st.integers(0, 0xFFFF)
remotes = st.one_of(
    st.builds(Remote, st.ip_addresses(v=4), ports),
    st.builds(
        Remote,
        st.ip_addresses(network="2000::/3") | st.ip_addresses(network="fe80::/10"),
        ports,
        st.integers(0, 0xFFFFFFFF),
    ),
)


@given(remotes)
def test_a_remote_is_unpacked_as_it_was_packed(remote: Remote) -> None:
    assert sockaddr.unpack(sockaddr.pack(remote)) == remote


def test_packed_addresses_have_the_layout_of_linux() -> None:
    assert sockaddr.pack(Remote(IPv4Address("192.0.2.1"), 1194)) == sockaddr_in("192.0.2.1", 1194)
    assert sockaddr.pack(Remote(IPv6Address("fe80::1"), 1194, 3)) == sockaddr_in6("fe80::1", 1194, 3)


def test_a_v4_mapped_address_becomes_ipv4_without_a_scope() -> None:
    assert sockaddr.unpack(sockaddr_in6("::ffff:192.0.2.1", 1194, 3)) == Remote(IPv4Address("192.0.2.1"), 1194)
    assert sockaddr.unpack_address(IPv6Address("::ffff:192.0.2.1").packed) == IPv4Address("192.0.2.1")


@pytest.mark.parametrize(
    "packed",
    [
        sockaddr_in("192.0.2.1", 1194) + b"\0",
        sockaddr_in6("2001:db8::1", 1194)[:16],
        sockaddr_in6("2001:db8::1", 1194)[:-4],
        sockaddr_in6("2001:db8::1", 1194) + b"\0",
        b"\1\0" + bytes(14),
        sockaddr_in("192.0.2.1", 1194) + bytes(12),
    ],
)
def test_another_size_or_family_is_refused(packed: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        sockaddr.unpack(packed)
    assert refused.value.errno == EINVAL


@given(st.binary(max_size=40).filter(lambda packed: len(packed) not in {4, 16}))
def test_an_address_of_another_length_is_refused(packed: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        sockaddr.unpack_address(packed)
    assert refused.value.errno == EINVAL
