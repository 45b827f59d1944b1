"""IP packets into frames for the TUN: in-order segments of a flow become one frame, which costs the kernel one packet.

Knows what may be joined so that splitting gives the packets back, but for the identification of IPv4 packets with DF,
which means nothing (RFC 6864). Must not know descriptors. Packets come from authenticated peers, who may send
anything: what does not fit goes alone, as it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dataplane.tun.checksum import folded_sum, pseudo_header
from dataplane.tun.headers import (
    ACK,
    CSUM_OFFSET,
    CWR,
    FIN,
    IPV4_SIZE,
    IPV6_SIZE,
    PSH,
    RST,
    SYN,
    TCP,
    TCP_FLAGS,
    TCP_SIZE,
    UDP,
    UDP_SIZE,
    URG,
    get16,
    get32,
    put16,
    set_ip_length,
    tcp_header_size,
)
from dataplane.tun.virtio import GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PACKET_MAX, VirtioHeader

RUN_PACKETS_MAX: Final = 64
OPEN_RUNS_MAX: Final = 64

_NOT_DF: Final = 0xBFFF  # the bits of IPv4's flags and fragment offset but "don't fragment"
_IPV4_WITHOUT_OPTIONS: Final = 0x45


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes to write to the TUN, virtio header and packet, and which of the packets they carry."""

    data: bytes
    indexes: tuple[int, ...]


def merge(packets: Sequence[bytes], *, tcp: bool, udp: bool) -> list[Frame]:
    """Frames with all these packets, in order of the first packet of each; tcp, udp: what may be joined.

    The packets of a flow keep their order.
    """
    allowed = ({TCP} if tcp else set()) | ({UDP} if udp else set())
    groups: list[list[int]] = []
    open_runs: dict[_Flow, _Run] = {}
    for index, packet in enumerate(packets):
        flow = _flow_of(packet)
        if flow is None:
            groups.append([index])
            continue
        # Taken out: whatever comes of a flow either goes on with its run or closes it.
        run = open_runs.pop(flow, None)
        segment = _segment_of(packet, flow) if flow.protocol in allowed else None
        if segment is None:
            groups.append([index])
            continue
        if run is not None and run.takes(segment):
            run.add(index, segment)
        else:
            run = _Run(index, segment)
            groups.append(run.indexes)
            if len(open_runs) == OPEN_RUNS_MAX:
                open_runs.clear()
        if not run.is_ended():
            open_runs[flow] = run
    return [Frame(_frame([packets[index] for index in group]), tuple(group)) for group in groups]


class _Flow(NamedTuple):
    version: int
    protocol: int
    ends: bytes  # both addresses, both ports


def _flow_of(packet: bytes) -> _Flow | None:
    """The flow of a TCP or UDP packet that is whole and plain; None for others."""
    size = len(packet)
    if size >= IPV4_SIZE and packet[0] == _IPV4_WITHOUT_OPTIONS:
        if get16(packet, 2) != size or get16(packet, 6) & _NOT_DF:
            return None
    elif size < IPV6_SIZE or packet[0] >> 4 != 6 or get16(packet, 4) + IPV6_SIZE != size:
        return None
    version = packet[0] >> 4
    protocol, transport = _transport_of(packet)
    smallest = {TCP: TCP_SIZE, UDP: UDP_SIZE}.get(protocol)
    if smallest is None or size < transport + smallest:
        return None
    addresses = packet[12:20] if version == 4 else packet[8:40]
    return _Flow(version, protocol, addresses + packet[transport : transport + 4])


def _transport_of(packet: bytes) -> tuple[int, int]:
    """Protocol, and where its header begins."""
    return (packet[9], IPV4_SIZE) if packet[0] >> 4 == 4 else (packet[6], IPV6_SIZE)


class _Segment(NamedTuple):
    """A packet that may be joined with others of its flow."""

    size: int
    payload_size: int
    constant: bytes  # the fields that are the same in all packets of a run
    identification: int | None  # counts up packet by packet; None: IPv6, or DF is set
    sequence: int | None  # goes on where the packet before ended; None: UDP
    flags: int  # of TCP


def _segment_of(packet: bytes, flow: _Flow) -> _Segment | None:
    """None if the packet is not to be joined: it is damaged, or is more than a piece of a stream."""
    if flow.version == 4:
        if folded_sum(packet[:IPV4_SIZE]) != 0xFFFF:
            return None
        constant = packet[1:2] + packet[6:9]  # type of service; DF, time to live
        identification = get16(packet, 4) if packet[6:8] == bytes(2) else None
    else:
        constant = packet[:4] + packet[7:8]  # traffic class, flow label; hop limit
        identification = None

    _, transport = _transport_of(packet)
    part = packet[transport:]
    if flow.protocol == TCP:
        header_size, sequence, flags = tcp_header_size(packet, transport), get32(part, 4), part[TCP_FLAGS]
        is_piece = header_size >= TCP_SIZE and flags & (ACK | SYN | RST | URG) == ACK
        # Acknowledgement, header size and reserved bits; window; urgent pointer, options.
        constant += part[8:13] + bytes([flags & ~(PSH | FIN | CWR)]) + part[14:16] + part[18:header_size]
    else:
        header_size, sequence, flags = UDP_SIZE, None, 0
        is_piece = get16(part, 4) == len(part) and get16(part, CSUM_OFFSET[UDP]) != 0
    payload_size = len(part) - header_size
    if not is_piece or payload_size < 1:
        return None
    if folded_sum(pseudo_header(packet, flow.protocol, len(part)) + part) != 0xFFFF:
        return None
    return _Segment(len(packet), payload_size, constant, identification, sequence, flags)


class _Run:
    """Segments that make one frame."""

    __slots__ = ("_first", "_last", "_size", "indexes")

    def __init__(self, index: int, segment: _Segment) -> None:
        self.indexes = [index]
        self._first = self._last = segment
        self._size = segment.size  # of the packet that is made of them

    def takes(self, segment: _Segment) -> bool:
        """Whether this may come next."""
        last = self._last
        return (
            len(self.indexes) < RUN_PACKETS_MAX
            and self._size + segment.payload_size <= PACKET_MAX
            and segment.payload_size <= self._first.payload_size
            and segment.constant == self._first.constant
            and not segment.flags & CWR
            and (last.identification is None or segment.identification == (last.identification + 1) & 0xFFFF)
            and (last.sequence is None or segment.sequence == (last.sequence + last.payload_size) & 0xFFFFFFFF)
        )

    def add(self, index: int, segment: _Segment) -> None:
        """Takes it."""
        self.indexes.append(index)
        self._last = segment
        self._size += segment.payload_size

    def is_ended(self) -> bool:
        """Whether the last segment leaves room for no other: all but the last are of one size, without PSH and FIN."""
        return self._last.payload_size < self._first.payload_size or bool(self._last.flags & (PSH | FIN))


def _frame(packets: list[bytes]) -> bytes:
    if len(packets) == 1:
        return VirtioHeader().pack() + packets[0]
    first, last = packets[0], packets[-1]
    protocol, transport = _transport_of(first)
    header_size = transport + (tcp_header_size(first, transport) if protocol == TCP else UDP_SIZE)
    joined = bytearray(first[:header_size] + b"".join(packet[header_size:] for packet in packets))
    set_ip_length(joined)
    if protocol == TCP:
        joined[transport + TCP_FLAGS] |= last[transport + TCP_FLAGS] & (PSH | FIN)
        gso_type = GSO_TCPV4 if first[0] >> 4 == 4 else GSO_TCPV6
        gso_type |= GSO_ECN if first[transport + TCP_FLAGS] & CWR else 0
    else:
        put16(joined, transport + 4, len(joined) - transport)
        gso_type = GSO_UDP_L4
    pseudo = pseudo_header(joined, protocol, len(joined) - transport)
    put16(joined, transport + CSUM_OFFSET[protocol], folded_sum(pseudo))
    header = VirtioHeader(
        flags=NEEDS_CSUM,
        gso_type=gso_type,
        hdr_len=header_size,
        gso_size=len(first) - header_size,
        csum_start=transport,
        csum_offset=CSUM_OFFSET[protocol],
    )
    return header.pack() + joined
