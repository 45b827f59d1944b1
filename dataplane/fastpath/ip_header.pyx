"""Source, destination and DSCP of an inner packet; what reads them stands in ip_header.pxd, where it can be inlined."""

from libc.stdint cimport uint8_t

from dataplane.fastpath.span cimport span_of


cdef IpAddress pack_address(bytes packed) except *:
    cdef IpAddress address
    if len(packed) not in (4, 16):
        raise ValueError(f"an address of {len(packed)} bytes")
    number = int.from_bytes(packed, "big")
    address.words[0] = number >> 64
    address.words[1] = number & 0xFFFFFFFFFFFFFFFF
    address.size = len(packed)
    return address


cdef object unpack_address(IpAddress address):
    number = <object>address.words[0] << 64 | address.words[1]
    return number.to_bytes(address.size, "big") if address.size else None


# For tests.

def source(bytes packet not None):
    """The packed source address (4 or 16 bytes); None if the packet has no whole IPv4 or IPv6 header."""
    return unpack_address(source_of(span_of(<uint8_t*><char*>packet, len(packet))))


def destination(bytes packet not None):
    """The packed destination address (4 or 16 bytes); None if the packet has no whole IPv4 or IPv6 header."""
    return unpack_address(destination_of(span_of(<uint8_t*><char*>packet, len(packet))))


def dscp(bytes packet not None):
    """The DSCP in the place it has in the TOS, ECN bits zero; 0 if the packet has no whole header."""
    return dscp_of(span_of(<uint8_t*><char*>packet, len(packet)))
