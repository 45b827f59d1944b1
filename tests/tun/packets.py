"""IP packets of TCP and UDP, built field by field with checksums in the slow way, and random traffic."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address

from hypothesis import strategies as st

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

ADDRESSES = {
    4: (ip_address("10.8.0.11").packed, ip_address("10.8.0.1").packed),
    6: (ip_address("fd00::11").packed, ip_address("fd00::1").packed),
}


def slow_checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@dataclass(frozen=True, kw_only=True)
class Packet:
    """All fields of a packet but its lengths and checksums, which follow; `tos` is IPv6's traffic class as well."""

    version: int = 4
    protocol: int = TCP
    payload: bytes = b""
    ports: tuple[int, int] = (7, 9)
    tos: int = 0
    ttl: int = 64
    identification: int = 0
    flags_and_offset: int = 0
    ip_options: bytes = b""
    flow_label: int = 0
    sequence: int = 0
    acknowledgement: int = 0
    reserved: int = 0
    flags: int = ACK
    window: int = 1000
    urgent: int = 0
    options: bytes = b""

    def with_(self, **changes: object) -> Packet:
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def transport(self) -> int:
        """Where the transport header begins."""
        return 20 + len(self.ip_options) if self.version == 4 else 40

    @property
    def header_size(self) -> int:
        return self.transport + (20 + len(self.options) if self.protocol == TCP else 8)

    def pack(self) -> bytes:
        part = self._part(0)
        addresses = b"".join(ADDRESSES[self.version])
        pseudo = addresses + struct.pack(">HH", self.protocol, len(part))
        part = self._part(slow_checksum(pseudo + part) or 0xFFFF)
        if self.version == 6:
            word = 6 << 28 | self.tos << 20 | self.flow_label
            return struct.pack(">IHBB", word, len(part), self.protocol, self.ttl) + addresses + part
        header = self._ipv4_header(len(part), 0)
        return self._ipv4_header(len(part), slow_checksum(header)) + part

    def _ipv4_header(self, part_size: int, checksum: int) -> bytes:
        words = (self.identification, self.flags_and_offset, self.ttl, self.protocol, checksum)
        first = struct.pack(">BBH", 0x40 | self.transport // 4, self.tos, self.transport + part_size)
        return first + struct.pack(">HHBBH", *words) + b"".join(ADDRESSES[4]) + self.ip_options

    def _part(self, checksum: int) -> bytes:
        if self.protocol == UDP:
            return struct.pack(">HHHH", *self.ports, 8 + len(self.payload), checksum) + self.payload
        byte_12 = (20 + len(self.options)) // 4 << 4 | self.reserved
        numbers = (*self.ports, self.sequence, self.acknowledgement, byte_12, self.flags, self.window)
        return struct.pack(">HHIIBBHHH", *numbers, checksum, self.urgent) + self.options + self.payload


def patched(data: bytes, at: int, value: bytes) -> bytes:
    """These bytes with some of them replaced."""
    return data[:at] + value + data[at + len(value) :]


def words_of_options(words: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, words).flatmap(lambda count: st.binary(min_size=4 * count, max_size=4 * count))


def packets(version: int | None = None, protocol: int | None = None) -> st.SearchStrategy[Packet]:
    """Packets with any legal header; the payload is empty."""
    return st.builds(
        Packet,
        version=st.sampled_from([4, 6]) if version is None else st.just(version),
        protocol=st.sampled_from([TCP, UDP]) if protocol is None else st.just(protocol),
        tos=st.integers(0, 255),
        ttl=st.integers(0, 255),
        identification=st.integers(0, 0xFFFF) | st.sampled_from([0xFFFF, 0xFFFE]),
        flags_and_offset=st.sampled_from([0, 0x4000]),
        flow_label=st.integers(0, 0xFFFFF),
        sequence=st.integers(0, 0xFFFFFFFF) | st.sampled_from([0xFFFFFFFF, 0xFFFFFFF0]),
        acknowledgement=st.integers(0, 0xFFFFFFFF),
        reserved=st.integers(0, 15),
        flags=st.integers(0, 255),
        window=st.integers(0, 0xFFFF),
        urgent=st.integers(0, 0xFFFF),
        options=words_of_options(10),
    )


@st.composite
def traffic(draw: st.DrawFn) -> list[bytes]:
    """Packets of a few flows, mostly in order, some of them odd, damaged, or no packets at all."""
    flows = [
        Packet(version=version, protocol=protocol, ports=(port, 9), sequence=0xFFFFFFF0, identification=0xFFFE)
        for version in (4, 6)
        for protocol in (TCP, UDP)
        for port in (7, 8)
    ]
    steps = st.tuples(
        st.integers(0, len(flows) - 1),
        st.sampled_from([1, 4, 4, 4, 4, 5, 9]),
        st.sampled_from([ACK] * 8 + [ACK | PSH, ACK | FIN, ACK | CWR, ACK | ECE, SYN, ACK | RST, ACK | URG, 0]),
        st.sampled_from([{}] * 8 + ODDITIES),
        st.sampled_from([None] * 12 + ["flip", "cut", "garbage"]),
    )
    result: list[bytes] = []
    for which, size, flags, oddity, damage in draw(st.lists(steps, max_size=40)):
        packet = flows[which].with_(payload=bytes([len(result)]) * size, flags=flags)
        flows[which] = packet.with_(
            sequence=(packet.sequence + size) & 0xFFFFFFFF, identification=(packet.identification + 1) & 0xFFFF
        )
        data = packet.with_(**oddity).pack()
        if damage == "flip":
            at = draw(st.integers(0, len(data) - 1))
            data = patched(data, at, bytes([data[at] ^ 1 << draw(st.integers(0, 7))]))
        elif damage == "cut":
            data = data[: draw(st.integers(0, len(data)))]
        elif damage == "garbage":
            data = draw(st.binary(max_size=80))
        result.append(data)
    return result


ODDITIES: list[dict[str, object]] = [
    {"tos": 1},
    {"ttl": 63},
    {"flags_and_offset": 0x4000},
    {"flags_and_offset": 0x2000},
    {"identification": 77},
    {"ip_options": bytes(4)},
    {"flow_label": 5},
    {"sequence": 0},
    {"acknowledgement": 1},
    {"reserved": 1},
    {"window": 999},
    {"urgent": 1},
    {"options": bytes(4)},
    {"payload": b""},
    {"protocol": 1},
]
