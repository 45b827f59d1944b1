"""A frame of the TUN into the IP packets it stands for.

Knows checksum offload and segmentation (TSO, USO) as the kernel would do them. Must not know descriptors. A frame comes
from this host's kernel, but may have been written into it by anyone (a virtual machine, AF_PACKET): nothing is trusted.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dataplane.tun.checksum import transport_checksum
from dataplane.tun.headers import (
    CSUM_OFFSET,
    CWR,
    FIN,
    IPV4_SIZE,
    IPV6_SIZE,
    PSH,
    TCP,
    TCP_FLAGS,
    TCP_SIZE,
    UDP,
    UDP_SIZE,
    get16,
    get32,
    ipv4_header_size,
    put16,
    put32,
    set_ip_length,
    set_transport_checksum,
    tcp_header_size,
)
from dataplane.tun.virtio import (
    FRAME_MAX,
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER_SIZE,
    NEEDS_CSUM,
    VirtioHeader,
)

_PROTOCOLS: Final = {(GSO_TCPV4, 4): TCP, (GSO_TCPV6, 6): TCP, (GSO_UDP_L4, 4): UDP, (GSO_UDP_L4, 6): UDP}
"""Transport protocol by kind of frame and IP version."""


def split(frame: bytes) -> list[bytes] | None:
    """The packets of a frame, in order, one at least; None if its header does not fit what is behind it."""
    if not HEADER_SIZE <= len(frame) <= FRAME_MAX:
        return None
    header, packet = VirtioHeader.unpack(frame), frame[HEADER_SIZE:]
    if header.gso_type & ~GSO_ECN == GSO_NONE:
        return _single(packet, header)
    layout = _layout_of(packet, header)
    return None if layout is None else _segments(packet, layout, header.gso_size)


def _single(packet: bytes, header: VirtioHeader) -> list[bytes] | None:
    if not header.flags & NEEDS_CSUM:
        return [packet]
    field = header.csum_start + header.csum_offset
    if field + 2 > len(packet):
        return None
    completed = bytearray(packet)
    # The field, which holds the sum of the pseudo header, counts as well.
    put16(completed, field, transport_checksum(packet[header.csum_start :]))
    return [bytes(completed)]


class _Layout(NamedTuple):
    protocol: int
    transport: int  # where the transport header begins
    payload: int  # where the payload begins


def _layout_of(packet: bytes, header: VirtioHeader) -> _Layout | None:
    """Where the parts of a packet stand that is to be cut; None unless the virtio header fits it."""
    version = packet[0] >> 4 if packet else 0
    protocol = _PROTOCOLS.get((header.gso_type & ~GSO_ECN, version))
    if protocol is None or header.gso_size == 0 or header.csum_offset != CSUM_OFFSET[protocol]:
        return None
    transport = header.csum_start
    if version == 4:
        ip_header_fits = ipv4_header_size(packet) >= IPV4_SIZE and transport == ipv4_header_size(packet)
    else:
        ip_header_fits = transport >= IPV6_SIZE  # behind extension headers, perhaps
    smallest = TCP_SIZE if protocol == TCP else UDP_SIZE
    if not ip_header_fits or transport + smallest > len(packet):
        return None
    size = tcp_header_size(packet, transport) if protocol == TCP else UDP_SIZE
    if size < smallest or transport + size > len(packet):
        return None
    return _Layout(protocol, transport, transport + size)


def _segments(packet: bytes, layout: _Layout, segment_size: int) -> list[bytes]:
    headers, payload = packet[: layout.payload], packet[layout.payload :]
    starts = range(0, max(len(payload), 1), segment_size)
    segments = []
    for index, start in enumerate(starts):
        segment = bytearray(headers + payload[start : start + segment_size])
        if packet[0] >> 4 == 4:
            put16(segment, 4, get16(packet, 4) + index)  # identification
        set_ip_length(segment)
        if layout.protocol == UDP:
            put16(segment, layout.transport + 4, len(segment) - layout.transport)
        else:
            put32(segment, layout.transport + 4, get32(packet, layout.transport + 4) + start)  # sequence number
            flags_elsewhere = (CWR if index > 0 else 0) | (FIN | PSH if start != starts[-1] else 0)
            segment[layout.transport + TCP_FLAGS] &= ~flags_elsewhere
        set_transport_checksum(segment, layout.protocol, layout.transport)
        segments.append(bytes(segment))
    return segments
