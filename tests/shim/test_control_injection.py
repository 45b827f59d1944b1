"""Control packets from the outlet's datagrams into a UDP socket, over loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from errno import EADDRNOTAVAIL

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.control_injection import ControlPacket, Injector, decode
from dataplane.transport.control_outlet import ControlOutlet

MAPPED = bytes(10) + b"\xff\xff"
IPV4_SOURCE, IPV6_SOURCE = bytes([192, 0, 2, 9]), bytes.fromhex("20010db8" + "00" * 11 + "09")
LOCALHOST4, LOCALHOST6 = bytes([127, 0, 0, 1]), bytes(15) + b"\1"


def datagram(version: int, source: bytes, local: bytes, *, scope_id: int = 0, payload: bytes = b"x") -> bytes:
    return bytes([version, 0]) + b"\x04\xaa" + scope_id.to_bytes(4, "big") + source + local + payload


@pytest.fixture
def injector() -> Iterator[Injector]:
    injector = Injector([4, 6])
    yield injector
    injector.close()


def bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(5)
    made.bind((address, 0))
    return made


def test_an_ipv4_packet_is_taken_out_of_its_mapped_addresses() -> None:
    expected = ControlPacket(4, IPV4_SOURCE, 1194, 0, LOCALHOST4, b"xyz")
    assert decode(datagram(4, MAPPED + IPV4_SOURCE, MAPPED + LOCALHOST4, payload=b"xyz")) == expected


def test_an_ipv6_packet_has_its_scope() -> None:
    expected = ControlPacket(6, IPV6_SOURCE, 1194, 7, LOCALHOST6, b"x")
    assert decode(datagram(6, IPV6_SOURCE, LOCALHOST6, scope_id=7)) == expected


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        bytes(39),
        datagram(4, MAPPED + IPV4_SOURCE, MAPPED + LOCALHOST4, payload=b""),
        datagram(5, MAPPED + IPV4_SOURCE, MAPPED + LOCALHOST4),
        datagram(6, IPV6_SOURCE, bytes(16)),
        datagram(4, MAPPED + IPV4_SOURCE, bytes(16)),
        datagram(4, IPV6_SOURCE, MAPPED + LOCALHOST4),
        datagram(4, MAPPED + IPV4_SOURCE, LOCALHOST6),
    ],
)
def test_what_is_no_control_packet_is_refused(malformed: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(malformed)


@given(st.binary(max_size=100))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        packet = decode(data)
    except ValueError:
        return
    assert len(packet.source) == len(packet.local) == {4: 4, 6: 16}[packet.version]
    assert packet.payload == data[40:] != b""


@pytest.mark.parametrize(
    ("source", "local", "packet"),
    [
        (("192.0.2.9", 1194), LOCALHOST4, ControlPacket(4, IPV4_SOURCE, 1194, 0, LOCALHOST4, b"x")),
        (
            ("::ffff:192.0.2.9", 1194, 0, 0),
            MAPPED + LOCALHOST4,
            ControlPacket(4, IPV4_SOURCE, 1194, 0, LOCALHOST4, b"x"),
        ),
        (("2001:db8::9", 1194, 0, 3), LOCALHOST6, ControlPacket(6, IPV6_SOURCE, 1194, 3, LOCALHOST6, b"x")),
    ],
)
def test_what_the_data_plane_sends_is_understood(
    source: tuple[str, int] | tuple[str, int, int, int], local: bytes, packet: ControlPacket
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        outlet = ControlOutlet(theirs.fileno())
        assert outlet.send(b"x", source, local)
        outlet.close()
        assert decode(ours.recv(100)) == packet


@pytest.mark.root
@pytest.mark.parametrize("length", [1, 2, 1399, 1400, 65507])
@pytest.mark.parametrize("byte", [0, 0xFF])
def test_an_ipv4_packet_arrives_with_its_source(injector: Injector, length: int, byte: int) -> None:
    payload = bytes([byte]) * length
    with bound("127.0.0.1") as openvpn:
        injector.inject(ControlPacket(4, IPV4_SOURCE, 1194, 0, LOCALHOST4, payload), openvpn.getsockname()[1])
        assert openvpn.recvfrom(65535) == (payload, ("192.0.2.9", 1194))


@pytest.mark.root
@pytest.mark.parametrize("length", [1, 2, 1399, 1400, 65487])
@pytest.mark.parametrize("byte", [0, 0xFF])
def test_an_ipv6_packet_arrives_with_its_source(injector: Injector, length: int, byte: int) -> None:
    payload = bytes([byte]) * length
    with bound("::1") as openvpn:
        injector.inject(ControlPacket(6, IPV6_SOURCE, 1194, 0, LOCALHOST6, payload), openvpn.getsockname()[1])
        assert openvpn.recvfrom(65535) == (payload, ("2001:db8::9", 1194, 0, 0))


@pytest.mark.root
def test_any_checksum_is_right(injector: Injector) -> None:
    with bound("::1") as openvpn:
        for number in range(0, 0x10000, 0x101):
            payload = number.to_bytes(2, "big")
            injector.inject(ControlPacket(6, IPV6_SOURCE, 1194, 0, LOCALHOST6, payload), openvpn.getsockname()[1])
            assert openvpn.recv(10) == payload


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
def test_nothing_is_sent_to_an_address_that_is_not_ours(injector: Injector, version: int) -> None:
    somewhere = IPV4_SOURCE if version == 4 else IPV6_SOURCE
    with pytest.raises(OSError, match="Cannot assign") as caught:
        injector.inject(ControlPacket(version, somewhere, 1194, 0, somewhere, b"x"), 1194)
    assert caught.value.errno == EADDRNOTAVAIL


@pytest.mark.root
def test_a_version_that_was_not_asked_for_is_refused() -> None:
    injector = Injector([4])
    with pytest.raises(ValueError, match="IPv6"):
        injector.inject(ControlPacket(6, IPV6_SOURCE, 1194, 0, LOCALHOST6, b"x"), 1194)
    injector.close()
